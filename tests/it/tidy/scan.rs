//! Reads Rust text as far as the tidy test needs it: which bytes are code, which of them are compiled only for tests,
//! which words and paths stand there, where a function ends. It does not parse; `rustc` has seen these files before.

use std::path::Path;

/// One file of `src/`.
pub(super) struct File {
    /// Below `src/`, with `/`.
    pub(super) path: String,
    /// As it is on disk.
    pub(super) text: String,
    /// As long as `text`; comments and what is quoted are blanks.
    pub(super) code: String,
    /// `code` without items under `#[cfg(test)]`; empty for a file that is such an item.
    pub(super) shipped: String,
}

impl File {
    /// A file with this text; for a whole tree use [`tree`].
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = code_of(text);
        let shipped = without_tests(&code).0;
        Self { path: path.to_owned(), text: text.to_owned(), code, shipped }
    }

    /// The room: the folder or file below `src/`; `lib` and `main` for these two.
    pub(super) fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// `net/tls.rs:12`.
    pub(super) fn at(&self, byte: usize) -> String {
        format!("{}:{}", self.path, line_of(&self.text, byte))
    }

    /// How many modules deep the file is: 1 for a room, 0 for `lib.rs`.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        match self.path.rsplit('/').next() {
            Some("lib.rs" | "main.rs") if parts == 1 => 0,
            Some("mod.rs") => parts - 1,
            _ => parts,
        }
    }

    /// The folder or file of a large room that this file is of; `None`: the room's own `mod.rs`, or no such room.
    pub(super) fn part(&self) -> Option<&str> {
        let (_, inside) = self.path.split_once('/')?;
        let part = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        (part != "mod").then_some(part)
    }

    /// What shipped code names inside its own room, from the room's root: `crate::room::part`, `crate::room::{part, …}` and
    /// enough `super::` to get to the root.
    pub(super) fn parts_named(&self) -> Vec<&str> {
        let mut found = Vec::new();
        let (mut supers, mut in_room) = (0, false);
        let all: Vec<_> = words(&self.shipped).collect();
        for (n, &(at, word)) in all.iter().enumerate() {
            let rest = &self.shipped[at + word.len()..];
            let before = all.get(n.wrapping_sub(1)).map(|(_, word)| *word);
            supers = if word == "super" && rest.starts_with("::") { supers + 1 } else { 0 };
            in_room = before == Some("crate") && word == self.room() && !in_room;
            let root = in_room || (supers > 0 && supers + 1 == self.depth());
            let Some(path) = rest.strip_prefix("::").filter(|_| root) else { continue };
            if path.starts_with('{') {
                let open = at + word.len() + 2;
                found.extend(group(&self.shipped, open).into_iter().map(|(_, part)| part));
            } else if let Some((_, part)) = all.get(n + 1) {
                found.push(part);
            }
        }
        found
    }

    /// The rooms that shipped code names, each with where it does: `crate::room`, `crate::{room, …}`, `otrelay::room`
    /// and enough `super::` to get out of its own room.
    pub(super) fn rooms_named(&self) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        let mut supers = 0;
        let all: Vec<_> = words(&self.shipped).collect();
        for (n, &(at, word)) in all.iter().enumerate() {
            let rest = &self.shipped[at + word.len()..];
            let next = all.get(n + 1).copied();
            if word == "super" && rest.starts_with("::") {
                supers += 1;
            } else {
                supers = 0;
            }
            let root = word == "crate" || word == "otrelay" || (supers > 0 && supers == self.depth());
            let Some(path) = rest.strip_prefix("::") else { continue };
            if !root {
                continue;
            }
            if path.starts_with('{') {
                let open = at + word.len() + 2;
                found.extend(group(&self.shipped, open));
            } else if let Some((at, room)) = next {
                found.push((at, room));
            }
        }
        found
    }
}

