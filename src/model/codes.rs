//! Each thing that is told to a person and has a number: what it means, how it comes about, what to do.
//!
//! The one table behind `otrelay help E…`, the numbers beside messages, and the page of errors in the book. E1: what
//! `status` says needs a person; E2: the config; E3: a command that failed. A number stays what it is across releases; a new
//! one goes to the end of its hundred. The words of a message say what is the case here, these say what is behind it.

/// What is behind a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// `E101`.
    pub number: &'static str,
    /// Stable words for programs: those of `health` in `status --json`.
    pub name: &'static str,
    /// What it means.
    pub means: &'static str,
    /// How it comes about.
    pub comes: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl Code {
    /// The one of this number, whatever its case, or of these stable words.
    pub fn of(text: &str) -> Option<&'static Self> {
        CODES.iter().find(|code| code.number.eq_ignore_ascii_case(text) || code.name == text)
    }

    /// ` (E101)` behind a message, or nothing.
    pub fn behind(name: &str) -> String {
        Self::of(name).map_or_else(String::new, |code| format!(" ({})", code.number))
    }
}

const fn code(
    number: &'static str,
    name: &'static str,
    means: &'static str,
    comes: &'static str,
    remedy: &'static str,
) -> Code {
    Code { number, name, means, comes, remedy }
}

