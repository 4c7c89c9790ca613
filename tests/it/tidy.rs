//! Is the tree as `ARCHITECTURE.md` says? Reads `src/` and fails where a file has no header, a room imports what it may
//! not, a circle of imports leads across the parts of a large room, a library is named outside its room, pure code knows the runtime, or a function or file has grown too long.
//!
//! What is compiled only for tests may import and name what it likes, and a file of cases may be as long as it needs;
//! headers and the length of functions count there too. Every check has a wrong sample below, so that none of them
//! can rot into one that always passes.

mod scan;

use std::collections::BTreeSet;
use std::path::Path;

use scan::File;

/// Who may import whom. `model` is open to all; a room may always name itself. `app`, `cli`, `lib` and `main` see
/// everything, nobody sees `app` and `cli` but they.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &[]),
    // Ground: every loop says that it lives, and imports nothing for it.
    ("heartbeat", &[]),
    ("log", &[]),
    ("net", &[]),
    ("destination", &[]),
    // What sources say of devices, put together: kept by the store, told by the relay.
    ("device", &[]),
    ("rules", &[]),
    ("source", &["net", "clock", "heartbeat"]),
    ("store", &["device", "clock"]),
    ("intake", &["source", "rules", "store", "clock", "heartbeat"]),
    ("relay", &["store", "destination", "sync", "device", "clock", "heartbeat"]),
    // Reads back before a push: what it finds there, the push already knows.
    ("sync", &["store", "destination"]),
    ("servicenow", &["destination", "device", "net", "clock"]),
    ("status", &["store", "device", "clock", "heartbeat", "net"]),
    // Answers for the running service: what it knows, what its intake decides, and a sync when one is asked for.
    ("control", &["intake", "status", "store", "relay", "clock"]),
    // The other side of the wire: it may know how to listen, and nothing of the agent.
    ("simulator", &["net", "clock"]),
    // Builds every room's Settings; what else a room has is none of its business.
    (
        "config",
        &[
            "source",
            "rules",
            "intake",
            "store",
            "relay",
            "sync",
            "destination",
            "servicenow",
            "status",
            "control",
            "net",
            "clock",
            "log",
        ],
    ),
];
const SEE_ALL: [&str; 4] = ["app", "cli", "lib", "main"];

/// Who may name a library. Libraries that are not here have no home: anybody may use them.
const LIBRARIES: &[(&str, &[&str])] = &[
    // Where connections are made decides what is trusted.
    ("reqwest", &["net"]),
    ("rustls", &["net", "simulator"]),
    ("rustls_native_certs", &["net"]),
    ("tokio_rustls", &["net", "simulator"]),
    ("rcgen", &["simulator"]),
    ("axum", &["net", "status"]),
    ("hyper", &["net", "simulator"]),
    ("hyper_util", &["net", "simulator"]),
    ("http_body_util", &["net", "simulator"]),
    // What is on disk has one owner.
    ("rusqlite", &["store"]),
    ("rusqlite_migration", &["store"]),
    ("crc32c", &["store"]),
    ("lz4_flex", &["store"]),
    // The operator's side.
    ("toml", &["config"]),
    ("schemars", &["config"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("indicatif", &["cli"]),
    ("comfy_table", &["cli"]),
    ("ratatui", &["cli"]),
    ("tracing_subscriber", &["log"]),
    ("minijinja", &["rules", "status", "simulator"]),
    ("prometheus_client", &["status"]),
    ("strsim", &["rules", "config"]),
    // The machine's side.
    ("sysinfo", &["source"]),
    ("flate2", &["source", "cli"]),
    ("ruzstd", &["source"]),
    ("glob", &["source", "config"]),
    ("secrecy", &["model"]),
    // Who spawns: `app` the rooms, each of the others its own bounded sends or connections.
    ("JoinSet", &["app", "relay", "control", "net", "simulator"]),
];

/// Pure code: values in, values out. So is every file whose header says `Pure`.
const PURE: [&str; 4] = ["model/", "device/", "rules/", "source/format/"];
/// What pure code may not name.
const IMPURE: [&str; 4] = ["tokio", "tokio_util", "SystemTime", "Instant"];

const FUNCTION_MAX: usize = 120;
const FILE_MAX: usize = 700;
/// What may be longer: `file` or `file function`, and why. An entry that is no longer needed fails too.
const LONG: &[(&str, &str)] = &[];

fn header(file: &File) -> Vec<String> {
    if file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!(
        "{} has no //! header: purpose, place in the flow, invariants, what it does not do",
        file.path
    )]
}

fn imports(file: &File) -> Vec<String> {
    let room = file.room();
    if SEE_ALL.contains(&room) {
        return Vec::new();
    }
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: room `{room}` is not in the table ROOMS", file.path)];
    };
    let is_room = |name: &str| SEE_ALL.contains(&name) || ROOMS.iter().any(|(room, _)| *room == name);
    file.rooms_named()
        .into_iter()
        .filter(|(_, name)| is_room(name) && *name != room && *name != "model" && !allowed.contains(name))
        .map(|(at, name)| format!("{}: `{room}` may not import `{name}`", file.at(at)))
        .collect()
}

