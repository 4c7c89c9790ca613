//! `otrelay top` on a terminal: what it shows, and that the terminal is given back whatever ends it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::agent::{Agent, terminate};
use crate::support::eve::{self, alert};
use crate::support::{simulator, until};

/// The other screen is left, the cursor is seen.
const GIVEN_BACK: &str = "\u{1b}[0m\u{1b}[?25h\u{1b}[?1049l";

/// `otrelay top` on a terminal of its own.
struct Top {
    child: Child,
    /// The person's end.
    person: File,
    /// The program's end, also when it has ended.
    terminal: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Top {
    fn new(agent: &Agent) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let person = File::from(person);
        resize(&person, 80, 24);
        let mut command = agent.command(&["top"]);
        command.env("TERM", "xterm").stdin(terminal.try_clone().unwrap());
        command.stdout(terminal.try_clone().unwrap()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reads, into) = (person.try_clone().unwrap(), Arc::clone(&shown));
        // Ends with the terminal.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = reads.read(&mut bytes) {
                into.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
        });
        Self { child, person, terminal, shown }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// What a person sees has these words.
    fn until(&self, words: &str) {
        until(words, || screen(&self.shown()).contains(words).then_some(()));
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.terminal).unwrap().local_modes
    }

    /// It ends well, and the terminal is as it was.
    #[track_caller]
    fn gives_back(mut self, before: LocalModes) {
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.shown());
        until("the other screen is left", || self.shown().ends_with(GIVEN_BACK).then_some(()));
        assert_eq!(self.modes(), before);
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The screen after what was written, as lines: only places that were changed are written.
fn screen(written: &str) -> String {
    let mut rows = vec![[' '; 80]; 24];
    let (mut x, mut y) = (0, 0);
    let mut rest = written.chars();
    while let Some(c) = rest.next() {
        if c != '\u{1b}' {
            if let Some(place) = rows.get_mut(y).and_then(|row: &mut [char; 80]| row.get_mut(x)) {
                *place = c;
            }
            x += 1;
            continue;
        }
        let mut sequence = String::new();
        // `[` first, a letter last; what is cut off comes with the next look.
        for c in rest.by_ref().skip(1) {
            sequence.push(c);
            if c.is_ascii_alphabetic() {
                break;
            }
        }
        match sequence.split_at(sequence.len().saturating_sub(1)) {
            (place, "H") => {
                let (row, column) = place.split_once(';').unwrap();
                (y, x) = (row.parse::<usize>().unwrap() - 1, column.parse::<usize>().unwrap() - 1);
            }
            ("2", "J") => rows = vec![[' '; 80]; 24],
            _ => {}
        }
    }
    rows.iter().map(|row| row.iter().collect::<String>() + "\n").collect()
}

fn resize(person: &File, columns: u16, rows: u16) {
    tcsetwinsize(person, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

#[test]
fn how_things_are_is_shown_and_the_terminal_is_given_back() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let before = {
        let top = Top::new(&agent);
        // No service: plain words, and the screen is not taken at all.
        let modes = top.modes();
        let mut top = top;
        assert_eq!(top.child.wait().unwrap().code(), Some(1));
        let mut said = String::new();
        top.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("there is nothing to look at; start it"), "{said}");
        assert!(!top.shown().contains("1049"), "{}", top.shown());
        modes
    };
    let service = agent.start();
    agent.feed(alert(1).line());
    agent.until_status("one is there", |status| status["backlog"] == 1);

    let mut top = Top::new(&agent);
    top.until("on cell-7: fine");
    top.until("next sync in ");
    top.until("backlog 1 waiting");
    top.until(&eve::title(1));
    assert!(!top.modes().contains(LocalModes::ECHO));
    // A smaller terminal: drawn anew.
    let drawn = top.shown().matches("\u{1b}[2J").count();
    resize(&top.person, 40, 12);
    until("it is drawn anew", || (top.shown().matches("\u{1b}[2J").count() > drawn).then_some(()));
    top.person.write_all(b"q").unwrap();
    top.gives_back(before);

    let top = Top::new(&agent);
    top.until("backlog 1 waiting");
    terminate(&top.child);
    top.gives_back(before);

    // The connection of the person's terminal goes, somebody orders it to end: whatever ends it, the terminal is given back.
    for signal in [Signal::HUP, Signal::QUIT, Signal::INT] {
        let top = Top::new(&agent);
        top.until("backlog 1 waiting");
        kill_process(Pid::from_child(&top.child), signal).unwrap();
        top.gives_back(before);
    }

    // The service goes: said, with what was known; and Ctrl-C still ends it.
    let mut top = Top::new(&agent);
    top.until("backlog 1 waiting");
    service.kill();
    top.until("no answer: ");
    top.person.write_all(b"\x03").unwrap();
    top.gives_back(before);
}

#[test]
fn without_a_terminal_it_says_what_does_without_one() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.run(&["top"]).ends(1).says("otrelay top needs a terminal").says("otrelay status, otrelay tap");
}
