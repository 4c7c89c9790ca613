//! How many connections there are, in all and from one address: who opens many keeps nobody else out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Places for connections. A std lock: nobody awaits under it.
#[derive(Clone, Debug)]
pub struct Places {
    most: usize,
    of_one: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Places {
    /// So many in all, and so many for one address.
    pub fn new(most: usize, of_one: usize) -> Self {
        Self { most, of_one, taken: Arc::default() }
    }

    /// A place for a connection of this address, or why there is none.
    ///
    /// # Errors
    /// In words.
    pub fn take(&self, address: IpAddr) -> Result<Place, String> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.most {
            return Err(format!("{} connections are open, no more are taken", self.most));
        }
        let of_one = taken.entry(address).or_default();
        if *of_one >= self.of_one {
            return Err(format!("{} connections of it are open, no more are taken", self.of_one));
        }
        *of_one += 1;
        Ok(Place { places: self.clone(), address })
    }
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_one) = taken.get_mut(&self.address) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_no_more_than_its_share_and_gives_it_back() {
        let (one, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let places = Places::new(3, 2);
        let first = places.take(one).unwrap();
        let _second = places.take(one).unwrap();
        assert!(places.take(one).unwrap_err().starts_with("2 connections of it"));
        let _third = places.take(other).unwrap();
        assert!(places.take(other).unwrap_err().starts_with("3 connections are open"));
        drop(first);
        assert!(places.take(other).is_ok());
        assert_eq!(places.taken.lock().unwrap().len(), 2);
    }
}
