//! Who may have a connection: how many there are in all and from one sender, and who goes when there is no place left. Who
//! opens many keeps nobody else out.
//!
//! The same for every listener. One sender is one IPv4 address or one /64 of IPv6, which is the least that one machine has.
//! When all places are taken, the connection that has been silent for longest goes, among those of the sender that has most;
//! so a sender with few connections loses none to one with many. Unfinished handshakes have places of their own
//! ([`Doors::handshakes`]): a stranger has no place among those who have shown who they are.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Most unfinished handshakes of a listener; for one more the oldest goes.
pub const HANDSHAKES_MAX: usize = 32;
/// Nobody was turned away for so long: it is over.
const CALM: Duration = Duration::from_mins(1);

/// The bounds of a listener's connections.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most in all.
    pub most: usize,
    /// Most of one sender.
    pub of_one: usize,
    /// A connection that was silent for less is not closed for another.
    pub silent_min: Duration,
}

/// The places of a listener: of handshakes, and of connections behind them.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Where a handshake is not done. There is always a place.
    pub handshakes: Places,
    /// Of connections.
    pub places: Places,
    crowd: watch::Sender<String>,
}

impl Doors {
    /// With these bounds for the connections.
    pub fn new(bounds: Bounds) -> Self {
        let crowd = watch::Sender::new(String::new());
        let oldest = Bounds { most: HANDSHAKES_MAX, of_one: HANDSHAKES_MAX, silent_min: Duration::ZERO };
        let of = |bounds, what| Places { bounds, what, crowd: crowd.clone(), taken: Arc::default() };
        Self { handshakes: of(oldest, "unfinished handshakes"), places: of(bounds, "connections"), crowd }
    }

    /// When connections begin to be turned away, and when that is over.
    pub fn crowd(&self) -> Crowd {
        Crowd { news: self.crowd.subscribe(), is_on: false }
    }
}

/// Tells while connections are turned away.
#[derive(Debug)]
pub struct Crowd {
    news: watch::Receiver<String>,
    is_on: bool,
}

impl Crowd {
    /// The next change: why connections are turned away now, or `None` when nobody was for a minute. The words stay
    /// those of the beginning. Never ends when the listener has.
    pub async fn next(&mut self) -> Option<String> {
        if self.is_on {
            while let Ok(Ok(())) = timeout(CALM, self.news.changed()).await {}
            self.is_on = false;
            return None;
        }
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.is_on = true;
        Some(self.news.borrow_and_update().clone())
    }
}

/// Places for connections. A std lock: nobody awaits under it.
#[derive(Clone, Debug)]
pub struct Places {
    bounds: Bounds,
    what: &'static str,
    crowd: watch::Sender<String>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    number: u64,
    sender: IpAddr,
    /// Since when it has been silent; `None`: it is worked on.
    silent_since: Option<Instant>,
    /// Told when it has to go.
    go: CancellationToken,
}

impl Taken {
    fn of(&self, sender: IpAddr) -> usize {
        self.held.iter().filter(|held| held.sender == sender).count()
    }

    /// Who goes for a new one of this sender: the silent of the sender that has most, itself among them; nobody who has
    /// less than it.
    fn goes(&self, sender: IpAddr, bounds: Bounds, now: Instant) -> Option<usize> {
        let own = self.of(sender);
        let score = |held: &Held| {
            let of_sender = self.of(held.sender);
            let silent = now.saturating_duration_since(held.silent_since?);
            let may_go = if own >= bounds.of_one { held.sender == sender } else { of_sender >= own };
            (may_go && silent >= bounds.silent_min).then_some((of_sender, silent))
        };
        let scored = self.held.iter().enumerate().filter_map(|(at, held)| Some((score(held)?, at)));
        // Of equals the first: it came first.
        scored.max_by_key(|(score, at)| (*score, std::cmp::Reverse(*at))).map(|(_, at)| at)
    }
}

impl Places {
    /// A place for a connection of this address, or why there is none. Another connection may have to go for it: its
    /// [`Place::told_to_go`] ends.
    ///
    /// # Errors
    /// In words.
    pub fn take(&self, address: IpAddr) -> Result<Place, String> {
        let (sender, now, bounds) = (one_sender(address), Instant::now(), self.bounds);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let full = if taken.held.len() >= bounds.most {
            Some(format!("{} {} are open", bounds.most, self.what))
        } else if taken.of(sender) >= bounds.of_one {
            Some(format!("{} {} of one sender are open", bounds.of_one, self.what))
        } else {
            None
        };
        if let Some(why) = full {
            self.crowd.send_replace(why.clone());
            let Some(at) = taken.goes(sender, bounds, now) else {
                return Err(format!("{why}, no more are taken"));
            };
            taken.held.remove(at).go.cancel();
        }
        taken.last += 1;
        let (number, go) = (taken.last, CancellationToken::new());
        taken.held.push(Held { number, sender, silent_since: Some(now), go: go.clone() });
        Ok(Place { taken: Arc::clone(&self.taken), number, go })
    }