fn libraries(file: &File) -> Vec<String> {
    let room = file.room();
    scan::words(&file.shipped)
        // A library is named by a path that begins with it, or by `use it;`; a field or a local is neither.
        .filter(|(at, word)| *word == "JoinSet" || begins_path(&file.shipped, *at, word))
        .filter_map(|(at, word)| {
            let (_, homes) = LIBRARIES.iter().find(|(library, _)| *library == word)?;
            (!homes.contains(&room)).then(|| {
                format!("{}: `{word}` is named in `{room}`, its home is {}", file.at(at), homes.join(", "))
            })
        })
        .collect()
}

fn begins_path(code: &str, at: usize, word: &str) -> bool {
    let before = code[..at].trim_end();
    let after = code[at + word.len()..].trim_start();
    let used = before.ends_with("use") && (after.starts_with(';') || after.starts_with("as "));
    let rooted =
        before.ends_with("::") && !before.trim_end_matches("::").ends_with(|c: char| c.is_alphanumeric());
    (after.starts_with("::") && (!before.ends_with("::") || rooted)) || used
}

fn purity(file: &File) -> Vec<String> {
    let says_so = file
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| scan::words(line).any(|(_, word)| word == "Pure"));
    if !says_so && !PURE.iter().any(|folder| file.path.starts_with(folder)) {
        return Vec::new();
    }
    scan::words(&file.shipped)
        .filter(|(_, word)| IMPURE.contains(word))
        .map(|(at, word)| format!("{}: pure code names `{word}`", file.at(at)))
        .collect()
}

/// Complaints, and which entries of `long` were needed.
fn lengths<'l>(file: &File, long: &'l [(&str, &str)]) -> (Vec<String>, BTreeSet<&'l str>) {
    let mut complaints = Vec::new();
    let mut needed = BTreeSet::new();
    let mut measure = |name: String, lines: usize, max: usize, what: &str| {
        if lines <= max {
            return;
        }
        match long.iter().find(|(entry, _)| *entry == name) {
            Some((entry, _)) => {
                needed.insert(*entry);
            }
            None => complaints.push(format!("{name}: {what} of {lines} lines, at most {max}: split it")),
        }
    };
    let tests = file.code.lines().zip(file.shipped.lines()).filter(|(code, shipped)| code != shipped).count();
    let lines = if file.shipped.is_empty() { 0 } else { file.text.lines().count() - tests };
    measure(file.path.clone(), lines, FILE_MAX, "a file");
    for (name, _, lines) in scan::functions(&file.code) {
        measure(format!("{} {name}", file.path), lines, FUNCTION_MAX, "a function");
    }
    (complaints, needed)
}

/// Rooms that are looked into: no circle of imports leads across their folders and files.
const LARGE: [&str; 1] = ["store"];

