//! Which paths a pattern of files leads to. Names are bytes that anybody may have written: one that is no UTF-8 is
//! matched with `U+FFFD` for each bad byte, and opened as it is. What is looked at is bounded. A rotated name
//! (`eve.json.1`, `eve.json-20260518`, `eve.json.2.gz`) belongs to the pattern that its old name belongs to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::packing::Packing;

/// Most names that are looked at for one pattern at once.
const NAMES_MAX: usize = 200_000;
/// How deep `**` goes.
const DEPTH_MAX: usize = 16;
/// As the shell does it: `*` crosses no directory and does not match hidden names.
const OPTIONS: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// A pattern, taken apart at its separators.
#[derive(Clone, Debug)]
pub struct Pattern {
    root: PathBuf,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Name(String),
    /// A name with wildcards.
    Glob(glob::Pattern),
    /// `**`: any directories, or none.
    Deep,
}

/// What comes of a look.
struct Walk<'a> {
    found: &'a mut dyn FnMut(PathBuf, Name),
    refused: &'a mut dyn FnMut(&Path, &io::Error),
    names: usize,
}

/// How a path belongs to a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// It matches.
    Own,
    /// It did before it was rotated.
    Rotated,
    /// It did before it was rotated and packed.
    Packed,
}

impl Pattern {
    /// Takes a pattern apart.
    ///
    /// # Errors
    /// It is none, in words.
    pub fn new(text: &str) -> Result<Self, String> {
        let part = |text: &str| match text {
            "**" => Ok(Part::Deep),
            text if text.contains(['*', '?', '[']) => {
                glob::Pattern::new(text).map(Part::Glob).map_err(|error| error.to_string())
            }
            text => Ok(Part::Name(text.to_owned())),
        };
        let root = PathBuf::from(if text.starts_with('/') { "/" } else { "" });
        let parts = text.split('/').filter(|part| !part.is_empty()).map(part).collect::<Result<_, _>>()?;
        Ok(Self { root, parts })
    }

    /// Gives each path that is there, and what could not be looked at. Blocks on the disk.
    pub fn each(&self, mut found: impl FnMut(PathBuf), refused: impl FnMut(&Path, &io::Error)) {
        let own = |path, name| {
            if name == Name::Own {
                found(path);
            }
        };
        self.generations(own, refused);
    }

    /// The same, and the generations that a rotation left beside them.
    pub(super) fn generations(
        &self,
        mut found: impl FnMut(PathBuf, Name),
        mut refused: impl FnMut(&Path, &io::Error),
    ) {
        let mut walk = Walk { found: &mut found, refused: &mut refused, names: NAMES_MAX };
        walk.down(&self.root, &self.parts, 0);
    }
}

impl Walk<'_> {
    fn down(&mut self, at: &Path, parts: &[Part], depth: usize) {
        let Some((part, rest)) = parts.split_first() else {
            (self.found)(at.to_owned(), Name::Own);
            return;
        };
        match part {
            Part::Name(name) => {
                let path = at.join(name);
                match path.symlink_metadata() {
                    Err(error) if rest.is_empty() => self.failed(&path, &error),
                    _ => self.down(&path, rest, depth),
                }
                if rest.is_empty() {
                    self.rotated(at, name);
                }
            }
            Part::Glob(pattern) => self.entries(at, |walk, entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let matches = |name: &str| pattern.matches_with(name, OPTIONS);
                if matches(&name) {
                    walk.down(&entry.path(), rest, depth);
                } else if let Some(kind) = rotated(&name, matches).filter(|_| rest.is_empty()) {
                    (walk.found)(entry.path(), kind);
                }
            }),
            Part::Deep => {
                self.down(at, rest, depth);
                if depth >= DEPTH_MAX {
                    return;
                }
                self.entries(at, |walk, entry| {
                    // No link is followed, so it cannot go round.
                    let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                    if is_dir && !entry.file_name().as_encoded_bytes().starts_with(b".") {
                        walk.down(&entry.path(), parts, depth + 1);
                    }
                });
            }
        }
    }

    fn entries(&mut self, at: &Path, mut take: impl FnMut(&mut Self, &fs::DirEntry)) {
        let at = if at.as_os_str().is_empty() { Path::new(".") } else { at };
        let entries = match fs::read_dir(at) {
            Ok(entries) => entries,
            Err(error) => return self.failed(at, &error),
        };
        for entry in entries {
            if self.names == 0 {
                let error =
                    io::Error::other(format!("more than {NAMES_MAX} names; the rest is not looked at"));
                (self.refused)(at, &error);
                return;
            }
            self.names -= 1;
            match entry {
                Ok(entry) => take(self, &entry),
                Err(error) => return self.failed(at, &error),
            }
        }
    }

    /// The generations of a file. Whoever may open the file need not be allowed to list what lies beside it.
    fn rotated(&mut self, at: &Path, name: &str) {
        let at = if at.as_os_str().is_empty() { Path::new(".") } else { at };
        let Ok(entries) = fs::read_dir(at) else { return };
        for entry in entries.take(NAMES_MAX).flatten() {
            if let Some(kind) = rotated(&entry.file_name().to_string_lossy(), |before| before == name) {
                (self.found)(entry.path(), kind);
            }
        }
    }

    /// What is not there, or is no directory, just does not match.
    fn failed(&mut self, at: &Path, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            (self.refused)(at, error);
        }
    }
}

