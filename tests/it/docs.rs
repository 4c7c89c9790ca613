//! What is written for people holds: every config in the pages is one that otrelay takes, every command one that it
//! understands, every link leads somewhere, every page is in the book, and each code that is told is explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use otrelay::cli::understands;
use otrelay::config::parse_str;
use otrelay::model::codes::CODES;

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md"].map(|name| root.join(name));
    let listed = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> =
        named.into_iter().chain(listed.filter(|path| path.extension().is_some_and(|e| e == "md"))).collect();
    assert!(pages.len() > 6, "{pages:?}");
    pages
}

/// The blocks of these languages in a page.
fn blocks(page: &str, languages: &[&str]) -> Vec<String> {
    let (mut all, mut inside): (Vec<String>, Option<bool>) = (Vec::new(), None);
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), inside) {
            (Some(language), None) => {
                let wanted = languages.contains(&language.trim());
                all.extend(wanted.then(String::new));
                inside = Some(wanted);
            }
            (Some(_), Some(_)) => inside = None,
            (None, Some(true)) => all.last_mut().unwrap().extend([line, "\n"]),
            (None, _) => {}
        }
    }
    assert!(inside.is_none(), "a block has no end");
    all
}

/// The words of a line of a shell, up to what is no argument any more.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) =
        (Vec::new(), None, None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => all.extend(word.take()),
            ('|' | ';' | '&' | '<' | '>', None) => {
                // `3<FILE`: the number belongs to it.
                word = word.filter(|word| !word.chars().all(|c| c.is_ascii_digit()));
                break;
            }
            ('#', None) if word.is_none() => break,
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    all
}

/// The arguments of otrelay in a line of a shell; a place holder becomes a number, which is a name as well.
fn arguments(line: &str) -> Option<Vec<String>> {
    let words = words(line.trim().trim_start_matches("$ "));
    let at = match words.first()?.as_str() {
        "cargo" => words.iter().position(|word| word == "--").filter(|_| words[1] == "run")?,
        "sudo" | "runuser" => words.iter().position(|word| word == "otrelay")?,
        "otrelay" => 0,
        _ => return None,
    };
    let place_holder = |word: &String| word.chars().all(|c| c.is_ascii_uppercase());
    Some(words[at + 1..].iter().map(|w| if place_holder(w) { "1".to_owned() } else { w.clone() }).collect())
}

/// Certificates and keys of this tree in place of those that the pages name: whether they can be read is looked at as well.
fn with_real_files(block: &str) -> String {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let mut text = String::new();
    for part in block.split_inclusive('"') {
        match part.strip_prefix("/etc/otrelay/").and_then(|name| name.rsplit_once('.')) {
            Some((_, "pem\"")) => text.extend([fixtures, "/listener.pem\""]),
            Some((_, "key\"")) => text.extend([fixtures, "/listener.key\""]),
            _ => text.push_str(part),
        }
    }
    text
}

#[test]
fn every_config_in_the_pages_is_taken() {
    let mut seen = 0;
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for block in blocks(&page, &["toml"]) {
            seen += 1;
            let mut text = with_real_files(&block);
            if !block.contains("[servicenow") {
                text.push_str("\n[servicenow.prod]\ninstance = \"https://acme.example\"\nauth = \"client-credentials\"\nclient_id = \"x\"\nclient_secret = { env = \"X\" }\n");
            }
            if !block.contains("[[source]]") {
                text.push_str(
                    "\n[[source]]\nname = \"eve\"\nkind = \"suricata-eve\"\npath = \"/var/log/eve.json\"\n",
                );
            }
            if !block.contains("[[rule]]") {
                text.push_str("\n[[rule]]\nname = \"all\"\n[[rule.action]]\ntable = \"incident\"\n");
            }
            if !block.contains("[agent]") {
                text.push_str("\n[agent]\nid = \"x\"\n");
            }
            if let Err(error) = parse_str("page.toml", &text) {
                panic!("{}: {error}\n{block}", path.display());
            }
        }
    }
    assert!(seen >= 7, "{seen} blocks");
}

#[test]
fn every_link_between_the_pages_leads_to_a_file() {
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for (at, _) in page.match_indices("](") {
            let target = page[at + 2..].split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let file = path.parent().unwrap().join(target);
            assert!(file.exists(), "{}: ]({target})", path.display());
        }
    }
}

#[test]
fn every_command_in_the_pages_is_understood() {
    let mut seen = 0;
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for block in blocks(&page, &["sh", "", "console"]) {
            for line in block.replace("\\\n", " ").lines() {
                let Some(arguments) = arguments(line) else { continue };
                seen += 1;
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                if let Err(error) = understands(&arguments) {
                    panic!("{}: {line}\n{error}", path.display());
                }
            }
        }
        // Of what is named in a sentence: the command.
        for (at, _) in page.match_indices("`otrelay ") {
            let rest = page[at + 1..].split('`').next().unwrap();
            let is_name = |word: &&str| {
                word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
            };
            let mut named: Vec<&str> = rest.split_whitespace().skip(1).take_while(is_name).collect();
            seen += 1;
            named.push("--help");
            if let Err(error) = understands(&named) {
                panic!("{}: {rest}\n{error}", path.display());
            }
        }
    }
    assert!(seen >= 100, "{seen} commands");
    assert!(understands(&["sync", "--dryrun"]).is_err() && understands(&["burn", "--help"]).is_err());
    assert_eq!(arguments("otrelay queue retry ID | cat").unwrap(), ["queue", "retry", "1"]);
    assert_eq!(arguments("otrelay tap --rule \"a b\" 3</x # y").unwrap(), ["tap", "--rule", "a b"]);
    assert_eq!(arguments("cargo run --release -- demo  # z").unwrap(), ["demo"]);
}

