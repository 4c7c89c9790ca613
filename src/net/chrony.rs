//! Whether chrony has the time: its monitoring protocol on the loopback interface, which anybody on the machine may ask.
//!
//! One datagram there, one back, nothing is kept. No answer (`cmdport 0`, another version) is no word about the clock.
//! What this does not do: change anything; who asks for more than the state has to be root.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// There while chrony runs.
const RUNTIME: &str = "/run/chrony";
/// Where it answers.
const PORT: u16 = 323;
/// How long it may take: it is on this machine.
const PATIENCE: Duration = Duration::from_millis(300);
/// Protocol, since chrony 1.30.
const VERSION: u8 = 6;
/// What is asked for, and the kind of its answer.
const TRACKING: (u16, u16) = (33, 5);
/// Length of the answer; a question has to be as long.
const LENGTH: usize = 104;
/// Where the state of the clock stands in it.
const LEAP: usize = 54;
/// The state of a clock that nobody has set.
const UNSYNCHRONISED: u16 = 3;

/// Whether chrony has set the clock of this machine; `None`: it does not run, or does not say. Blocks for a moment.
pub fn is_synchronised() -> Option<bool> {
    Path::new(RUNTIME).is_dir().then(|| ask(PORT)).flatten()
}

fn ask(port: u16) -> Option<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    // Connected: nobody else's datagram is taken.
    socket.connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let number = std::process::id();
    socket.send(&question(number)).ok()?;
    let mut answer = [0; LENGTH];
    let length = socket.recv(&mut answer).ok()?;
    read(answer.get(..length)?, number)
}

fn question(number: u32) -> [u8; LENGTH] {
    let mut question = [0; LENGTH];
    (question[0], question[1]) = (VERSION, 1);
    question[4..6].copy_from_slice(&TRACKING.0.to_be_bytes());
    question[8..12].copy_from_slice(&number.to_be_bytes());
    question
}

/// `None`: not the answer to the question of this number.
fn read(answer: &[u8], number: u32) -> Option<bool> {
    let short = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let is_ours = answer.starts_with(&[VERSION, 2])
        && (short(4)?, short(6)?, short(8)?) == (TRACKING.0, TRACKING.1, 0)
        && answer.get(16..20)? == number.to_be_bytes();
    let leap = short(LEAP)?;
    (is_ours && leap <= UNSYNCHRONISED).then_some(leap != UNSYNCHRONISED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u32, leap: u16) -> Vec<u8> {
        let mut answer = vec![0; LENGTH];
        answer[..10].copy_from_slice(&[VERSION, 2, 0, 0, 0, 33, 0, 5, 0, 0]);
        answer[16..20].copy_from_slice(&number.to_be_bytes());
        answer[LEAP..LEAP + 2].copy_from_slice(&leap.to_be_bytes());
        answer
    }

    #[test]
    fn what_chrony_says_and_what_is_no_answer_of_it() {
        assert_eq!((read(&answer(7, 0), 7), read(&answer(7, 2), 7)), (Some(true), Some(true)));
        assert_eq!(read(&answer(7, 3), 7), Some(false));
        assert_eq!((read(&answer(8, 0), 7), read(&answer(7, 4), 7), read(b"", 7)), (None, None, None));
        for at in [0, 1, 5, 7, 9] {
            let mut other = answer(7, 0);
            other[at] ^= 1;
            assert_eq!(read(&other, 7), None, "{at}");
        }
        assert_eq!(read(&answer(7, 0)[..=LEAP], 7), None);
    }

    #[test]
    fn it_is_asked_over_loopback() {
        let chrony = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = chrony.local_addr().unwrap().port();
        let answers = std::thread::spawn(move || {
            let mut question = [0; 512];
            let (length, from) = chrony.recv_from(&mut question).unwrap();
            assert_eq!((length, &question[..2], &question[4..6]), (LENGTH, &[6, 1][..], &[0, 33][..]));
            let number = u32::from_be_bytes(question[8..12].try_into().unwrap());
            chrony.send_to(&answer(number, 3), from).unwrap();
        });
        assert_eq!(ask(port), Some(false));
        answers.join().unwrap();
        assert_eq!(ask(port), None, "nobody is there any more");
    }
}
