//! Every way to log in, with the real binary against the simulator: that it works, goes on when its token ends, and says
//! what is wrong and asks no more when it is refused.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use otrelay::model::Secret;
use otrelay::simulator::{Options, Running};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::support::agent::{Agent, Said, private};
use crate::support::{assert_one_each, eve, simulator_with, until};

const CLIENT: &str = "client_id = \"otrelay\"\nclient_secret = { file = \"DIR/client-secret\" }";
const JWT: &str = "auth = \"jwt-bearer\"\nclient_id = \"otrelay\"\nsubject = \"admin\"\nkey_id = \"kid-1\"\n\
                   private_key = { file = \"DIR/jwt.key\" }";
const API_KEY: &str = "auth = \"api-key\"\napi_key = { file = \"DIR/api-key\" }";
const CERTIFICATE: &str = "auth = \"client-certificate\"\ntls = { ca_file = \"DIR/ca.pem\", system_roots = false, \
                           client_cert_file = \"DIR/own.pem\", client_key_file = \"DIR/own.key\" }";
const BASIC: &str = "auth = \"basic\"\nusername = \"admin\"\npassword = { file = \"DIR/password\" }";

fn refresh_token() -> String {
    format!("auth = \"refresh-token\"\n{CLIENT}")
}

fn client_credentials() -> String {
    format!("auth = \"client-credentials\"\n{CLIENT}")
}

/// An instance on which every way is open; TLS only where a CA of clients is given.
fn instance(client_ca: Option<String>) -> Running {
    let on = |name: &str| (name.to_owned(), "true".to_owned());
    simulator_with(Options {
        tls: client_ca.is_some(),
        client_ca,
        api_key: Some(Secret::new("test", "canary-api-key-1")),
        jwt_keys: vec![
            include_str!("../fixtures/tls/jwt-rsa.pub.pem").to_owned(),
            include_str!("../fixtures/tls/jwt-ec.pub.pem").to_owned(),
        ],
        rotate_refresh: true,
        properties: vec![on("glide.oauth.inbound.client.credential.grant_type.enabled")],
        ..Options::default()
    })
}

/// An agent that logs in so, with every secret in its place.
fn agent(simulator: &Running, login: &str) -> Agent {
    let agent = Agent::new(simulator);
    private(&agent.dir().join("api-key"), "canary-api-key-1\n");
    private(&agent.dir().join("jwt.key"), include_str!("../fixtures/tls/jwt-rsa.key"));
    agent.login(login)
}

