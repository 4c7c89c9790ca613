//! `otrelay doctor` against set-ups that are broken in one way each: it names that one, with the remedy that mends it, and
//! nothing else.

use std::any::Any;
use std::cell::RefCell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use otrelay::simulator::{Options, Running};
use serde_json::Value;

use crate::support::agent::{Agent, private};
use crate::support::console::{Console, TOKEN};
use crate::support::eve::alert;
use crate::support::{simulator, simulator_with};

/// A set-up that is in order until a case breaks it.
struct Bed {
    simulator: Running,
    agent: Agent,
    /// What has to live while it is broken.
    keep: RefCell<Vec<Box<dyn Any>>>,
}

/// One way to break it.
struct Case {
    what: &'static str,
    breaks: fn(&Bed),
    /// Beside the usual arguments.
    args: &'static [&'static str],
    /// Name of the finding, words of it, and of its remedy.
    named: (&'static str, &'static str, &'static str),
}

impl Bed {
    fn new(options: Options) -> Self {
        let simulator = simulator_with(options);
        let agent = Agent::new(&simulator);
        let agent = match simulator.ca_pem() {
            None => agent,
            Some(pem) => {
                let ca = agent.dir().join("plant-ca.pem");
                fs::write(&ca, pem).unwrap();
                agent.destination(&format!("tls = {{ ca_file = \"{}\" }}", ca.display()))
            }
        };
        private(&agent.dir().join("token"), TOKEN);
        agent.feed(alert(1).line());
        Self { simulator, agent, keep: RefCell::default() }
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.agent.config_path()).unwrap();
        assert!(text.contains(from), "no `{from}` in {text}");
        fs::write(self.agent.config_path(), text.replace(from, to)).unwrap();
    }

    fn field(&self, name: &str, value: &str) {
        self.agent.append_config(&format!("[rule.action.fields]\n{name} = \"{value}\"\n"));
    }

    fn source(&self, text: &str) {
        let dir = self.agent.dir().display().to_string();
        self.agent.append_config(&format!("\n[[source]]\nname = \"more\"\n{}\n", text.replace("DIR", &dir)));
    }

    fn fault(&self, text: &str) {
        self.simulator.add_fault(text.parse().unwrap());
    }

    fn keep(&self, thing: impl Any) {
        self.keep.borrow_mut().push(Box::new(thing));
    }

    /// As the remedies say: everything is put right again.
    fn mend(&self) {
        self.keep.borrow_mut().clear();
        self.simulator.clear_faults();
        self.agent.restore_config();
        self.agent.secrets("otrelay", "admin");
        let log = self.agent.log("eve.json");
        if log.is_dir() {
            fs::remove_dir(&log).unwrap();
        }
        fs::write(&log, alert(1).line()).unwrap();
        mandatory(&self.simulator, "false");
    }

    /// What is not as it should be: name, words, remedy. Room and memory are the machine's that the test runs on.
    fn findings(&self, args: &[&str]) -> (i32, Vec<(String, String, String)>) {
        let said = self.agent.run(&[&["doctor", "--json"], args].concat());
        let all = said.json()["findings"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let bad = all.iter().filter(|finding| {
            let state = &finding["state"];
            (*state == "warn" || *state == "fail") && finding["name"] != "disk" && finding["name"] != "memory"
        });
        let bad = bad.map(|f| (text(&f["name"]), text(&f["text"]), text(&f["remedy"]))).collect();
        (said.code, bad)
    }
}

fn mandatory(simulator: &Running, value: &str) {
    let all = simulator.records("sys_dictionary");
    let location =
        all.iter().find(|row| row.get("element") == "location" && row.get("name") == "task").unwrap();
    assert!(simulator.edit("sys_dictionary", location.get("sys_id"), &[("mandatory", value)]));
}

