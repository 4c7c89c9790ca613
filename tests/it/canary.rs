//! Every secret of every kind of log-in, source and proxy, against others that quote each request in every form they may:
//! in block pages, errors, redirects, headers; as it came, in lower case, unpacked, percent-encoded, in base64 at each
//! offset. None of it gets into an output, the log, the state directory or a backup.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::support::agent::{Agent, private};
use crate::support::eve;

/// What is told nobody, by its name; each has characters that some encoding changes.
const SECRETS: [(&str, &str); 12] = [
    ("client", "Canary-client-10 &=+%"),
    ("password", "Canary-password-11 &=+%\"<"),
    ("basic", "Canary-basic-12:&=+%'"),
    ("api-key", "Canary-api-key-13&=+%/"),
    ("refresh", "Canary-refresh-14&=+%"),
    ("header", "Canary-header-15&=+%"),
    ("proxy", "Canary-proxy-16&=+%@"),
    ("sensor", "Canary-sensor-17&=+%"),
    ("console", "Canary-console-18&=+%"),
    ("push", "Canary-push-19-0123456789abcdef&=+%"),
    // These two are handed out by the other side.
    ("access", "Canary-access-20&=+%"),
    ("refreshed", "Canary-refreshed-21&=+%"),
];
/// Ways in which a request is quoted, and kinds of answers.
const FORMS: usize = 7;
const KINDS: usize = 7;

/// Somebody who quotes.
struct Echo {
    url: String,
    tokens: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tokens, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (gives, counts) = (Arc::clone(&tokens), Arc::clone(&answers));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (gives, counts) = (Arc::clone(&gives), Arc::clone(&counts));
                // Whoever breaks off is not of interest.
                thread::spawn(move || drop(converse(stream, &gives, &counts)));
            }
        });
        Self { url, tokens, answers }
    }
}

fn converse(mut stream: TcpStream, gives: &AtomicBool, counts: &AtomicUsize) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let Some(request) = request(&mut stream)? else { return Ok(()) };
    let answer = if gives.load(Ordering::SeqCst) && request.starts_with("POST /oauth_token.do") {
        let [access, refreshed] = ["access", "refreshed"].map(secret);
        let body =
            serde_json::json!({"access_token": access, "refresh_token": refreshed, "expires_in": 1799});
        answer("200 OK", "application/json", "", &body.to_string())
    } else {
        let number = counts.fetch_add(1, Ordering::SeqCst);
        quoting(&request, number % KINDS, number / KINDS % FORMS)
    };
    stream.write_all(answer.as_bytes())
}

/// A whole request.
fn request(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 8192]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(Some(text));
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

fn answer(status: &str, kind: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// What may hold a secret: the values of its headers and its body, without what goes before, so that no limit of length
/// cuts it away.
fn telling(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap_or((request, ""));
    let named = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        name.contains("auth") || name.starts_with("x-")
    };
    let values = head.lines().filter(named).filter_map(|line| line.split_once(": ")).map(|(_, value)| value);
    let form = body.split('&').filter(|pair| !pair.starts_with("grant_type"));
    values.chain(form).collect::<Vec<_>>().join(" ")
}

