//! The terminal of `otrelay top`: keys without echo, the other screen, cells as escape sequences; and all of it undone.
//!
//! It is given back as it was when [`Screen`] is dropped, and before a panic is told. A kill that cannot be caught leaves it
//! taken: `reset` mends that.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::task::{JoinHandle, spawn_blocking};

/// The other screen, without a cursor.
const TAKE: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[2J";
/// Colours, cursor and screen as before.
const GIVE_BACK: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";
/// A read that gets no key ends after so many tenths of a second: then the size is looked at again.
const TENTHS: u8 = 5;
/// A terminal that says less, or more, is not believed.
const SIZES: (std::ops::RangeInclusive<u16>, std::ops::RangeInclusive<u16>) = (10..=1000, 3..=500);

/// What is drawn on: standard output, with the modes of standard input, which is the same terminal.
pub(super) struct Screen {
    file: Arc<File>,
    keys: Arc<File>,
    before: Termios,
    /// What goes out at the next flush.
    text: String,
}

pub(super) struct Keys(Arc<File>);

impl Screen {
    /// Takes the terminal of the process.
    pub(super) fn open() -> io::Result<(Self, Keys)> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let keys = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Self::on(&Arc::new(file), Arc::new(keys))
    }

    fn on(file: &Arc<File>, keys: Arc<File>) -> io::Result<(Self, Keys)> {
        let before = tcgetattr(&keys)?;
        let mut modes = before.clone();
        modes
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        modes.special_codes[SpecialCodeIndex::VMIN] = 0;
        modes.special_codes[SpecialCodeIndex::VTIME] = TENTHS;
        tcsetattr(&keys, OptionalActions::Flush, &modes)?;
        // From here on it is given back.
        let screen = Self {
            file: Arc::clone(file),
            keys: Arc::clone(&keys),
            before: before.clone(),
            text: String::new(),
        };
        let (of_panic, keys_of_panic) = (Arc::clone(file), Arc::clone(&keys));
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back(&of_panic, &keys_of_panic, &before);
            told(panic);
        }));
        (&**file).write_all(TAKE)?;
        Ok((screen, Keys(keys)))
    }
}

/// Nobody is left to tell where this fails.
fn give_back(mut file: &File, keys: &File, before: &Termios) {
    let _ = file.write_all(GIVE_BACK);
    let _ = tcsetattr(keys, OptionalActions::Flush, before);
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(&self.file, &self.keys, &self.before);
    }
}

impl Keys {
    /// What is pressed within half a second, beside the runtime's thread.
    pub(super) fn read(&self) -> JoinHandle<io::Result<Vec<u8>>> {
        let file = Arc::clone(&self.0);
        spawn_blocking(move || {
            let mut keys = [0; 64];
            let began = tokio::time::Instant::now();
            let read = (&*file).read(&mut keys)?;
            // Half a second without a key is no end; at once nothing is one: the terminal is gone.
            if read == 0 && began.elapsed() < std::time::Duration::from_millis(50) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(keys[..read].to_vec())
        })
    }
}

impl Backend for Screen {
    type Error = io::Error;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, content: I) -> io::Result<()> {
        draw(&mut self.text, content);
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, _: P) -> io::Result<()> {
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.text.push_str("\x1b[0m\x1b[2J");
        Ok(())
    }

    fn clear_region(&mut self, _: ClearType) -> io::Result<()> {
        self.clear()
    }

    fn size(&self) -> io::Result<Size> {
        let size = tcgetwinsize(&self.file)?;
        let within = |found: u16, range: &std::ops::RangeInclusive<u16>, instead: u16| {
            if found == 0 { instead } else { found.clamp(*range.start(), *range.end()) }
        };
        Ok(Size::new(within(size.ws_col, &SIZES.0, 80), within(size.ws_row, &SIZES.1, 24)))
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = (&*self.file).write_all(self.text.as_bytes());
        self.text.clear();
        written
    }
}

/// Cells as text for a terminal.
fn draw<'a>(text: &mut String, content: impl Iterator<Item = (u16, u16, &'a Cell)>) {
    let (mut next, mut style) = (None, None);
    for (x, y, cell) in content {
        if next != Some((x, y)) {
            // Writing to a string does not fail.
            let _ = write!(text, "\x1b[{};{}H", y + 1, x + 1);
        }
        // A wide character is followed by a gap.
        next = Some((x + 1, y));
        let own = (cell.fg, cell.modifier);
        if style.replace(own) != Some(own) {
            sgr(text, own);
        }
        text.push_str(cell.symbol());
    }
    text.push_str("\x1b[0m");
}

fn sgr(text: &mut String, (colour, modifier): (Color, Modifier)) {
    text.push_str("\x1b[0");
    for (is, code) in [(Modifier::BOLD, ";1"), (Modifier::DIM, ";2"), (Modifier::REVERSED, ";7")] {
        if modifier.contains(is) {
            text.push_str(code);
        }
    }
    text.push_str(match colour {
        Color::Red => ";31",
        Color::Green => ";32",
        Color::Yellow => ";33",
        _ => "",
    });
    text.push('m');
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Style;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let terminal = Arc::new(terminal);
        let told = std::panic::take_hook();
        // What is told goes to the same terminal: its words show what came first.
        let tells = Arc::clone(&terminal);
        std::panic::set_hook(Box::new(move |_| {
            let _ = (&*tells).write_all(b"told");
        }));
        let (screen, keys) = Screen::on(&terminal, Arc::clone(&terminal)).unwrap();
        let taken = tcgetattr(&terminal).unwrap();
        // As where a release ends in a panic: nothing is dropped.
        let screen = std::mem::ManuallyDrop::new(screen);
        let ended = std::thread::spawn(|| panic!("on purpose")).join();
        std::panic::set_hook(told);
        let given_back = tcgetattr(&terminal).unwrap();
        drop((std::mem::ManuallyDrop::into_inner(screen), keys, terminal));
        let mut written = Vec::new();
        // Ends with an error where nobody has the terminal any more.
        let _ = File::from(person).read_to_end(&mut written);
        let written = String::from_utf8_lossy(&written).into_owned();
        assert!(ended.is_err() && !taken.local_modes.contains(LocalModes::ECHO));
        assert_eq!(given_back.local_modes, before.local_modes);
        let (took, rest) = written.split_once(str::from_utf8(GIVE_BACK).unwrap()).unwrap();
        assert!(took.contains("\u{1b}[?1049h") && rest.starts_with("told"), "{written:?}");
    }

    #[test]
    fn cells_become_text_and_nothing_else_moves_the_terminal() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 2));
        buffer.set_string(0, 0, "a\u{1b}[2J漢b", Style::new().fg(Color::Red));
        buffer.set_string(0, 1, "c", Style::new().add_modifier(Modifier::BOLD));
        let mut text = String::new();
        let cells = Buffer::empty(buffer.area);
        draw(&mut text, cells.diff(&buffer).into_iter());
        assert_eq!(text.matches('\u{1b}').count(), 6, "{text:?}");
        assert!(text.starts_with("\u{1b}[1;1H\u{1b}[0;31ma[2J漢"), "{text:?}");
        assert!(text.ends_with("\u{1b}[2;1H\u{1b}[0;1mc\u{1b}[0m"), "{text:?}");
    }
}