/// All of them, by number.
pub const CODES: &[Code] = &[
    code(
        "E101",
        "source",
        "A source cannot be read, or not wholly. The others go on.",
        "A file that is not there or may not be read by the service's user, a console that refuses the token, a listener \
         whose port somebody else has, a certificate that is not trusted.",
        "The message says which. `otrelay doctor` looks at the same as the service's user; what was missed in a file is \
         read when it can be.",
    ),
    code(
        "E102",
        "hold",
        "A destination, or one table of it, waits: sending there would fail for every delivery. Nothing is lost.",
        "A refused log-in, a missing role or table, a certificate that is not trusted, an instance that is down or \
         hibernates, a mandatory column without a value.",
        "Do what the message says; then `otrelay sync` tries at once, else the time in the message holds.",
    ),
    code(
        "E103",
        "dead-letters",
        "Deliveries that ServiceNow refused for good, or too often. They are kept until a person decides.",
        "A business rule, a data policy or an ACL refuses the record; a value that the table does not take.",
        "`otrelay queue list --dead` has the server's words. Mend the cause, then `otrelay queue retry ID`; or `otrelay \
         queue drop ID`.",
    ),
    code(
        "E104",
        "shed",
        "Undelivered alerts were given up, the least severe first, because the buffer was full.",
        "The destination was away for longer than `[buffer] max_size` has room for, and `when_full` is \"shed-lowest\".",
        "Raise `[buffer] max_size`, narrow the rules, or set `when_full = \"refuse\"`: then the intake waits.",
    ),
    code(
        "E105",
        "store-in-memory",
        "The state directory cannot be written: alerts are kept in memory only, and are gone at a restart.",
        "A file system that became read-only after a fault, or no space at the start.",
        "Mend or replace the disk, or make space; what is in memory goes home by itself. Files are read again after a \
         restart.",
    ),
    code(
        "E106",
        "disk-full",
        "The file system of the state directory has no room: nothing is taken in, sending goes on.",
        "Something else fills the disk, or a quota is used up.",
        "Make space, or give the state directory a file system of its own. The sensor's files are the buffer meanwhile.",
    ),
    code(
        "E107",
        "log-full",
        "SQLite's write-ahead log cannot be emptied: nothing is taken in.",
        "Another program has had the database open for reading for long.",
        "End what reads `queue.db` (lsof); a copy is made with `otrelay backup` instead.",
    ),
    code(
        "E108",
        "buffer-full",
        "The buffer is full and its policy makes no room: nothing is taken in until something is delivered.",
        "The destination is away or on hold, or the rules make more than the budget of requests can carry. What only traffic \
         shows of devices was forgotten before; an inventory's devices hold half of the buffer at most.",
        "See what keeps the deliveries waiting, raise `[buffer] max_size` or `requests_per_hour`, or narrow the rules.",
    ),
    code(
        "E109",
        "store-repaired",
        "The database was damaged and made anew; what could be read of it was taken over.",
        "A failing disk or card, a power cut on a disk that does not sync, a file changed by another program.",
        "`otrelay status --json` has what was lost, by table, under `repairs`. Look at the disk (smartctl, dmesg); the \
         damaged file is kept beside the new one.",
    ),
    code(
        "E110",
        "no-machine-id",
        "The agent's name is its identity, because the machine has no id.",
        "An image without `/etc/machine-id`.",
        "Set `[agent] id` to something that no other agent has, or run systemd-machine-id-setup.",
    ),
    code(
        "E111",
        "identity-changed",
        "The agent's identity is another one than before: every finding is taken for a new one and gets a new ticket.",
        "`[agent] id` was changed, or the disk was moved to another machine.",
        "If it is still the same agent, set `[agent] id` to the identity in the message.",
    ),
    code(
        "E112",
        "clock-wrong",
        "The clock is before the release date of this version: alerts are kept, nothing is sent.",
        "A board without a battery for its clock, and no time server so far.",
        "Set the clock (timedatectl), or give the machine a time server; sending then begins by itself.",
    ),
    code(
        "E113",
        "clock-set-back",
        "The clock is more than a day behind what it showed before.",
        "It was set wrong before or is now; a restored image.",
        "Set the clock. If it is right now, this passes with the next sync and the next alerts.",
    ),
    code(
        "E114",
        "reload-refused",
        "The config on disk cannot be used; the service runs on with the one it had.",
        "A SIGHUP (systemctl reload) after an edit that `otrelay check` refuses.",
        "`otrelay check` shows all of it; correct it, then systemctl reload otrelay.",
    ),
    code(
        "E115",
        "page",
        "The status page cannot be shown at its address.",
        "Another program has the port of `[status] listen`.",
        "Give it another port, or end who has this one (ss -ltnp); it goes on by itself.",
    ),
    code(
        "E116",
        "login-grows-old",
        "The refresh token of a destination ends soon, or should have ended.",
        "ServiceNow ends refresh tokens after 100 days by default, and nobody has logged in since.",
        "`otrelay login NAME` asks for user and password once and keeps a new one.",
    ),
    code(
        "E117",
        "login-unreadable",
        "The kept log-in of a destination cannot be read.",
        "Its file in the state directory is damaged, or belongs to somebody else.",
        "`otrelay login NAME` makes it anew.",
    ),
    code(
        "E118",
        "unknown-column",
        "A field of a rule has no column in the table: it is left out of what is sent there.",
        "A label in the place of a name, a misspelt name, a column that was removed.",
        "Correct the name in `[rule.action.fields]`, or add the column.",
    ),
    code(
        "E119",
        "not-a-choice",
        "A value is no choice of its column: it is left out of what is sent there.",
        "The label of a choice in the place of its value, or a choice that is not there.",
        "Use one of the values in the message, or add the choice.",
    ),
    code(
        "E120",
        "schema-unread",
        "What a table takes is known only in part: ServiceNow may drop fields in silence.",
        "The integration user may not read sys_dictionary, sys_choice or a data policy, or reading them failed.",
        "Let the integration user read the tables in the message.",
    ),
    code(
        "E121",
        "dropped-field",
        "ServiceNow made the record, and not one of its fields.",
        "A field ACL, a reference that leads nowhere, a value that is no choice, a business rule that changes it.",
        "Check the value in `[rule.action.fields]` and the right to write the field. Of `correlation_id` it matters \
         most: it is the key by which a record is found again.",
    ),
    code(
        "E122",
        "read-back",
        "Tickets of a table could not be read back: what people do there is not known here.",
        "A missing right to read, or an answer that is no list.",
        "The message has the cause; it is tried again at the next sync.",
    ),
    code(
        "E123",
        "twins",
        "More than one record carries a key of ours; one of them is taken for the ticket.",
        "Records were copied by a person, an import or a clone.",
        "Close the others; if it recurs, find out who copies records.",
    ),
    code(
        "E124",
        "adopted",
        "A record was found by our key that another user made, or before the finding was seen.",
        "An agent that lost its database finds its tickets again under another user; or somebody made a record \
         beforehand so that a finding seems to be told.",
        "Look at it: `otrelay tickets --json` shows them under `adopted`. If it is none of yours, close it.",
    ),
    code(
        "E125",
        "held",
        "The deliveries of one rule's action wait, others of the table go on.",
        "A mandatory column without a value, a reference to a record that is not there, a row without its key column.",
        "Correct `[rule.action.fields]` or ServiceNow as the message says; they go out at the next sync.",
    ),
    code(
        "E126",
        "cmdb-class-missing",
        "The class that a device belongs to is not in this instance.",
        "The OT classes come with a plugin that is not active.",
        "Activate the plugin, or name another class in `[devices]`.",
    ),
    code(
        "E127",
        "cmdb-relation-refused",
        "The CMDB keeps the devices, but not what connects them.",
        "A relation type is not there.",
        "Add the types in the message (cmdb_rel_type), then `otrelay devices resync`.",
    ),
    code(
        "E128",
        "device-twins",
        "Two devices turned out to be one, and each has a CI.",
        "They were seen apart at first, by address and by MAC.",
        "Merge the two in ServiceNow (Duplicate CI Remediator).",
    ),
    code(
        "E129",
        "cmdb-other-source",
        "Another integration tells the same CMDB of the same devices.",
        "A Service Graph Connector or another agent reads the same sensor or console, or the instance discovers the network.",
        "If both read the same, end one of them; else decide in ServiceNow whose word counts (reconciliation rules of \
         cmdb_ci).",
    ),
    code(
        "E130",
        "ticket-damaged",
        "What is kept of a ticket is not what was written: it is not read back, and its finding gets no other ticket.",
        "A bit that flipped on the disk: SQLite's own check does not see it, the row's checksum does.",
        "Look after that record by hand. When it happens again, the disk is failing: replace it and `otrelay restore` a \
         backup.",
    ),
    code(
        "E131",
        "packed-unread",
        "Files of a source were packed in a way that is not read here, and nobody had read them before.",
        "A rotation packs with xz, bzip2 or the like, and went on while otrelay did not run, or before it first met the \
         source. Packed with gzip or zstd they would have been read.",
        "Unpack each beside itself (`xz -dk FILE`, `bzip2 -dk FILE`): what appears under the plain name is read within \
         seconds, whatever its age, and needs no `otrelay sources rewind`. Move away what you do not want. Have logrotate \
         use gzip or zstd.",
    ),
    code(
        "E132",
        "turned-away",
        "A listener closes connections because it has no place for them: senders may be kept out.",
        "More senders than its 64 places (syslog: 32 of one address, http: 8; an IPv6 network of 64 bits is one), senders \
         that never close, or somebody who opens connections or begins TLS handshakes only to keep others out. A connection \
         that was silent for a minute goes for a new one, an unfinished handshake for the next.",
        "See who is there (ss -tnp) and who is counted as over the limit (otrelay alerts --rejected). Keep strangers out with a \
         firewall and, at syslog, `allow`; spread many senders over several [[source]].",
    ),
    code(
        "E133",
        "devices-share",
        "Devices have used up their share of the buffer: the oldest that were only seen as addresses are forgotten, and where \
         none of them is left, new ones are left out.",
        "Forged or scanned addresses in the plant's traffic, or a plant with more devices than half of `[buffer] max_size` \
         holds (an eighth without `[devices]`): 1 to 3 kB each.",
        "`otrelay devices` shows what they are. For a plant with so many raise `[buffer] max_size` to 6 kB a device, then \
         `otrelay sources rewind NAME` takes in what was left out; alerts lose nothing by it.",
    ),
    code(
        "E134",
        "sync-off",
        "Deliveries wait, and nothing is pushed, because sync is off.",
        "`enabled = false` in `[sync]`: alerts are taken in and kept, and that is all.",
        "Set `enabled = true` in `[sync]` and reload the service. It pushes at the next interval, the most severe first; \
         `otrelay sync` pushes at once.",
    ),
    code(
        "E135",
        "login-unkept",
        "A new refresh token is not on disk: the running service has it, its next start does not.",
        "A full or read-only disk under the state directory, or a file there that belongs to somebody else.",
        "Make the state directory writable: the next renewal writes it. `otrelay login NAME` if a start is refused.",
    ),
    code(
        "E136",
        "not-closed",
        "Tickets whose findings have ended are not closed there; a work note says that it has ended, once for each end.",
        "`on_cleared = \"resolve\"` for a table whose records an instance moves only from state to state: change_request, \
         problem, sn_si_incident. One that nobody worked on cannot be closed.",
        "Close them there by hand and set `on_cleared = \"note\"`; or let the instance close them (sn_si_incident: the \
         process NIST Open) and give what it wants in `[rule.action.resolve]`.",
    ),
    code(
        "E137",
        "changes-untold",
        "A table cannot be asked what changed there: each live ticket is asked for by its own id instead.",
        "The table has no column `correlation_id`, something there clears it, or the integration user may not read it or \
         `correlation_display`: then ServiceNow ignores the question and answers with the records of others.",
        "Tickets are still read back, once in each tickets_interval, for more requests. Give the table the column, the user \
         the right to read it, and let no business rule clear it.",
    ),
    code(
        "E201",
        "config-syntax",
        "A config file is no TOML: nothing behind the place is looked at.",
        "A quote, a bracket or an `=` is missing; a key stands twice.",
        "The message has line and column; `otrelay config example` shows how it is written.",
    ),
    code(
        "E202",
        "config-unknown-key",
        "A key that otrelay does not know, in the table where it stands.",
        "A slip, a key of a newer version, or one of another table or kind of source.",
        "Take the key that is suggested, or see otrelay.toml(5).",
    ),
    code(
        "E203",
        "config-missing-key",
        "A key or a table is missing that others make necessary.",
        "A log-in without one of its parts, a source without its path, no `[[source]]` at all.",
        "Add it; `otrelay config example` has each with words.",
    ),
    code(
        "E204",
        "config-secret",
        "A secret cannot be had, or could be read by others.",
        "A file that is not there or not for the service's user, a credential that the unit does not load, a mode that is \
         too wide.",
        "`root:otrelay`, mode 0640, in `/etc/otrelay/secrets`; or let `otrelay init` write it.",
    ),
    code(
        "E205",
        "config-machine",
        "The config is fine, and this machine is not as it needs.",
        "A source's file that the service's user may not read, a state directory that cannot be used, an address that \
         somebody else has.",
        "The message has the command. `otrelay check` judges for the service's user, whoever runs it.",
    ),
    code(
        "E206",
        "config-value",
        "A value cannot be used where it stands.",
        "A number out of its range, a word that is not among the known ones, two keys that exclude each other, a name \
         that stands twice.",
        "The message says what was found and what may stand there.",
    ),
    code(
        "E301",
        "in-use",
        "Another otrelay works on the state directory.",
        "The service runs, or another command that works on the store by itself.",
        "Ask the running one (`otrelay sync`, `otrelay queue …` do), or stop it first: systemctl stop otrelay.",
    ),
    code(
        "E302",
        "newer-store",
        "The store was written by a newer otrelay; it is untouched.",
        "An older version was installed over a newer one.",
        "Install the newer version again, or restore the backup that it made before it changed the store.",
    ),
    code(
        "E303",
        "no-store",
        "There is no store yet.",
        "otrelay has not run with this state directory.",
        "Start the service, or see that `--config` and `[agent] state_dir` name the right one.",
    ),
    code(
        "E304",
        "store-failed",
        "The disk failed below the store, or the store is damaged.",
        "An I/O error, a failed sync, a file system that became read-only.",
        "Start again (the service does so by itself): damage is mended at the start, nowhere else. If it recurs, look at the \
         disk (dmesg).",
    ),
    code(
        "E305",
        "no-service",
        "No otrelay service answers on the control socket.",
        "It does not run, or runs with another state directory.",
        "systemctl status otrelay; see that `--config` is the service's.",
    ),
    code(
        "E306",
        "refused-by-service",
        "The running service answered, and said no, or another thing than this command understands.",
        "Too many ask at once, or the service is of another version than the command: it was not restarted after an \
         upgrade.",
        "systemctl restart otrelay after an upgrade; else try again.",
    ),
    code(
        "E307",
        "destination-set-up",
        "A destination cannot be made ready from its config.",
        "A certificate, a key or a CA file that is none, or does not belong to the other.",
        "The message names the file; `otrelay doctor` looks at each step of the way.",
    ),
    code(
        "E308",
        "not-the-owner",
        "A file or directory cannot be used with the rights of who runs this.",
        "A command of another user than root or the service's.",
        "Run it as root (it becomes the state directory's owner by itself), or as the service's user.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_nothing_stands_twice() {
        for pair in CODES.windows(2) {
            assert!(pair[0].number < pair[1].number, "{} before {}", pair[0].number, pair[1].number);
        }
        for code in CODES {
            assert_eq!(CODES.iter().filter(|other| other.name == code.name).count(), 1, "{}", code.name);
            assert!(code.number.len() == 4 && code.number.starts_with('E'), "{}", code.number);
            for words in [code.means, code.comes, code.remedy] {
                assert!(words.len() > 20 && words.ends_with('.'), "{}: {words}", code.number);
            }
        }
    }

    #[test]
    fn is_found_by_number_and_by_words() {
        assert_eq!(Code::of("e106").map(|code| code.name), Some("disk-full"));
        assert_eq!(Code::of("disk-full").map(|code| code.number), Some("E106"));
        assert_eq!((Code::of("E999"), Code::of("")), (None, None));
        assert_eq!((Code::behind("hold"), Code::behind("x")), (" (E102)".to_owned(), String::new()));
    }
}