fn quoting(request: &str, kind: usize, form: usize) -> String {
    let text = telling(request);
    let plain = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
    };
    // `Basic dXNlcjpwYXNz` as the one who is told it knows it.
    let unpacked = text
        .split(' ')
        .filter_map(|word| STANDARD.decode(word).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let said = match form {
        0 => text,
        1 => plain(&text),
        2 => format!("{unpacked} {}", plain(&text).to_lowercase()),
        3 => percent_encoding::utf8_percent_encode(&plain(&text), percent_encoding::NON_ALPHANUMERIC)
            .to_string(),
        4 => STANDARD.encode(format!("{unpacked}{}", plain(&text))),
        5 => URL_SAFE_NO_PAD.encode(format!("u:{unpacked} {}", plain(&text))),
        _ => STANDARD.encode(format!("us:{unpacked} {}", plain(&text))),
    };
    let line: String = said.chars().filter(|c| !c.is_control()).take(400).collect();
    let html = line.replace('&', "&amp;").replace('<', "&lt;");
    match kind {
        0 => answer("403 Forbidden", "text/html", "", &format!("<html><title>{html}</title>blocked</html>")),
        1 => answer(
            "400 Bad Request",
            "application/json",
            "",
            &serde_json::json!({"error": {"message": line, "detail": line}, "status": "failure"}).to_string(),
        ),
        2 => answer("500 Internal Server Error", "text/plain", "", &line),
        3 => answer(
            "401 Unauthorized",
            "application/json",
            "www-authenticate: Basic realm=\"x\"\r\n",
            &serde_json::json!({"error": line, "error_description": line}).to_string(),
        ),
        4 => {
            let to = line.replace([' ', '"', '<'], "_");
            answer("302 Found", "text/html", &format!("location: http://127.0.0.1/?{to}\r\n"), &html)
        }
        5 => answer(
            "407 Proxy Authentication Required",
            "text/html",
            &format!("proxy-authenticate: {}\r\n", line.replace('"', "_")),
            &html,
        ),
        _ => answer(
            "200 OK",
            "application/json",
            "",
            &serde_json::json!({"error": {"message": line}, "result": line}).to_string(),
        ),
    }
}

fn secret(name: &str) -> &'static str {
    SECRETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).unwrap()
}