#[test]
fn every_page_is_in_the_book() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    for path in pages().into_iter().filter(|path| path.parent() == Some(&docs)) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            name == "SUMMARY.md" || summary.contains(&format!("]({name})")),
            "{name} is not in SUMMARY.md"
        );
    }
    let book: toml::Table = fs::read_to_string(docs.join("book.toml")).unwrap().parse().unwrap();
    assert_eq!(book["book"]["src"].as_str(), Some("."));
}

#[test]
fn each_picture_is_shown_small_and_asks_nobody() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let shown: String = pages().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let pictures: Vec<_> = fs::read_dir(docs.join("pictures")).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(pictures.len() >= 4, "{pictures:?}");
    for path in pictures {
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(shown.contains(&format!("pictures/{name})")), "{name} is on no page");
        assert!(bytes.len() <= 80_000, "{name}: {} bytes", bytes.len());
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let fetched = ["href=", "url(\"", "url('", "@import", "<script", "<image"];
            assert!(!fetched.iter().any(|one| text.contains(one)), "{name} fetches something");
        } else {
            assert!(bytes.starts_with(b"\x89PNG"), "{name} is neither SVG nor PNG");
        }
    }
}

#[test]
fn the_page_of_errors_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    if std::env::var_os("OTRELAY_BLESS").is_some() {
        fs::write(&path, otrelay::cli::help::page()).unwrap();
    }
    let written = fs::read_to_string(path).unwrap();
    assert!(written == otrelay::cli::help::page(), "make it anew: otrelay help --page > docs/errors.md");
}

/// The shipped code with one blank for each run of them, by its path in `src`.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut open, mut all) = (vec![root.clone()], Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            all.push((name, shipped.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    all
}

#[test]
fn each_code_that_is_told_is_explained_and_no_other() {
    // Where a code is written: everywhere so, and so in these files.
    let everywhere =
        ["code: \"", "HealthIssue::new( \"", "HealthIssue::new(\"", "HELD: &str = \"", "CODE: &str = \""];
    let in_files = [
        ("status/mod.rs", "add( \""),
        ("status/mod.rs", "add(\""),
        ("servicenow/schema/mod.rs", "=> ( \""),
        ("servicenow/cmdb/answer.rs", "Some((\""),
        ("store/health.rs", "=> \""),
    ];
    let (mut found, sources) = (BTreeSet::new(), sources());
    let files =
        sources.iter().filter(|(name, _)| !name.starts_with("simulator/") && !name.ends_with("tests.rs"));
    for (name, text) in files {
        let here = in_files.iter().filter(|(file, _)| file == name).map(|(_, begins)| begins);
        for begins in everywhere.iter().chain(here) {
            let codes = text
                .match_indices(begins)
                .map(|(at, _)| text[at + begins.len()..].split('"').next().unwrap());
            found.extend(
                codes.filter(|code| {
                    code.chars().all(|c| c.is_ascii_lowercase() || c == '-') && code.len() > 2
                }),
            );
        }
    }
    assert!(found.len() >= 20, "{found:?}");
    let explained: BTreeSet<&str> = CODES.iter().map(|code| code.name).collect();
    let unexplained: Vec<_> = found.difference(&explained).collect();
    assert!(unexplained.is_empty(), "in no table: {unexplained:?}");
    for code in CODES {
        let told = |(name, text): &(String, String)| {
            name != "model/codes.rs" && text.contains(&format!("\"{}\"", code.name))
        };
        assert!(sources.iter().any(told), "{} is explained and never told", code.name);
    }
}

#[test]
fn each_fault_of_the_other_side_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/faults/other_side.md")).unwrap();
    let report = fs::read_to_string(root.join("docs/faults-report.md")).unwrap();
    assert!(report.ends_with(&table), "docs/faults-report.md ends with tests/faults/other_side.md");
    // Whatever else somebody writes into it, the script that writes the file would take away.
    let (head, _) = report.split_once("\nEnded between ").unwrap();
    let script = fs::read_to_string(root.join("tests/faults/report.py")).unwrap();
    assert!(
        script.contains(head),
        "the head of docs/faults-report.md is not report.py's: see docs/faults-found.md"
    );
    let (mut open, mut code) = (vec![root.join("src"), root.join("tests/it")], String::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| F")).collect();
    let faults: Vec<&str> = rows.iter().map(|row| &row[2..5]).collect();
    assert_eq!(faults, (14..=24).map(|n| format!("F{n}")).collect::<Vec<_>>());
    for row in rows {
        let tests: Vec<&str> = row.rsplit_once("| `").unwrap().1.split('`').filter(|t| t.len() > 2).collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            let is_there = if test.contains('/') {
                root.join(test).exists()
            } else {
                code.contains(&format!("fn {test}("))
            };
            assert!(is_there, "{test}, of {}", &row[..5]);
        }
    }
}