/// Every `.rs` file below `src`, in order of path.
pub(super) fn tree(src: &Path) -> Vec<File> {
    let mut paths = Vec::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let mut files: Vec<_> = paths
        .iter()
        .map(|path| {
            let name =
                path.strip_prefix(src).expect("below src").to_str().expect("a plain name").replace('\\', "/");
            File::new(&name, &std::fs::read_to_string(path).expect("a readable file"))
        })
        .collect();
    blank_test_files(&mut files);
    files
}

/// `#[cfg(test)] mod name;` makes all of `name.rs` a test.
pub(super) fn blank_test_files(files: &mut [File]) {
    let mut tests = Vec::new();
    for file in files.iter() {
        let folder = match file.path.strip_suffix("mod.rs") {
            Some(folder) => folder.to_owned(),
            None if matches!(file.path.as_str(), "lib.rs" | "main.rs") => String::new(),
            None => file.path.replace(".rs", "/"),
        };
        for module in without_tests(&file.code).1 {
            tests.push(format!("{folder}{module}.rs"));
            tests.push(format!("{folder}{module}/"));
        }
    }
    for file in files {
        if tests.iter().any(|t| file.path == *t || (t.ends_with('/') && file.path.starts_with(t))) {
            file.shipped.clear();
        }
    }
}

/// The text with everything blank that is comment or quoted; newlines stay.
pub(super) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let end = if rest.starts_with("//") {
            at + rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            at + comment_len(rest)
        } else if let Some(len) = quoted_len(rest, at > 0 && is_word(bytes[at - 1])) {
            at + len
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).expect("only whole characters were blanked")
}