    /// Why one of these had to go, in words.
    pub fn gone(&self) -> String {
        let Bounds { most, of_one, .. } = self.bounds;
        format!(
            "closed for another one: {most} {} are open, or {of_one} of one sender, and it was silent",
            self.what
        )
    }
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    number: u64,
    go: CancellationToken,
}

impl Place {
    /// From now on nothing comes of it.
    pub fn is_silent(&self) {
        self.since(Some(Instant::now()));
    }

    /// It is worked on: it does not have to go.
    pub fn is_busy(&self) {
        self.since(None);
    }

    fn since(&self, since: Option<Instant>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = taken.held.iter_mut().find(|held| held.number == self.number) {
            held.silent_since = since;
        }
    }

    /// Ends when the connection has to go for another one.
    pub async fn told_to_go(&self) {
        self.go.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.held.retain(|held| held.number != self.number);
    }
}

/// Who counts as one.
fn one_sender(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn places(most: usize, of_one: usize, silent_min: Duration) -> Doors {
        Doors::new(Bounds { most, of_one, silent_min })
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_takes_no_more_than_its_share_and_gives_it_back() {
        let (one, other) = (ip("192.0.2.1"), ip("::ffff:192.0.2.2"));
        let doors = places(3, 2, CALM);
        let places = &doors.places;
        let first = places.take(one).unwrap();
        let _second = places.take(one).unwrap();
        assert!(places.take(one).unwrap_err().starts_with("2 connections of one sender"));
        let _third = places.take(other).unwrap();
        assert!(places.take(other).unwrap_err().starts_with("3 connections are open"));
        drop(first);
        assert!(places.take(other).is_ok());
        assert_eq!(places.taken.lock().unwrap().held.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_net_of_ipv6_is_one_sender() {
        let doors = places(9, 2, CALM);
        let _held = ["2001:db8::1", "2001:db8::2:1"].map(|text| doors.places.take(ip(text)).unwrap());
        assert!(doors.places.take(ip("2001:db8:0:0:ffff::1")).is_err());
        assert!(doors.places.take(ip("2001:db8:0:1::1")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_goes_and_first_of_those_who_have_most() {
        let second = Duration::from_secs(1);
        let doors = places(4, 3, second);
        let places = &doors.places;
        let quiet = places.take(ip("192.0.2.9")).unwrap();
        tokio::time::advance(second).await;
        let many = [0; 3].map(|_| places.take(ip("192.0.2.1")).unwrap());
        tokio::time::advance(second).await;
        many[0].is_busy();
        many[1].is_silent();
        // It has been silent for longest, but has only one.
        let new = places.take(ip("192.0.2.2")).unwrap();
        let gone = |place: &Place| place.go.is_cancelled();
        assert_eq!((gone(&quiet), [0, 1, 2].map(|at| gone(&many[at]))), (false, [false, false, true]));
        // Who has two takes nobody's only one, and its own two are not silent for long enough.
        assert!(places.take(ip("192.0.2.1")).is_err());
        drop(new);
        assert!(places.take(ip("192.0.2.1")).is_ok());
        // Beyond its share it gives up one of its own, in time.
        let third = places.take(ip("192.0.2.1")).unwrap();
        assert!(places.take(ip("192.0.2.1")).is_err());
        tokio::time::advance(second).await;
        assert!(places.take(ip("192.0.2.1")).is_ok() && gone(&many[1]) && !gone(&third) && !gone(&quiet));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_always_has_a_place_and_strangers_lose_theirs() {
        let doors = places(1, 1, CALM);
        let honest = doors.handshakes.take(ip("192.0.2.9")).unwrap();
        let mut floods = Vec::new();
        for _ in 0..500 {
            floods.push(doors.handshakes.take(ip("192.0.2.1")).unwrap());
            floods.push(doors.handshakes.take(ip("2001:db8::1")).unwrap());
        }
        assert!(!honest.go.is_cancelled());
        let open = floods.iter().filter(|place| !place.go.is_cancelled()).count();
        assert_eq!(open, HANDSHAKES_MAX - 1);
        assert!(doors.places.take(ip("192.0.2.9")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_told_when_it_begins_and_when_it_is_over() {
        let doors = places(1, 1, CALM * 2);
        let mut crowd = doors.crowd();
        let _held = doors.places.take(ip("192.0.2.1")).unwrap();
        assert!(timeout(CALM, crowd.next()).await.is_err());
        assert!(doors.places.take(ip("192.0.2.2")).is_err());
        assert_eq!(crowd.next().await.as_deref(), Some("1 connections are open"));
        tokio::time::advance(CALM).await;
        assert!(doors.places.take(ip("192.0.2.2")).is_ok(), "who was silent for two minutes went for it");
        let began = Instant::now();
        assert_eq!((crowd.next().await, began.elapsed()), (None, CALM));
        assert!(doors.handshakes.take(ip("192.0.2.1")).is_ok());
        assert!(timeout(CALM * 3, crowd.next()).await.is_err());
    }
}