/// `otrelay login prod`, with the password on a pipe.
fn log_in(agent: &Agent, password: &str) -> Said {
    let mut command = agent.command(&["login", "prod", "--username", "admin", "--password-fd", "0"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it reads.
    let _ = writeln!(child.stdin.take().unwrap(), "{password}");
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn token_requests(simulator: &Running) -> usize {
    simulator.ledger().iter().filter(|entry| entry.path == "/oauth_token.do").count()
}

/// Ten tickets, half of them after all tokens were taken back in the middle of a run.
#[track_caller]
fn check_works(simulator: &Running, agent: &Agent) {
    agent.feed(eve::alerts(0..5));
    agent.once().ends(0).says("5 tickets created");
    simulator.add_fault("revoke-token:after=2,count=1,path=/api".parse().unwrap());
    agent.feed(eve::alerts(5..10));
    agent.once().ends(0).says("5 tickets created");
    assert_one_each(simulator, (0..10).map(eve::short));
    assert!(simulator.ledger().iter().all(|entry| !entry.query.contains("canary")));
}

#[test]
fn each_way_works_and_goes_on_when_its_token_is_taken_back() {
    for login in [client_credentials().as_str(), JWT, API_KEY, BASIC] {
        let simulator = instance(None);
        check_works(&simulator, &agent(&simulator, login));
    }
    let simulator = instance(None);
    let ec = agent(&simulator, JWT);
    private(
        &ec.dir().join("jwt.key"),
        &format!("\u{feff}{}", include_str!("../fixtures/tls/jwt-ec-sec1.key")),
    );
    check_works(&simulator, &ec);
}

#[test]
fn tokens_that_end_soon_are_renewed_before_each_call() {
    let simulator =
        simulator_with(Options { token_lifetime: std::time::Duration::ZERO, ..Options::default() });
    let agent = agent(&simulator, JWT);
    agent.feed(eve::alerts(0..3));
    agent.once().ends(75).says("waits: prod");
    assert!(simulator.records("incident").is_empty());
    let simulator = simulator_with(Options {
        token_lifetime: std::time::Duration::from_secs(1),
        faults: vec!["delay=400:path=/api".parse().unwrap()],
        ..Options::default()
    });
    let agent = self::agent(&simulator, JWT);
    agent.feed(eve::alerts(0..5));
    agent.once().ends(0).says("5 tickets created");
    assert_one_each(&simulator, (0..5).map(eve::short));
    assert!(token_requests(&simulator) > 1);
}

/// A CA that signs certificates of clients.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key, as `NAME.pem` and `NAME.key` of the agent.
    fn sign(&self, agent: &Agent, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["relay".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(agent.dir().join(format!("{name}.pem")), certificate.pem()).unwrap();
        private(&agent.dir().join(format!("{name}.key")), &key.serialize_pem());
    }
}

#[test]
fn a_client_certificate_that_was_replaced_is_read_at_the_reload() {
    let (ca, stranger) = (Ca::new("Plant clients"), Ca::new("Stranger"));
    let simulator = instance(Some(ca.pem.clone()));
    let agent = Agent::new(&simulator);
    fs::write(agent.dir().join("ca.pem"), simulator.ca_pem().unwrap()).unwrap();
    stranger.sign(&agent, "own");
    let agent = agent.login(CERTIFICATE);
    let service = agent.start();
    agent.feed(eve::alerts(0..3));
    agent.until_status("all are taken in", |status| status["backlog"] == 3);
    agent.run(&["sync"]).ends(75).says("it refused the client certificate it was shown");
    ca.sign(&agent, "own");
    service.hang_up();
    until("the config is reloaded", || agent.logged().contains("the config was reloaded").then_some(()));
    agent.run(&["sync"]).ends(0).says("3 created");
    assert_one_each(&simulator, (0..3).map(eve::short));
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_client_certificate_logs_in_without_anything_else() {
    let ca = Ca::new("Plant clients");
    let simulator = instance(Some(ca.pem.clone()));
    let agent = Agent::new(&simulator);
    ca.sign(&agent, "own");
    ca.sign(&agent, "other");
    fs::write(agent.dir().join("ca.pem"), simulator.ca_pem().unwrap()).unwrap();
    let agent = agent.login(CERTIFICATE);
    check_works(&simulator, &agent);
    assert_eq!(token_requests(&simulator), 0);
    // A key of another certificate, one that others may read, and none: told before anything is sent.
    let mixed = agent.login(&CERTIFICATE.replace("own.key", "other.key"));
    mixed.run(&["check"]).ends(78).says("does not belong to the certificate");
    let key = mixed.dir().join("other.key");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    mixed.run(&["check"]).ends(78).says("mode 0644");
    let none = mixed.login("auth = \"client-certificate\"");
    none.run(&["check"]).ends(78).says("client_cert_file");
}

#[test]
fn login_keeps_the_refresh_token_and_nothing_else() {
    let password = "canary-password-5e1";
    let simulator = simulator_with(Options {
        password: Secret::new("test", password),
        rotate_refresh: true,
        ..Options::default()
    });
    let agent = agent(&simulator, &refresh_token());
    agent.run(&["check"]).ends(0).says("there is no refresh token yet");
    agent.feed(eve::alerts(0..5));
    agent.once().ends(75).says("there is no refresh token yet");
    agent.run(&["status"]).ends(0).says("otrelay login prod");
    assert_eq!(token_requests(&simulator), 0);
    let kept = agent.state().join("login-prod.json");

    log_in(&agent, "canary-wrong").ends(1).says("could not get a token").says("locked out");
    assert!(!kept.exists());
    log_in(&agent, password).ends(0).says("the password is not kept").says("systemd-creds encrypt");
    let text = || fs::read_to_string(&kept).unwrap();
    assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o7777, 0o600);
    let first = text();
    assert!(first.contains("refresh_token") && !first.contains("canary"), "{first}");

    agent.run(&["sync"]).ends(0).says("5 created");
    assert_ne!(text(), first, "the token that came in its place is kept");
    agent.feed(eve::alerts(5..10));
    agent.once().ends(0);
    assert_one_each(&simulator, (0..10).map(eve::short));
}

#[test]
fn a_refresh_token_of_the_config_works_and_may_be_what_login_kept() {
    let simulator = instance(None);
    let first = agent(&simulator, &refresh_token());
    log_in(&first, "admin").ends(0);
    let kept = fs::read_to_string(first.state().join("login-prod.json")).unwrap();
    let login = format!("{}\nrefresh_token = {{ file = \"DIR/refresh-token\" }}", refresh_token());
    let second = agent(&simulator, &login);
    private(&second.dir().join("refresh-token"), &kept);
    check_works(&simulator, &second);
}

/// What `login` recommends: the token as a credential that only systemd opens. At its end a new log-in needs neither that nor
/// another config, and what it keeps counts more than the older credential.
#[test]
fn a_log_in_goes_before_a_credential_that_only_systemd_can_open() {
    let simulator = instance(None);
    let login = format!("{}\nrefresh_token = {{ credential = \"refresh-token-prod\" }}", refresh_token());
    let agent = agent(&simulator, &login);
    let kept = agent.state().join("login-prod.json");
    let token = || serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&kept).unwrap()).unwrap();
    log_in(&agent, "admin").ends(0);
    // It becomes the credential, and ends.
    let mut old = token();
    old["issued_at"] = (old["issued_at"].as_i64().unwrap() - 90 * 86_400).into();
    let credentials = agent.dir().join("credentials");
    fs::create_dir(&credentials).unwrap();
    private(&credentials.join("refresh-token-prod"), &old.to_string());
    fs::remove_file(&kept).unwrap();
    simulator.revoke_refresh_tokens();
    let once = || {
        let output =
            agent.command(&["run", "--once"]).env("CREDENTIALS_DIRECTORY", &credentials).output().unwrap();
        output.status.code().unwrap()
    };
    agent.feed(eve::alerts(0..5));
    assert_eq!(once(), 75, "it is over");
    log_in(&agent, "admin").ends(0);
    // Each renewal brings the next one, and only that is good: none is passed over.
    let renewed = || {
        let before = token()["refresh_token"].clone();
        assert_eq!(once(), 0);
        let after = token()["refresh_token"].clone();
        assert!(before.is_string() && after.is_string() && before != after);
    };
    renewed();
    renewed();
    assert_one_each(&simulator, (0..5).map(eve::short));
    // The client's secret is needed; where only systemd has it, it is said how.
    let sealed = login.replace("{ file = \"DIR/client-secret\" }", "{ credential = \"servicenow\" }");
    assert_ne!(sealed, login);
    let agent = agent.login(&sealed);
    log_in(&agent, "admin")
        .ends(1)
        .says("systemd-run --pty --property=LoadCredentialEncrypted=servicenow otrelay");
    // There it has that, and not the old token.
    let given = agent.dir().join("given");
    fs::create_dir(&given).unwrap();
    fs::copy(agent.dir().join("client-secret"), given.join("servicenow")).unwrap();
    let mut command = agent.command(&["login", "prod", "--username", "admin", "--password-fd", "0"]);
    let mut child = command
        .env("CREDENTIALS_DIRECTORY", &given)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "admin").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_old_or_revoked_refresh_token_is_told_before_and_after() {
    let simulator = instance(None);
    let agent = agent(&simulator, &refresh_token());
    log_in(&agent, "admin").ends(0);
    let kept = agent.state().join("login-prod.json");
    let mut stored: serde_json::Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
    let now = stored["issued_at"].as_i64().unwrap();
    stored["issued_at"] = (now - 90 * 86_400).into();
    private(&kept, &stored.to_string());
    agent.run(&["status"]).ends(0).says("is 90 days old").says("otrelay login prod");
    let service = agent.start();
    let told = |status: &serde_json::Value| status["health"].to_string().contains("login-grows-old");
    agent.until_status("the age is told", told);
    assert!(
        agent.logged().contains("WARN") && agent.logged().contains("is 90 days old"),
        "{}",
        agent.logged()
    );
    assert_eq!(service.stop(), 0);

    simulator.revoke_refresh_tokens();
    let before = token_requests(&simulator);
    agent.feed(eve::alerts(0..5));
    agent.once().ends(75).says("it refused (status 401 (server_error, access_denied))");
    agent.run(&["status"]).ends(0).says("otrelay login prod");
    assert_eq!(token_requests(&simulator), before + 1, "a refused grant is not hammered");
    // The service hears the same for a minute, but not after a new log-in.
    let service = agent.start();
    agent.run(&["sync"]).says("it refused");
    let asked = token_requests(&simulator);
    agent.run(&["sync"]).says("waits: prod");
    assert_eq!(token_requests(&simulator), asked, "a refused grant is not hammered");
    log_in(&agent, "admin").ends(0);
    agent.run(&["sync"]).ends(0).says("5 created");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_refusal_is_one_request_and_names_what_to_check() {
    let check = |login: &str, words: &str| {
        let simulator = instance(None);
        let agent = agent(&simulator, login);
        agent.secrets("canary-wrong-secret", "canary-wrong-password");
        private(&agent.dir().join("api-key"), "canary-wrong-key");
        agent.feed(eve::alerts(0..5));
        agent.once().ends(75).says("5 waiting");
        agent.run(&["status"]).ends(0).says(words);
        assert!(token_requests(&simulator) <= 1, "{login}");
        assert!(simulator.records("incident").is_empty());
    };
    check(
        &format!(
            "auth = \"password\"\n{CLIENT}\nusername = \"admin\"\npassword = {{ file = \"DIR/password\" }}"
        ),
        "locked out",
    );
    check(&client_credentials(), "OAuth Application User");
    check(&format!("{JWT}\nclient_secret = {{ file = \"DIR/client-secret\" }}"), "JWT verifier");
    check(API_KEY, "access policies");
    check(BASIC, "Web service access only");
}

#[test]
fn an_assertion_of_an_unknown_key_and_a_key_that_is_none_are_told() {
    let simulator = simulator_with(Options {
        jwt_keys: vec![include_str!("../fixtures/tls/jwt-ec.pub.pem").to_owned()],
        ..Options::default()
    });
    let agent = agent(&simulator, JWT);
    agent.feed(eve::alerts(0..2));
    agent.once().ends(75);
    agent.run(&["status"]).ends(0).says("the certificate of this key");
    private(&agent.dir().join("jwt.key"), "canary");
    agent.run(&["check"]).ends(78).says("it holds no private key");
}

#[test]
fn policies_scopes_and_hibernation_are_told_apart() {
    let check = |login: &str, fault: &str, words: &str| {
        let simulator = instance(None);
        simulator.add_fault(fault.parse().unwrap());
        let agent = agent(&simulator, login);
        agent.feed(eve::alerts(0..5));
        agent.once().ends(75).says("5 waiting");
        agent.run(&["status"]).ends(0).says(words);
        let calls = simulator.ledger();
        // A token; the build and the tickets, each once more with a fresh one.
        assert!(calls.len() <= 7, "after {fault}: {calls:#?}");
        simulator.clear_faults();
        agent.run(&["sync"]).ends(0).says("5 created");
    };
    check(API_KEY, "status=401:path=/api", "each API and each method needs a policy");
    check(&client_credentials(), "status=401:path=/api", "REST API access policies");
    check(&client_credentials(), "unscoped:path=/api", "not the user's roles but the OAuth registry record");
    check(JWT, "hibernate:path=/oauth", "hibernating");
    check(JWT, "html-login:path=/oauth", "web page instead of JSON");
}

/// A block page at the token endpoint that quotes the form, in several forms: nothing of it is shown or kept.
#[test]
fn a_page_that_quotes_the_form_is_not_quoted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, mut stream) in listener.incoming().flatten().enumerate() {
            let mut chunk = [0; 8192];
            let n = stream.read(&mut chunk).unwrap_or(0);
            let asked = String::from_utf8_lossy(&chunk[..n]).into_owned();
            let form = asked.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
            let (kind, status, body) = match number % 3 {
                0 => ("text/html", 200, format!("<title>{form} canary-secret</title>")),
                1 => (
                    "application/json",
                    401,
                    "{\"error\":\"canary_secret\",\"error_description\":\"access_denied\"}".to_owned(),
                ),
                _ => ("text/plain", 403, form),
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let agent = Agent::at(&url);
    agent.secrets("canary-secret", "Canary_pass &+word");
    agent.feed(eve::alerts(0..2));
    for _ in 0..3 {
        let said = agent.run(&["sync", "--verbose"]);
        let status = agent.run(&["status", "--json"]);
        for text in [agent.once().err, said.out, said.err, status.out] {
            assert!(!text.to_lowercase().contains("canary"), "{text}");
        }
    }
    for entry in fs::read_dir(agent.state()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).to_lowercase().contains("canary"));
    }
}

#[test]
fn login_says_what_it_cannot_do() {
    let simulator = instance(None);
    let agent = agent(&simulator, BASIC);
    agent
        .run(&["login", "prod", "--username", "x", "--password-fd", "0"])
        .ends(1)
        .says("needs no such log-in");
    let agent = agent.login(&refresh_token());
    agent.run(&["login", "other"]).ends(1).says("there is no destination `other`; known: prod");
    agent.run(&["login", "prod", "--password-fd", "0"]).ends(1).says("--password-fd needs --username");
    agent.run(&["login", "--username", "x", "--password-fd", "0"]).ends(1).says("no password");
    agent.run(&["login", "--username", "x", "--password-fd", "77"]).ends(1).says("/proc/self/fd/77");
    assert_eq!(token_requests(&simulator), 0);
}
