//! What is wrong with a source, in one line that says whether anything of it is read and what to do.
//!
//! It passes the store as a text: `WHAT`, [`NOTHING_READ`] where that is so, `; ` and the remedy where there is one of its
//! own.

/// How the trouble of a source goes on in words when nothing of it can be read.
pub const NOTHING_READ: &str = "; nothing of it is read";

/// How it goes on, at the very end, when there are packed files that nobody read and nobody here can.
pub const PACKED_UNREAD: &str = "packed in a way that is not read here, and read by nobody: ";

/// What to do about those.
pub const UNPACK: &str = "unpack each beside itself (xz -dk, bzip2 -dk, lz4 -dk, unzip): what appears under the plain name is \
     read, and needs no rewind; move away what you do not want; have logrotate pack with gzip or zstd, which are read";

/// What is wrong, and which packed files nobody read.
pub fn split(trouble: &str) -> (Option<&str>, Option<&str>) {
    let (rest, packed) = trouble.split_at(trouble.find(PACKED_UNREAD).unwrap_or(trouble.len()));
    let rest = rest.strip_suffix("; ").unwrap_or(rest);
    (Some(rest).filter(|rest| !rest.is_empty()), Some(packed).filter(|packed| !packed.is_empty()))
}

/// How the trouble of a listener begins that has no place for more connections.
pub const TURNED_AWAY: &str = "connections are turned away";

/// What the trouble is called among the issues of health.
pub fn code(trouble: &str) -> &'static str {
    if trouble.starts_with(TURNED_AWAY) { "turned-away" } else { "source" }
}

/// Whether nothing of the source is read.
pub fn is_unread(trouble: &str) -> bool {
    trouble.contains(NOTHING_READ)
}

/// What is wrong, and what to do about it at a source of this kind.
pub fn parts<'a>(kind: &str, trouble: &'a str) -> (&'a str, &'a str) {
    let polls = kind.starts_with("defender-");
    let usual = match kind {
        _ if code(trouble) == "turned-away" => {
            "see who has them (ss -tnp) and who is counted as over the limit (otrelay alerts --rejected); keep strangers \
             out with a firewall and, at syslog, `allow`"
        }
        "host" => "put the drop-in host.conf in place and restart otrelay",
        "syslog" | "http" => "see `listen` of this [[source]]; it is tried again by itself",
        _ if polls => "it is asked again by itself",
        _ => "see `path` of this [[source]] and the rights on the file",
    };
    // Words of files come before, a remedy after it.
    let end = trouble.rfind(NOTHING_READ).map(|at| at + NOTHING_READ.len());
    let end = end.or_else(|| if polls { trouble.find("; ") } else { None });
    let (what, rest) = trouble.split_at(end.unwrap_or(trouble.len()));
    (what, rest.strip_prefix("; ").filter(|own| !own.is_empty()).unwrap_or(usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_source_has_its_remedy() {
        let file = "no file matches `/x`; nothing of it is read";
        let path = "see `path` of this [[source]] and the rights on the file";
        assert_eq!(parts("zeek", file), (file, path));
        assert_eq!(parts("suricata-eve", "a; b"), ("a; b", path));
        let poll = "it is away; nothing of it is read; check the cable";
        assert_eq!(parts("defender-sensor", poll), ("it is away; nothing of it is read", "check the cable"));
        assert_eq!(parts("defender-console", "no devices; ask"), ("no devices", "ask"));
        assert_eq!(parts("defender-console", "no devices").1, "it is asked again by itself");
        let listen = "see `listen` of this [[source]]; it is tried again by itself";
        assert_eq!(parts("syslog", "cannot listen").1, listen);
        assert_eq!(parts("http", "cannot listen; nothing of it is read").1, listen);
        let packed = format!("{PACKED_UNREAD}/x.xz");
        assert_eq!(split(&packed), (None, Some(&*packed)));
        assert_eq!(split(&format!("{file}; {packed}")), (Some(file), Some(&*packed)));
        assert_eq!((split(file), split("")), ((Some(file), None), (None, None)));
        let crowd = format!("{TURNED_AWAY}: 64 connections are open");
        assert!(parts("syslog", &crowd).1.starts_with("see who has them"));
        assert_eq!((code(&crowd), code(file)), ("turned-away", "source"));
        assert!(is_unread(poll) && is_unread(file) && !is_unread("a; b"));
    }
}