/// The parts of a room from which a circle leads back to them, each with the way.
fn circles(files: &[File], room: &str) -> Vec<String> {
    let of_room: Vec<&File> = files.iter().filter(|file| file.room() == room).collect();
    let parts: BTreeSet<&str> = of_room.iter().filter_map(|file| file.part()).collect();
    let named = |part: &str| -> BTreeSet<&str> {
        let of_part = of_room.iter().filter(|file| file.part() == Some(part));
        of_part.flat_map(|file| file.parts_named()).filter(|n| parts.contains(n) && *n != part).collect()
    };
    let leads = |from: &str| -> BTreeSet<&str> {
        let (mut found, mut open) = (named(from), named(from));
        while let Some(next) = open.pop_first() {
            open.extend(named(next).into_iter().filter(|part| found.insert(part)));
        }
        found
    };
    let in_circle = parts.iter().filter(|part| leads(part).contains(*part));
    in_circle
        .map(|part| {
            format!("{room}/{part} imports itself by way of {}", Vec::from_iter(named(part)).join(", "))
        })
        .collect()
}

fn src() -> Vec<File> {
    scan::tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_file_has_a_header() {
    none(&src().iter().flat_map(header).collect::<Vec<_>>());
}

#[test]
fn rooms_import_along_the_arrows() {
    none(&src().iter().flat_map(imports).collect::<Vec<_>>());
}

#[test]
fn no_circle_of_imports_in_a_large_room() {
    let files = src();
    none(&LARGE.iter().flat_map(|room| circles(&files, room)).collect::<Vec<_>>());
}

#[test]
fn libraries_are_named_only_at_home() {
    none(&src().iter().flat_map(libraries).collect::<Vec<_>>());
}

#[test]
fn pure_code_knows_neither_runtime_nor_clock() {
    none(&src().iter().flat_map(purity).collect::<Vec<_>>());
}

#[test]
fn functions_and_files_stay_short() {
    let mut unneeded: BTreeSet<_> = LONG.iter().map(|(entry, _)| *entry).collect();
    let mut all = Vec::new();
    for file in src() {
        let (complaints, needed) = lengths(&file, LONG);
        all.extend(complaints);
        unneeded.retain(|entry| !needed.contains(entry));
    }
    all.extend(unneeded.iter().map(|entry| format!("`{entry}` need not be in LONG any more")));
    none(&all);
}

#[test]
fn the_whole_tree_is_read() {
    let files = src();
    assert!(files.len() > 50, "{} files", files.len());
    let rooms: BTreeSet<_> = files.iter().map(File::room).collect();
    for (room, _) in ROOMS {
        assert!(rooms.contains(room), "{room} is in the table and not in src/");
    }
}

/// The check says exactly this of a wrong sample, and nothing of a right one.
#[track_caller]
fn says(complaints: &[String], words: &[&str]) {
    assert_eq!(complaints.len(), words.len(), "{complaints:?}");
    for (complaint, words) in complaints.iter().zip(words) {
        assert!(complaint.contains(words), "{complaint}");
    }
}

#[test]
fn a_file_without_header_is_found() {
    says(&header(&File::new("net/tls.rs", "// tls\nfn a() {}\n")), &["net/tls.rs has no //! header"]);
    says(&header(&File::new("net/tls.rs", "//! TLS.\n")), &[]);
}

#[test]
fn a_wrong_import_is_found() {
    let check = |path: &str, text: &str, words: &[&str]| says(&imports(&File::new(path, text)), words);
    check(
        "rules/mod.rs",
        "//! x\nuse crate::store::Store;",
        &["rules/mod.rs:2: `rules` may not import `store`"],
    );
    check("rules/a.rs", "use super::super::clock::Clock;", &["may not import `clock`"]);
    check("model/a.rs", "fn f() { crate::net::tls() }", &["`model` may not import `net`"]);
    check("store/a.rs", "use crate::{model::Alert, relay, cli};", &["`relay`", "`cli`"]);
    check("simulator/a.rs", "use crate::servicenow::wire;", &["`servicenow`"]);
    check("magic/mod.rs", "", &["`magic` is not in the table"]);
    check("intake.rs", "use crate::{rules::Rules, store::Store, model::Alert};", &[]);
    check("rules/mod.rs", "// crate::store\n#[cfg(test)]\nmod tests {\n use crate::store::Store;\n}", &[]);
    check("rules/mod.rs", "use crate::rules::explain; const S: &str = \"crate::store\";", &[]);
    check("app.rs", "use crate::cli::x; use crate::store::y;", &[]);
}

#[test]
fn a_circle_of_imports_is_found() {
    let file = |path, text| File::new(path, text);
    let one = [
        file("store/mod.rs", "mod disk; mod op; pub use op::x; use crate::store::read;"),
        file("store/disk/files.rs", "use crate::store::OpenError; use super::super::schema::with;"),
        file("store/schema.rs", "use super::{Settings, read::Reader};"),
        file("store/read.rs", "fn f() { crate::store::op::x() }"),
        file("store/op/x.rs", "use super::y; #[cfg(test)] mod tests { use crate::store::disk; }"),
        file("store/op/y.rs", "use crate::store::{StoreError, model};"),
    ];
    says(&circles(&one, "store"), &[]);
    let more = file("store/op/z.rs", "use crate::store::disk::files;");
    let all: Vec<File> = one.into_iter().chain([more]).collect();
    says(
        &circles(&all, "store"),
        &["store/disk imports itself by way of schema", "store/op", "store/read", "store/schema"],
    );
}

#[test]
fn a_library_away_from_home_is_found() {
    let check = |path: &str, text: &str, words: &[&str]| says(&libraries(&File::new(path, text)), words);
    check("relay/mod.rs", "use reqwest::Client;", &["relay/mod.rs:1: `reqwest` is named in `relay`"]);
    check("intake.rs", "fn f(c: &rusqlite::Connection) {}", &["`rusqlite`"]);
    check("net/mod.rs", "use ::toml::Value; use clap;", &["`toml`", "`clap`"]);
    check("intake.rs", "let mut set = tokio::task::JoinSet::new();", &["`JoinSet`"]);
    check("servicenow/a.rs", "use sysinfo as s;", &["`sysinfo`"]);
    check("net/mod.rs", "use reqwest::Client; use rustls::ClientConfig;", &[]);
    check("net/mod.rs", "let toml = settings.clap; crate::model::toml::X", &[]);
    check("relay/mod.rs", "#[cfg(test)]\nmod tests { use rusqlite::Connection; }", &[]);
}

#[test]
fn impure_code_is_found() {
    let check = |path: &str, text: &str, words: &[&str]| says(&purity(&File::new(path, text)), words);
    check("rules/mod.rs", "use tokio::sync::mpsc;", &["rules/mod.rs:1: pure code names `tokio`"]);
    check("source/format/time.rs", "std::time::SystemTime::now()", &["`SystemTime`"]);
    check("relay/budget.rs", "//! Pure: a budget.\nuse tokio::time::Instant;", &["`tokio`", "`Instant`"]);
    check("relay/mod.rs", "//! The loop.\nuse tokio::time::Instant;", &[]);
    check("model/mod.rs", "//! No tokio here.\n#[cfg(test)]\nmod tests { use tokio::test; }", &[]);
}

#[test]
fn what_is_too_long_is_found() {
    let long_function = format!("//! x\nfn long() {{\n{}}}\n", "    a();\n".repeat(FUNCTION_MAX - 1));
    let file = File::new("app.rs", &long_function);
    says(&lengths(&file, &[]).0, &["app.rs long: a function of 121 lines"]);
    let (complaints, needed) = lengths(&file, &[("app.rs long", "a list"), ("app.rs", "not needed")]);
    says(&complaints, &[]);
    assert_eq!(needed, BTreeSet::from(["app.rs long"]));

    let long_file = File::new("app.rs", &"//! x\n".repeat(FILE_MAX + 1));
    says(&lengths(&long_file, &[]).0, &["app.rs: a file of 701 lines"]);
    let cases = format!("//! x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn a() {}\n".repeat(FILE_MAX));
    says(&lengths(&File::new("app.rs", &cases), &[]).0, &[]);
    let short = format!("//! x\nfn short() {{\n{}}}\n", "    a();\n".repeat(FUNCTION_MAX - 2));
    says(&lengths(&File::new("app.rs", &short), &[]).0, &[]);
}