/// How a name belongs to those that a rotation left.
fn rotated(name: &str, matches: impl Fn(&str) -> bool) -> Option<Name> {
    if before_rotation(name).any(&matches) {
        return Some(Name::Rotated);
    }
    let (plain, _) = Packing::split(name)?;
    (matches(plain) || before_rotation(plain).any(matches)).then_some(Name::Packed)
}

/// The names that a rotated file may have had: without the number or the date that a rotation put behind them.
pub(super) fn before_rotation(name: &str) -> impl Iterator<Item = &str> {
    let rotated = |rest: &str| {
        rest == ".old"
            || rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit)
                && rest.bytes().all(|byte| byte.is_ascii_digit() || b".-_:+TZ".contains(&byte))
    };
    let ends = name.char_indices().skip(1).filter(|(_, sign)| matches!(sign, '.' | '-' | '_'));
    ends.map(|(at, _)| name.split_at(at)).filter(move |(_, rest)| rotated(rest)).map(|(before, _)| before)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn check(dir: &Path, pattern: &str, expected: &[&[u8]]) {
        let mut found = Vec::new();
        let pattern = Pattern::new(&format!("{}/{pattern}", dir.display())).unwrap();
        pattern.each(
            |path| found.push(path.strip_prefix(dir).unwrap().as_os_str().as_bytes().to_owned()),
            |path, error| panic!("{}: {error}", path.display()),
        );
        found.sort();
        assert_eq!(found, expected, "{pattern:?}");
    }

    #[test]
    fn a_name_that_is_no_text_is_matched_or_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
        for name in [&b"eve.json"[..], b"eve-\xf6.json", b"st\xf6rung.log", b".eve.json"] {
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir_all(dir.path().join("a/b\u{e9}")).unwrap();
        fs::write(dir.path().join("a/b\u{e9}/eve.json"), "").unwrap();
        let root = dir.path();
        check(root, "eve*.json", &[b"eve-\xf6.json", b"eve.json"]);
        check(root, "eve-?.json", &[b"eve-\xf6.json"]);
        check(root, "eve.json", &[b"eve.json"]);
        check(root, "*/*/eve.json", &["a/b\u{e9}/eve.json".as_bytes()]);
        check(root, "**/eve.json", &["a/b\u{e9}/eve.json".as_bytes(), b"eve.json"]);
        check(root, "no*", &[]);
        check(root, "eve.json/x*", &[]);
        assert!(Pattern::new("/a/[").is_err() && Pattern::new("/a***").is_err());
    }

    #[test]
    fn a_rotated_name_belongs_to_the_pattern_of_its_old_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "eve.json",
            "eve.json.1",
            "eve.json.12",
            "eve.json-20260518",
            "eve.json-2026-05-18T06:00:00Z",
            "eve.json_1779084000",
            "eve.json.old",
            "eve-2.json.1",
            // None of ours: another log, an editor's, a tool's, another source's.
            "eve.json.bak",
            "eve.json.1.tmp",
            "eve.json.offset",
            "eve-stats.log.1",
            "other.json.1",
            "eve.json.",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let rotated = |pattern: &str| {
            let mut found = Vec::new();
            Pattern::new(&format!("{}/{pattern}", dir.path().display())).unwrap().generations(
                |path, name| {
                    if name == Name::Rotated {
                        found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
                    }
                },
                |path, error| panic!("{}: {error}", path.display()),
            );
            found.sort();
            found
        };
        let of_one = [
            "eve.json-2026-05-18T06:00:00Z",
            "eve.json-20260518",
            "eve.json.1",
            "eve.json.12",
            "eve.json.old",
            "eve.json_1779084000",
        ];
        assert_eq!(rotated("eve.json"), of_one);
        assert_eq!(rotated("eve*.json"), [&["eve-2.json.1"], &of_one[..]].concat());
        assert_eq!(rotated("eve*"), [""; 0], "they match themselves");
    }
}