/// A proxy that gives one answer to every CONNECT.
fn proxy(bed: &Bed, answer: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(8) {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    bed.edit(
        "requests_per_hour",
        &format!("proxy = {{ url = \"http://127.0.0.1:{port}\" }}\nrequests_per_hour"),
    );
}

/// A port that nobody listens at.
fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const PLAIN: &[Case] = &[
    Case {
        what: "the path of a source leads nowhere",
        breaks: |bed| bed.edit("eve*.json", "evil*.json"),
        args: &[],
        named: ("eve: files", "no file matches", "correct `path`"),
    },
    Case {
        what: "the path of a source is a directory",
        breaks: |bed| {
            fs::remove_file(bed.agent.log("eve.json")).unwrap();
            fs::create_dir(bed.agent.log("eve.json")).unwrap();
        },
        args: &[],
        named: ("eve: files", "eve.json cannot be read: it is a directory", "correct `path`"),
    },
    Case {
        what: "the sensor has stopped",
        breaks: |bed| {
            let file = fs::File::options().append(true).open(bed.agent.log("eve.json")).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        },
        args: &[],
        named: ("eve: files", "1 file, last written", "see whether the sensor runs"),
    },
    Case {
        what: "somebody else has the port of a listener",
        breaks: |bed| {
            let other = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = other.local_addr().unwrap().port();
            bed.source(&format!("kind = \"syslog\"\nlisten = [\"tcp://127.0.0.1:{port}\"]"));
            bed.keep(other);
        },
        args: &[],
        named: ("more: listener 127.0.0.1:", "cannot be listened at", "find who listens there"),
    },
    Case {
        what: "a listener has an address of another machine",
        breaks: |bed| {
            bed.source("kind = \"syslog\"\nlisten = [\"udp://192.0.2.1:6514\"]\nallow = [\"192.0.2.0/24\"]");
        },
        args: &[],
        named: (
            "more: listener 192.0.2.1:6514/udp",
            "cannot be listened at",
            "use an address of this machine",
        ),
    },
    Case {
        what: "the sensor refuses the token",
        breaks: |bed| {
            let console = Console::start(false);
            private(&bed.agent.dir().join("token"), "another");
            bed.source(&format!(
                "kind = \"defender-sensor\"\nurl = \"{}\"\ntoken = {{ file = \"DIR/token\" }}",
                console.url()
            ));
            bed.keep(console);
        },
        args: &[],
        named: ("more: api", "401", "token"),
    },
    Case {
        what: "the sensor is away",
        breaks: |bed| {
            bed.source(&format!(
                "kind = \"defender-sensor\"\nurl = \"http://127.0.0.1:{}\"\ntoken = {{ file = \"DIR/token\" }}",
                closed()
            ));
        },
        args: &[],
        named: ("more: api", "could not connect", "check that 127.0.0.1"),
    },
    Case {
        what: "nobody listens at the instance's address",
        breaks: |bed| bed.edit(bed.simulator.url(), &format!("http://127.0.0.1:{}", closed())),
        args: &[],
        named: ("prod: connection", "could not connect", "check that 127.0.0.1"),
    },
    Case {
        what: "the instance's name has no address",
        // Longer than a name may be: no resolver is asked.
        breaks: |bed| bed.edit(bed.simulator.url(), &format!("https://{}.service-now.com", "a".repeat(70))),
        args: &[],
        named: ("prod: name", "has no address", "correct the name in the config, or the resolver"),
    },
    Case {
        what: "the instance does not speak TLS",
        breaks: |bed| bed.edit(bed.simulator.url(), &bed.simulator.url().replace("http:", "https:")),
        args: &[],
        named: ("prod: certificate", "does not speak TLS", "check scheme and port"),
    },
    Case {
        what: "the client secret is wrong",
        breaks: |bed| bed.agent.secrets("wrong", "admin"),
        args: &[],
        named: ("prod: log-in", "could not get a token", "client_secret"),
    },
    Case {
        what: "the instance hibernates",
        breaks: |bed| bed.fault("hibernate:path=/api"),
        args: &[],
        named: ("prod: instance", "hibernat", "wake"),
    },
    Case {
        what: "the registry record is securely scoped",
        breaks: |bed| bed.fault("unscoped:path=/api"),
        args: &[],
        named: ("prod: instance", "scope", "Broadly scoped"),
    },
    Case {
        what: "the table is not there",
        breaks: |bed| bed.edit("servicenow = \"prod\"\n", "servicenow = \"prod\"\ntable = \"u_nothing\"\n"),
        args: &[],
        named: ("prod: table u_nothing", "Invalid table", "table"),
    },
    Case {
        what: "the user may not read the table",
        breaks: |bed| bed.fault("hide-table=incident"),
        args: &[],
        named: ("prod: table incident", "403: User Not Authorized", "the roles to read and create"),
    },
    Case {
        what: "a rule names a column that is not there",
        breaks: |bed| bed.field("u_plant", "North"),
        args: &[],
        named: ("prod: mapping to incident", "has no column `u_plant`", "add the column to incident"),
    },
    Case {
        what: "a rule gives a value that is no choice",
        breaks: |bed| bed.field("close_code", "Because"),
        args: &[],
        named: ("prod: mapping to incident", "`Because` is no choice of `close_code`", "use one of"),
    },
    Case {
        what: "a mandatory column gets no value",
        breaks: |bed| mandatory(&bed.simulator, "true"),
        args: &[],
        named: ("prod: mapping to incident", "`location` is mandatory", "give `location` a value"),
    },
    Case {
        what: "a group has no such name",
        breaks: |bed| bed.field("assignment_group", "Nobody at all"),
        args: &[],
        named: ("prod: mapping to incident", "`Nobody at all`", "create it in ServiceNow"),
    },
    Case {
        what: "a table does not keep the key of a ticket",
        breaks: |bed| bed.fault("drop-field=correlation_id"),
        args: &["--probe", "incident"],
        named: (
            "prod: keys in incident",
            "correlation_id is not kept",
            "the right to write `correlation_id`",
        ),
    },
    Case {
        what: "the data source of devices is no choice",
        breaks: |bed| {
            bed.agent.append_config("\n[devices]\nservicenow = \"prod\"\ndata_source = \"nobody\"\n");
        },
        args: &[],
        named: ("prod: data source", "`nobody` is no choice", "add the choice `nobody`"),
    },
];

const BEHIND_TLS: &[Case] = &[
    Case {
        what: "the CA is not named",
        breaks: |bed| {
            let ca = bed.agent.dir().join("plant-ca.pem").display().to_string();
            bed.edit(&format!("tls = {{ ca_file = \"{ca}\" }}"), "");
        },
        args: &[],
        named: ("prod: certificate", "an authority that is not trusted here (`", "name it in `tls.ca_file`"),
    },
    Case {
        what: "the pin is another certificate's",
        breaks: |bed| {
            let ca = bed.agent.dir().join("plant-ca.pem").display().to_string();
            let pin = format!("pin = \"sha256:{}\"", "0".repeat(64));
            bed.edit(&format!("ca_file = \"{ca}\""), &pin);
        },
        args: &[],
        named: ("prod: certificate", "is not the pinned one", "put the shown value into `tls.pin`"),
    },
    Case {
        what: "the proxy is away",
        breaks: |bed| {
            let proxy = format!("proxy = {{ url = \"http://127.0.0.1:{}\" }}\nrequests_per_hour", closed());
            bed.edit("requests_per_hour", &proxy);
        },
        args: &[],
        named: ("prod: proxy", "gave no connection", "check `proxy.url`"),
    },
    Case {
        what: "the proxy wants a log-in that otrelay has not",
        breaks: |bed| {
            proxy(bed, "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n");
        },
        args: &[],
        named: ("prod: proxy", "it asks for a login, or refuses ours (407)", "it offers only Negotiate"),
    },
    Case {
        what: "the proxy does not let it through",
        breaks: |bed| proxy(bed, "HTTP/1.1 403 Forbidden\r\n\r\n"),
        args: &[],
        named: ("prod: proxy", "it refused the CONNECT (403)", "allows CONNECT to this address"),
    },
    Case {
        what: "something cuts the connection",
        breaks: |bed| proxy(bed, "HTTP/1.1 200 OK\r\n\r\n"),
        args: &[],
        named: ("prod: certificate", "the connection to", "something in between"),
    },
];

/// What is not as expected of a case, in words.
fn check(bed: &Bed, case: &Case) -> Vec<String> {
    let mut wrong = Vec::new();
    (case.breaks)(bed);
    let (code, found) = bed.findings(&[case.args, &["--warnings-as-errors"]].concat());
    let (name, words, remedy) = case.named;
    // What fails here and has a number in the service has it here as well.
    let number = match name.split_once(": ").map_or(name, |(_, what)| what).split(' ').next() {
        // The sensor may just not have written: to know, and no failure.
        Some("files") if words.contains("no file") || words.contains("last written") => "",
        Some("files" | "listener" | "api") => " (E101)",
        Some("mapping" | "keys" | "data") => "",
        _ => " (E102)",
    };
    let is_named = |one: &(String, String, String)| {
        one.0.starts_with(name) && one.1.contains(words) && one.1.ends_with(number) && one.2.contains(remedy)
    };
    if found.len() != 1 || !is_named(&found[0]) || code != 1 {
        wrong.push(format!("{}: {code} {found:#?}", case.what));
    }
    bed.mend();
    let (_, found) = bed.findings(case.args);
    if !found.is_empty() {
        wrong.push(format!("{}, mended: {found:#?}", case.what));
    }
    wrong
}

#[test]
fn each_broken_set_up_is_named_with_the_remedy_that_mends_it_and_nothing_else_is() {
    let bed = Bed::new(Options::default());
    assert_eq!(bed.findings(&["--probe", "incident"]), (0, Vec::new()));
    let wrong: Vec<String> = PLAIN.iter().flat_map(|case| check(&bed, case)).collect();
    assert!(wrong.is_empty() && PLAIN.len() >= 20, "{}", wrong.join("\n"));
    assert_eq!(bed.simulator.records("incident").len(), 0, "nothing is left there");
    assert!(!bed.agent.state().exists(), "and nothing here");
}

#[test]
fn what_stands_on_the_way_to_the_instance_is_named() {
    let bed = Bed::new(Options { tls: true, ..Options::default() });
    assert_eq!(bed.findings(&[]), (0, Vec::new()));
    bed.agent
        .run(&["doctor"])
        .ends(0)
        .says("ok      prod: certificate: it shows")
        .says("signed by")
        .says("ends ");
    let wrong: Vec<String> = BEHIND_TLS.iter().flat_map(|case| check(&bed, case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_limit_of_the_instance_that_is_below_ours_is_said() {
    let limit = "100/3600".parse().unwrap();
    let bed = Bed::new(Options { rate_limit: Some(limit), ..Options::default() });
    let (code, found) = bed.findings(&[]);
    assert_eq!((code, found.len(), found[0].0.as_str()), (0, 1, "prod: limits"), "{found:?}");
    assert!(
        found[0].1.contains("allows 100 requests")
            && found[0].2.contains("set `requests_per_hour` below 100")
    );
    bed.edit("requests_per_hour = 100000", "requests_per_hour = 90");
    assert_eq!(bed.findings(&[]), (0, Vec::new()));
}

#[test]
fn a_config_that_cannot_be_used_is_the_only_finding() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.append_config("nonsense = 1\n");
    agent
        .run(&["doctor"])
        .ends(78)
        .says("fail    config: ")
        .says("nonsense")
        .says("(E202)")
        .says("→ Take the key that is suggested");
    assert_eq!(simulator.requests(), 0);
}

#[test]
fn the_service_is_looked_at_while_it_runs() {
    let bed = Bed::new(Options::default());
    let service = bed.agent.start();
    bed.agent
        .run(&["doctor"])
        .ends(0)
        .says("ok      service: ")
        .says("warn    sandbox: the service does not run in the sandbox of its unit")
        .says("→ start it by systemd");
    assert_eq!(service.stop(), 0);
}

/// The words of the three about one source: what `check` warns of, what `doctor` finds, what `status` says of it.
fn three(agent: &Agent, name: &str) -> [String; 3] {
    let warnings = agent.run(&["check", "--json"]).ends(0).json()["warnings"].clone();
    let of_source = |value: &Value, key: &str| value[key].as_str().is_some_and(|text| text.contains(name));
    let checked: Vec<String> = warnings
        .as_array()
        .unwrap()
        .iter()
        .filter(|warning| of_source(warning, "key"))
        .map(|warning| warning["message"].as_str().unwrap().to_owned())
        .collect();
    let found: Vec<String> = agent.run(&["doctor", "--json"]).json()["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| of_source(finding, "name") && finding["state"] == "fail")
        .map(|finding| finding["text"].as_str().unwrap().to_owned())
        .collect();
    let status = agent.status();
    let sick: Vec<&str> = status["health"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|issue| issue["text"].as_str())
        .filter(|text| text.starts_with(&format!("source {name}: ")))
        .collect();
    [checked.join("\n"), found.join("\n"), sick.join("\n")]
}

#[test]
fn check_doctor_and_the_service_say_the_same_of_files_and_sockets() {
    use std::os::unix::fs::symlink;

    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(alert(1).line());
    // A link that leads nowhere yet.
    symlink(agent.dir().join("gone"), agent.log("eve-gone.json")).unwrap();
    let service = agent.start();
    agent.until_status("it is read", |status| status["sources"][0]["lines"] == 1);
    assert_eq!(three(&agent, "eve"), [""; 3]);
    assert_eq!(service.stop(), 0);

    // A secret, a directory and a pipe under names of the pattern, and a socket without a directory.
    symlink(agent.dir().join("password"), agent.log("eve-secret.json")).unwrap();
    fs::create_dir(agent.log("eve-dir.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        agent.log("eve-pipe.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let socket = agent.dir().join("nodir/eve.sock");
    agent.append_config(&format!(
        "\n[[source]]\nname = \"sock\"\nkind = \"suricata-eve\"\nlisten = \"unix_stream://{}\"\n",
        socket.display()
    ));
    let before = three(&agent, "sock");
    assert!(
        before[..2].iter().all(|words| words.contains("eve.sock: the directory is not there")),
        "{before:?}"
    );
    let service = agent.start();
    agent.until_status("both are told", |status| {
        let health = status["health"].to_string();
        health.contains("eve-secret.json") && health.contains("eve.sock")
    });
    for (source, words) in [
        ("eve", &["one of otrelay's own files", "is a directory, not a file", "is a pipe, not a file"][..]),
        ("sock", &["the directory is not there"]),
    ] {
        let said = three(&agent, source);
        for (text, word) in said.iter().flat_map(|text| words.iter().map(move |word| (text, word))) {
            assert!(text.contains(word), "{source}: no `{word}` in {said:#?}");
        }
        assert!(said.iter().all(|text| !text.contains("eve-gone")), "{said:#?}");
    }
    assert_eq!(service.stop(), 0);
}
