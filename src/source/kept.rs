//! Listening sockets that stay open while the config is read again: who sends meanwhile finds somebody there, and the kernel
//! keeps what comes until the next to listen reads it.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What listened somewhere, until somebody listens there again.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<BTreeMap<String, Box<dyn Any + Send>>>>);

impl Kept {
    /// Keeps what listened at a place. The last who forgets the whole closes it.
    pub(super) fn keep<S: Any + Send>(&self, place: String, socket: S) {
        self.with(|all| all.insert(place, Box::new(socket)));
    }

    /// What listened at a place, where it was kept and is of this kind.
    pub(super) fn take<S: Any + Send>(&self, place: &str) -> Option<S> {
        self.with(|all| all.remove(place))?.downcast().ok().map(|socket| *socket)
    }

    /// Closes what listened elsewhere than at these places.
    pub fn retain(&self, places: &BTreeSet<String>) {
        self.with(|all| all.retain(|place, _| places.contains(place)));
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Box<dyn Any + Send>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_once_by_its_own_kind_and_closed_when_nobody_wants_it() {
        let kept = Kept::default();
        let (mine, other) = (Arc::new(()), Arc::new(()));
        kept.keep("udp a".to_owned(), Arc::clone(&mine));
        kept.keep("udp b".to_owned(), Arc::clone(&other));
        kept.retain(&["udp a".to_owned()].into());
        assert_eq!((Arc::strong_count(&mine), Arc::strong_count(&other)), (2, 1));
        assert!(kept.take::<Arc<()>>("udp b").is_none());
        assert!(kept.take::<Arc<()>>("udp a").is_some());
        assert!(kept.take::<Arc<()>>("udp a").is_none());
        kept.keep("udp a".to_owned(), mine);
        assert!(kept.take::<u8>("udp a").is_none(), "another kind");
    }
}
