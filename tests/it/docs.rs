//! What is written for people holds: every config in the pages is one that otrelay takes, every link leads somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use otrelay::config::parse_str;

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

/// The blocks of a language in a page.
fn blocks<'a>(page: &'a str, language: &'a str) -> impl Iterator<Item = &'a str> {
    let opening = format!("```{language}\n");
    page.match_indices(&opening).map(|(at, _)| at).collect::<Vec<_>>().into_iter().map(move |at| {
        let text = &page[at + 4 + language.len()..];
        &text[..text.find("```").unwrap()]
    })
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
        for block in blocks(&page, "toml") {
            seen += 1;
            let mut text = with_real_files(block);
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
            text.push_str("\n[agent]\nid = \"x\"\n");
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
