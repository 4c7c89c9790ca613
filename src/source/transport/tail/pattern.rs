//! Which paths a pattern of files leads to. Names are bytes that anybody may have written: one that is no UTF-8 is
//! matched with `U+FFFD` for each bad byte, and opened as it is. What is looked at is bounded.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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

/// One part of it.
#[derive(Clone, Debug)]
enum Part {
    /// A name as it stands.
    Name(String),
    /// A name with wildcards.
    Glob(glob::Pattern),
    /// `**`: any directories, or none.
    Deep,
}

/// What comes of a look.
struct Walk<'a> {
    found: &'a mut dyn FnMut(PathBuf),
    refused: &'a mut dyn FnMut(&Path, &io::Error),
    names: usize,
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
    pub fn each(&self, mut found: impl FnMut(PathBuf), mut refused: impl FnMut(&Path, &io::Error)) {
        let mut walk = Walk { found: &mut found, refused: &mut refused, names: NAMES_MAX };
        walk.down(&self.root, &self.parts, 0);
    }
}

impl Walk<'_> {
    fn down(&mut self, at: &Path, parts: &[Part], depth: usize) {
        let Some((part, rest)) = parts.split_first() else {
            (self.found)(at.to_owned());
            return;
        };
        match part {
            Part::Name(name) => {
                let path = at.join(name);
                match path.symlink_metadata() {
                    Err(error) if rest.is_empty() => self.failed(&path, &error),
                    _ => self.down(&path, rest, depth),
                }
            }
            Part::Glob(pattern) => self.entries(at, |walk, entry| {
                let name = entry.file_name();
                if pattern.matches_with(&name.to_string_lossy(), OPTIONS) {
                    walk.down(&entry.path(), rest, depth);
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

    /// What is not there, or is no directory, just does not match.
    fn failed(&mut self, at: &Path, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            (self.refused)(at, error);
        }
    }
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
}