/// What a text may not hold, in lower case: the beginning of each secret as it is and encoded. Nothing of ours begins so.
fn forbidden() -> Vec<String> {
    let mut all = vec!["canary".to_owned()];
    for (_, secret) in SECRETS {
        for place in 0..3 {
            let bytes = [&[0; 3][..place], secret.as_bytes()].concat();
            let (first, last) = ((place * 8_usize).div_ceil(6), bytes.len() * 8 / 6);
            all.push(STANDARD_NO_PAD.encode(&bytes)[first..last][..12].to_ascii_lowercase());
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

#[track_caller]
fn assert_clean(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    for canary in forbidden() {
        if let Some(at) = text.find(&canary) {
            let around: String =
                text[..at].chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect();
            let after: String = text[at..].chars().take(100).collect();
            panic!("{canary} in {what}: …{around}{after}…");
        }
    }
}

/// An agent with a log-in of every kind, each to somebody who quotes.
fn agent(echo: &Echo) -> Agent {
    let mut agent = Agent::at(&echo.url);
    for (name, text) in SECRETS {
        private(&agent.dir().join(format!("c-{name}")), text);
    }
    private(&agent.dir().join("jwt.key"), include_str!("../fixtures/tls/jwt-rsa.key"));
    let file = |name: &str| format!("{{ file = \"{}/c-{name}\" }}", agent.dir().display());
    let (url, dir) = (&echo.url, agent.dir().display());
    let client = format!("client_id = \"otrelay\"\nclient_secret = {}", file("client"));
    let logins = [
        ("a", format!("auth = \"client-credentials\"\n{client}")),
        ("b", format!("auth = \"password\"\n{client}\nusername = \"u\"\npassword = {}", file("password"))),
        ("c", format!("auth = \"refresh-token\"\n{client}\nrefresh_token = {}", file("refresh"))),
        (
            "d",
            format!(
                "auth = \"jwt-bearer\"\n{client}\nsubject = \"u\"\nkey_id = \"k\"\nprivate_key = {{ file = \"{dir}/jwt.key\" }}"
            ),
        ),
        ("e", format!("auth = \"api-key\"\napi_key = {}", file("api-key"))),
        ("f", format!("auth = \"basic\"\nusername = \"u\"\npassword = {}", file("basic"))),
        (
            "g",
            format!(
                "auth = \"basic\"\nusername = \"u\"\npassword = {}\nheaders = {{ \"x-gateway\" = {} }}",
                file("basic"),
                file("header")
            ),
        ),
    ];
    let destinations =
        logins.iter().map(|(name, login)| format!("[servicenow.{name}]\ninstance = \"{url}\"\n{login}\n"));
    let proxied = format!(
        "[servicenow.h]\ninstance = \"https://h.example\"\nauth = \"basic\"\nusername = \"u\"\npassword = {}\n\
         proxy = {{ url = \"{url}\", username = \"p\", password = {} }}\n",
        file("basic"),
        file("proxy")
    );
    let polled = [("defender-sensor", "sensor"), ("defender-console", "console")].map(|(kind, token)| {
        format!(
            "[[source]]\nname = \"{token}\"\nkind = \"{kind}\"\nurl = \"{url}\"\ntoken = {}\npoll_interval = \"5s\"\n",
            file(token)
        )
    });
    let pushed = format!(
        "[[source]]\nname = \"push\"\nkind = \"http\"\nlisten = \"{}\"\ntoken = {}\n",
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        file("push")
    );
    let names = logins.iter().map(|(name, _)| *name).chain(["h"]);
    let actions = names.map(|name| format!("[[rule.action]]\nservicenow = \"{name}\"\n"));
    let rules: String = destinations
        .chain([proxied])
        .chain(polled)
        .chain([pushed, "[[rule]]\nname = \"all\"\n".to_owned()])
        .chain(actions)
        .collect();
    agent.set_rules(&rules);
    agent
}

#[test]
fn no_secret_in_any_form_leaves_by_what_somebody_quotes() {
    let echo = Echo::start();
    let agent = agent(&echo);
    agent.feed(eve::alerts(0..3));
    let check = |args: &[&str]| {
        let said = agent.run(&[args, &["--verbose"]].concat());
        assert_clean(&format!("the output of {args:?}"), (said.out + &said.err).as_bytes());
        said.code
    };
    agent.run(&["check"]).ends(0);
    let service = agent.start_with(&["--verbose"]);
    // Each kind of answer in each form, to one or the other of them: the log-in first, then the calls that a token lets
    // through.
    for tokens in [false, true] {
        echo.tokens.store(tokens, Ordering::SeqCst);
        let enough = echo.answers.load(Ordering::SeqCst) + KINDS * FORMS;
        for _ in 0..60 {
            check(&["sync"]);
            check(&["status", "--json"]);
            if echo.answers.load(Ordering::SeqCst) >= enough {
                break;
            }
        }
        assert!(
            echo.answers.load(Ordering::SeqCst) >= enough,
            "{} answers",
            echo.answers.load(Ordering::SeqCst)
        );
    }
    check(&["queue", "list", "--json"]);
    check(&["config", "show"]);
    check(&["alerts", "--rejected", "--json"]);
    let copy = agent.dir().join("copy.db");
    assert_eq!(check(&["backup", copy.to_str().unwrap()]), 0);
    service.stop();
    assert_clean("the backup", &fs::read(&copy).unwrap());
    for log in ["service.err", "service.out"] {
        assert_clean(log, &fs::read(agent.dir().join(log)).unwrap());
    }
    // What the refresh grant keeps is a secret that has its own file.
    let kept = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with("login-");
    for entry in fs::read_dir(agent.state()).unwrap() {
        let path = entry.unwrap().path();
        if !kept(&path) && path.is_file() {
            assert_clean(&path.display().to_string(), &fs::read(&path).unwrap());
        }
    }
}

#[test]
fn the_canary_test_sees_what_it_looks_for() {
    let request = "GET / HTTP/1.1\r\nAuthorization: Basic dTpDYW5hcnktYmFzaWMtMTI6Jj0rJSc=\r\n\r\n";
    for form in 0..FORMS {
        for kind in 0..KINDS {
            let text = quoting(request, kind, form);
            let caught = std::panic::catch_unwind(|| assert_clean("a quote", text.as_bytes())).is_err();
            assert!(caught, "kind {kind}, form {form}: {text}");
        }
    }
}