fn comment_len(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of the string or character literal that begins here, if one does.
fn quoted_len(text: &str, in_word: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    if !in_word {
        let prefix = bytes.iter().take_while(|b| matches!(b, b'b' | b'c' | b'r')).count();
        let hashes = bytes[prefix..].iter().take_while(|b| **b == b'#').count();
        let raw = prefix > 0 && bytes[prefix - 1] == b'r' && prefix <= 2;
        if raw && bytes.get(prefix + hashes) == Some(&b'"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = prefix + hashes + 1;
            return Some(text[body..].find(&close).map_or(text.len(), |end| body + end + close.len()));
        }
    }
    match bytes[0] {
        b'"' => Some(1 + until_close(&bytes[1..], b'"')),
        // A lifetime has no closing quote after its first character.
        b'\'' => {
            let first = text[1..].chars().next()?;
            let closes = first == '\\' || text[1 + first.len_utf8()..].starts_with('\'');
            closes.then(|| 1 + until_close(&bytes[1..], b'\''))
        }
        _ => None,
    }
}

fn until_close(bytes: &[u8], close: u8) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b if b == close => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The code without items under `#[cfg(test)]`, and the names of the files among them.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let mut shipped = code.as_bytes().to_vec();
    let mut files = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(") {
        let start = from + found;
        let attribute = start + code[start..].find(']').map_or(0, |close| close + 1);
        from = attribute;
        if !["#[cfg(test)]", "#[cfg(all(test,"].iter().any(|mark| code[start..].starts_with(mark)) {
            continue;
        }
        let end = item_end(code, attribute);
        let item: Vec<_> = words(&code[attribute..end]).map(|(_, word)| word).collect();
        if let (Some(at), true) = (item.iter().position(|w| *w == "mod"), code[..end].ends_with(';')) {
            files.extend(item.get(at + 1).map(|name| (*name).to_owned()));
        }
        for byte in &mut shipped[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    (String::from_utf8(shipped).expect("only whole characters were blanked"), files)
}

/// Where the item ends that begins at or after `from`: after its `}` or its `;`, whichever ends it.
pub(super) fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth -= 1;
                if depth == 0 && byte == b'}' {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Every function: its name, where it begins, and how many lines it has.
pub(super) fn functions(code: &str) -> Vec<(&str, usize, usize)> {
    let all: Vec<_> = words(code).collect();
    all.windows(2)
        .filter(|pair| pair[0].1 == "fn")
        // A function type, `fn(u8) -> u8`, has no name.
        .filter(|pair| code[pair[0].0 + 2..pair[1].0].trim().is_empty())
        .map(|pair| {
            let (start, (_, name)) = (pair[0].0, pair[1]);
            let end = item_end(code, start);
            (name, start, line_of(code, end) - line_of(code, start) + 1)
        })
        .collect()
}

/// The first names within `{…}` of a `use`, each with where it stands.
fn group(code: &str, open: usize) -> Vec<(usize, &str)> {
    let end = item_end(code, open);
    let mut depth = 0;
    let mut found = Vec::new();
    let mut first = true;
    let mut last = open;
    for (at, word) in words(&code[open..end]).map(|(at, word)| (open + at, word)) {
        for byte in code[last..at].bytes() {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b',' if depth == 1 => first = true,
                _ => {}
            }
        }
        last = at + word.len();
        if depth == 1 && first {
            found.push((at, word));
            first = false;
        }
    }
    found
}

/// Every identifier and number, with where it stands.
pub(super) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let bytes = code.as_bytes();
        let start = from + bytes[from..].iter().position(|b| is_word(*b))?;
        let end = bytes[start..].iter().position(|b| !is_word(*b)).map_or(bytes.len(), |len| start + len);
        from = end;
        Some((start, &code[start..end]))
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The line of a byte, from 1.
pub(super) fn line_of(text: &str, byte: usize) -> usize {
    1 + text[..byte].matches('\n').count()
}

#[test]
fn comments_and_quotes_are_no_code() {
    let check = |text: &str, code: &str| assert_eq!(code_of(text), code, "{text}");
    check("a // b\nc", "a     \nc");
    check("a /* /* b */ */ c", &format!("a{}c", " ".repeat(15)));
    check(r#"f("a \" b") g"#, "f(        ) g");
    check("r#\"a \" b\"# c", &format!("{}c", " ".repeat(11)));
    check("'a' 'b <'static> '\\'' d", "    'b <'static>      d");
    check("br\"x\" for", "      for");
}

#[test]
fn test_items_are_not_shipped() {
    let file = File::new("a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n");
    let names: Vec<_> = functions(&file.shipped).into_iter().map(|f| f.0).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(functions(&file.code).len(), 3);

    let mut files = [
        File::new("net/mod.rs", "#[cfg(all(test, unix))]\npub(crate) mod stub;\n#[cfg(unix)]\nmod tls;"),
        File::new("net/stub.rs", "use crate::app;"),
        File::new("net/tls.rs", "use crate::app;"),
    ];
    blank_test_files(&mut files);
    assert!(files[1].shipped.is_empty() && !files[2].shipped.is_empty());
}

#[test]
fn rooms_are_found_however_they_are_named() {
    let check = |path: &str, text: &str, rooms: &[&str]| {
        let file = File::new(path, text);
        let found: Vec<_> = file.rooms_named().into_iter().map(|(_, room)| room).collect();
        assert_eq!(found, rooms, "{path}: {text}");
    };
    check("net/tls.rs", "use crate::model::Secret; // crate::app", &["model"]);
    check(
        "net/tls.rs",
        "use crate::{clock::{self, Clock}, model::Alert, store};",
        &["clock", "model", "store"],
    );
    check("net/tls.rs", "fn f() { crate::store::open() }", &["store"]);
    check("net/tls.rs", "use super::super::store::Store; use super::Settings;", &["store"]);
    check("intake.rs", "use super::store::Store;", &["store"]);
    check("net/mod.rs", "pub(crate) fn f() {} use super::model::Alert; use self::tls::X;", &["model"]);
    check("main.rs", "fn main() { otrelay::cli::main() }", &["cli"]);
}

#[test]
fn functions_have_lines() {
    let code = "fn a(x: [u8; 4]) -> u8\nwhere\n{\n  0\n}\ntrait T { fn b(&self);\n fn c(&self) { } }\ntype F = fn(u8);";
    assert_eq!(
        functions(code).into_iter().map(|(name, _, lines)| (name, lines)).collect::<Vec<_>>(),
        [("a", 5), ("b", 1), ("c", 1)]
    );
}
