//! Who the service is on this machine, for whoever checks its config: the user and the groups that the unit gives it, its
//! credentials, what it may read and write. So root and the service's user hear the same from `otrelay check`, and root
//! works beside a stopped service with the credentials of the unit.
//!
//! Looks at files of the machine only, asks no systemd, and judges only the service's own config: with `--config` of
//! another file it is whoever runs the command who counts.

mod access;
mod rights;
mod unit;

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use self::access::{Blocked, Names, Person};
pub use self::rights::Rights;
pub(super) use self::unit::Given;
use self::unit::Unit;
use super::load::DEFAULT_PATH;
use super::problem::{At, Level, Problem, Problems, quote};
use super::{Environment, Purpose};
use crate::model::SecretString;

/// Users that a machine has at least, to be told apart.
const USERS_LEAST: u64 = 1 << 16;

/// The service as the machine's files describe it.
#[derive(Clone, Debug)]
pub struct Service {
    unit: Unit,
    names: Names,
    person: Option<Person>,
    /// The config that the unit runs with.
    config: PathBuf,
}

impl Service {
    /// What the unit below `root` says, with the users of there; `None` where there is no unit. `root` is `/`, or the
    /// beginning of another tree in tests. `None` too inside of the service's own sandbox (`PrivateUsers=`): all but root
    /// and itself are nobody there, so nobody could be judged, and trying is as good.
    pub fn find(root: &Path) -> Option<Self> {
        if !std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| tells_users_apart(&map)) {
            return None;
        }
        let unit = Unit::read(root)?;
        let names = Names::read(root);
        let person = Self::person_of(&unit, &names, None);
        let variable = unit.variables.get("OTRELAY_CONFIG").map(|path| {
            use crate::model::secret::ExposeSecret as _;
            PathBuf::from(path.expose_secret())
        });
        let default = root.join(DEFAULT_PATH.trim_start_matches('/'));
        let config = unit.config.clone().or(variable).unwrap_or(default);
        Some(Self { unit, names, person, config })
    }

    /// Who the service is, without what one of the files gives it.
    fn person_of(unit: &Unit, names: &Names, without: Option<&Path>) -> Option<Person> {
        let counting = unit.groups.iter().filter(|(_, by)| Some(by.as_path()) != without);
        let more: Vec<u32> = counting.filter_map(|(name, _)| names.group(name)).collect();
        let own = unit.group.as_deref().and_then(|name| names.group(name));
        let user = if unit.user.is_empty() { "root" } else { &unit.user };
        names.person(user, own, &more)
    }

    /// The user that the unit names.
    pub fn user(&self) -> &str {
        &self.unit.user
    }

    /// Whether this is the config that it runs with.
    pub fn runs_with(&self, config: Option<&Path>) -> bool {
        config.unwrap_or_else(|| Path::new(DEFAULT_PATH)) == self.config
    }

    /// Its number, where the user exists.
    pub(super) fn uid(&self) -> Option<u32> {
        self.person.as_ref().map(|person| person.uid)
    }

    /// Why it cannot read this file or list this directory, in words, with what mends it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn reads(&self, path: &Path) -> Result<(), Barred> {
        if let Some(setting) = self.unit.hides(path) {
            return Err(Barred {
                words: format!("the service does not see it: the unit hides this place ({setting})"),
                remedy: "move it to where the service may read, such as /etc/otrelay or /var/log".to_owned(),
            });
        }
        let Some(person) = &self.person else { return Ok(()) };
        access::may(person, path, Access::READ_OK).map_err(|blocked| self.words(&blocked, "read it"))
    }

    /// Why it cannot make files in this directory.
    ///
    /// # Errors
    /// When it cannot.
    pub fn writes(&self, dir: &Path) -> Result<(), Barred> {
        let shown = dir.display();
        if !self.unit.lets_write(dir) || self.unit.hides(dir).is_some() {
            return Err(Barred {
                words: "the service cannot write there: its unit leaves it /var/lib/otrelay alone".to_owned(),
                remedy: format!(
                    "systemctl edit otrelay: [Service] and ReadWritePaths={shown}; or leave state_dir out"
                ),
            });
        }
        let Some(person) = &self.person else { return Ok(()) };
        let may = access::may(person, dir, Access::READ_OK | Access::WRITE_OK);
        may.map_err(|blocked| Barred {
            remedy: format!("chown {0}:{0} {shown} && chmod 0700 {shown}", self.user()),
            ..self.words(&blocked, "write there")
        })
    }

    /// The groups that let it read this file, where nothing else is in the way; none where it may already. What the file
    /// `own` gives it does not count: that file is about to be written anew.
    pub fn groups_for(&self, path: &Path, own: &Path) -> Vec<String> {
        let Some(mut person) = Self::person_of(&self.unit, &self.names, Some(own)) else { return Vec::new() };
        let mut groups = Vec::new();
        while let Err(blocked) = access::may(&person, path, Access::READ_OK) {
            // Root's own group would open more than the sensor's files.
            if blocked.stat.gid == 0 || !person.groups.insert(blocked.stat.gid) {
                return Vec::new();
            }
            groups.push(self.names.group_name(blocked.stat.gid));
        }
        groups
    }

    /// The numbers of its user and of that user's group.
    pub fn owner(&self) -> Option<(u32, u32)> {
        let gid = self.unit.group.as_deref().and_then(|name| self.names.group(name));
        self.person
            .as_ref()
            .and_then(|person| Some((person.uid, gid.or_else(|| person.groups.first().copied())?)))
    }

    fn words(&self, blocked: &Blocked, what: &str) -> Barred {
        let (at, owner, user) = (blocked.at.display(), self.names.owner(&blocked.stat), self.user());
        let group = self.names.group_name(blocked.stat.gid);
        let words = if blocked.on_the_way {
            format!("the service (user {user}) does not get there: {at} is {owner}")
        } else {
            format!("the service (user {user}) may not {what}: {at} is {owner}")
        };
        let wanted = if blocked.on_the_way || blocked.at.is_dir() { 0o010 } else { 0o040 };
        let ours = blocked.at.starts_with(self.config.parent().unwrap_or_else(|| Path::new("/etc/otrelay")));
        let remedy = if ours {
            let mode = if wanted == 0o010 { "0750" } else { "0640" };
            format!("chown root:{user} {at} && chmod {mode} {at}")
        } else if blocked.stat.mode & wanted != 0 && blocked.stat.gid != 0 {
            format!(
                "usermod -aG {group} {user} && systemctl restart otrelay; or the drop-in sensor-log-group.conf"
            )
        } else {
            format!(
                "give it a group that may read it, and that group to {user}: chmod g+rX {at}, usermod -aG"
            )
        };
        Barred { words, remedy }
    }

    /// How it gets this credential.
    pub(super) fn credential(&self, name: &str) -> Result<Given, Problem> {
        self.unit.given(name).ok_or_else(|| {
            let level = if self.unit.partly { Level::Warning } else { Level::Error };
            let message = format!("the unit gives the service no credential {}", quote(name));
            Problem::new(level, "", message).hint(format!(
                "put the secret into /etc/otrelay/secrets/{name}, and LoadCredential={name}:/etc/otrelay/secrets/{name} \
                 into a drop-in (systemctl edit otrelay); or let otrelay init do it"
            ))
        })
    }

    /// A variable that the unit sets.
    pub(super) fn variable(&self, name: &str) -> Option<&SecretString> {
        self.unit.variables.get(name)
    }

    /// What of the unit and its surroundings keeps the service from starting, whatever the config says.
    pub(super) fn problems(&self, problems: &mut Problems) {
        let (user, file) = (self.user(), self.unit.file.display());
        let mut say =
            |level, message: String, hint: &str| problems.push(Problem::new(level, "", message).hint(hint));
        if self.unit.masked {
            say(
                Level::Error,
                format!("{file} is masked: the service cannot start"),
                "systemctl unmask otrelay",
            );
            return;
        }
        if self.person.is_none() {
            let message =
                format!("{file}: the user {user} is not in /etc/passwd; what it may read cannot be told");
            say(Level::Warning, message, "systemd-sysusers makes the user of the package");
        }
        for (name, file) in &self.unit.groups {
            if self.names.group(name).is_none() {
                let message = format!(
                    "{}: there is no group {} in /etc/group, and systemd then starts nothing",
                    file.display(),
                    quote(name)
                );
                say(Level::Warning, message, "name the group of the sensor's files: stat -c %G FILE");
            }
        }
        for (name, (given, by)) in &self.unit.credentials {
            let Given::File(path) = given else { continue };
            if std::fs::metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
                let message = format!(
                    "{}: credential {}: {} is not there, and systemd then starts nothing",
                    by.display(),
                    quote(name),
                    path.display()
                );
                say(Level::Error, message, "put the secret into it (mode 0600), or take the line away");
            }
        }
    }
}

/// Whether a table of `user_namespaces(7)` has all users of a machine in it.
fn tells_users_apart(map: &str) -> bool {
    let length = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
    map.lines().filter_map(length).sum::<u64>() >= USERS_LEAST
}

/// What keeps the service from a file, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barred {
    /// Who may not do what, and why.
    pub words: String,
    /// What to do.
    pub remedy: String,
}

/// What bars the service from a file of its config, where that is checked.
pub(super) fn barred(path: &Path, environment: &Environment, purpose: Purpose) -> Option<Problem> {
    let service = environment.judged().filter(|_| purpose == Purpose::Check)?;
    let barred = service.reads(path).err()?;
    Some(Problem::new(Level::Error, "", format!("{}: {}", path.display(), barred.words)).hint(barred.remedy))
}

/// Says so when the service cannot read a file of its config.
pub(super) fn look(
    path: &Path,
    at: &At,
    environment: &Environment,
    purpose: Purpose,
    problems: &mut Problems,
) {
    if let Some(problem) = barred(path, environment, purpose) {
        problems.push(problem.at(at));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::super::{ConfigError, Loaded, load};
    use super::*;

    /// A machine with the shipped unit, whose user is nobody that runs tests, below a directory.
    struct Machine(tempfile::TempDir);

    const UID: u32 = 64_001;
    const SHIPPED: &str = include_str!("../../../systemd/otrelay.service");

    impl Machine {
        fn new() -> Self {
            let this = Self(tempfile::tempdir().unwrap());
            std::fs::set_permissions(this.0.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            let gid = std::fs::metadata(this.0.path()).unwrap().gid();
            // The temporary directory of the tests must not be hidden by the unit that is tested.
            let unit = SHIPPED.replace("PrivateTmp=yes", "");
            this.write("usr/lib/systemd/system/otrelay.service", &unit, 0o644);
            this.write("etc/passwd", &format!("root:x:0:0::/:/x\notrelay:x:{UID}:{UID}::/:/x\n"), 0o644);
            this.write(
                "etc/group",
                &format!("root:x:0:\notrelay:x:{UID}:\nsensor:x:{}:\n", gid.max(1)),
                0o644,
            );
            this.write("etc/otrelay/secrets/password", "canary", 0o640);
            this.config("password = { file = \"DIR/etc/otrelay/secrets/password\" }");
            this
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, text: &str, mode: u32) {
            let path = self.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text.replace("DIR", self.0.path().to_str().unwrap())).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn config(&self, password: &str) {
            let text = format!(
                "[agent]\nid = \"x\"\nname = \"x\"\nstate_dir = \"/var/lib/otrelay\"\n[servicenow.prod]\ninstance = \
                 \"http://127.0.0.1:1\"\nauth = \"basic\"\nusername = \"u\"\n{password}\n[[source]]\nname = \"eve\"\nkind = \
                 \"suricata-eve\"\npath = \"DIR/log/eve.json\"\n[[rule]]\nname = \"all\"\n[[rule.action]]\n"
            );
            self.write("etc/otrelay/otrelay.toml", &text, 0o644);
        }

        fn drop_in(&self, text: &str) {
            self.write("etc/systemd/system/otrelay.service.d/x.conf", &format!("[Service]\n{text}\n"), 0o644);
        }

        fn environment(&self) -> Environment {
            let config = self.path("etc/otrelay/otrelay.toml");
            Environment::new(|_| None).with_config(Some(config)).beside(Service::find(self.0.path()))
        }

        fn load(&self, purpose: Purpose) -> Result<Loaded, ConfigError> {
            load(&self.environment(), purpose, |_, _| Ok(()))
        }

        /// What is wrong, as text.
        fn said(&self) -> String {
            match self.load(Purpose::Check) {
                Ok(loaded) => {
                    let environment = self.environment();
                    let around = super::super::look_around(&loaded.config, environment.judged());
                    loaded
                        .warnings
                        .iter()
                        .chain(&around)
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("\n")
                }
                Err(error) => format!("refused: {error}"),
            }
        }

        #[track_caller]
        fn says(&self, words: &[&str]) {
            let said = self.said();
            for word in words {
                assert!(said.contains(word), "no `{word}` in {said}");
            }
            assert!(!said.contains("canary"), "{said}");
        }
    }

    #[test]
    fn a_secret_that_only_who_checks_can_read_is_refused_and_one_of_the_services_group_is_not() {
        let machine = Machine::new();
        let secret = machine.path("etc/otrelay/secrets/password");
        let set = |mode| std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o600);
        machine.says(&["refused", "the service (user otrelay) may not read it", "0600", "&& chmod 0640"]);
        // By its group: the checker's own stands for root:otrelay.
        set(0o640);
        machine.drop_in(&format!("SupplementaryGroups={}", std::fs::metadata(&secret).unwrap().gid()));
        assert!(!machine.said().contains("refused"), "{}", machine.said());
        // The directory bars the way.
        let dir = machine.path("etc/otrelay/secrets");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        machine.says(&["refused", "does not get there", "secrets is"]);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_config_itself_has_to_be_readable_for_the_service() {
        let machine = Machine::new();
        let config = machine.path("etc/otrelay/otrelay.toml");
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        machine.says(&["refused", "otrelay.toml: the service (user otrelay) may not read it"]);
        // Another config is nobody's but who asks for it.
        let other = machine.path("other.toml");
        std::fs::copy(&config, &other).unwrap();
        let environment = machine.environment().with_config(Some(other));
        assert!(load(&environment, Purpose::Check, |_, _| Ok(())).is_ok());
    }

    #[test]
    fn credentials_are_those_of_the_unit() {
        let machine = Machine::new();
        machine.config("password = { credential = \"pw\" }");
        machine.says(&["refused", "the unit gives the service no credential pw", "LoadCredential=pw:"]);
        machine.drop_in("LoadCredential=pw:DIR/etc/otrelay/secrets/none");
        machine.says(&[
            "refused",
            "credential pw",
            "x.conf",
            "is not there, and systemd then starts nothing",
        ]);
        machine.write("etc/otrelay/secrets/pw", "canary\n", 0o600);
        machine.drop_in("LoadCredential=pw:DIR/etc/otrelay/secrets/pw");
        assert!(!machine.said().contains("refused"), "{}", machine.said());
        // Root beside a stopped service has them too.
        let loaded = machine.load(Purpose::Run).unwrap();
        let crate::servicenow::Auth::Basic(basic) = &loaded.config.destinations[0].auth else { panic!() };
        assert_eq!(basic.password.expose(), "canary");
        machine.drop_in("LoadCredentialEncrypted=pw:DIR/etc/otrelay/secrets/pw.cred");
        assert!(!machine.said().contains("refused"), "{}", machine.said());
        let error = machine.load(Purpose::Run).unwrap_err().to_string();
        assert!(
            error.contains("only systemd can open credential pw") && error.contains("systemctl start"),
            "{error}"
        );
        // One that nothing uses stops the start all the same.
        machine.config("password = { file = \"DIR/etc/otrelay/secrets/password\" }");
        machine.drop_in("SupplementaryGroups=sensor nosuch\nLoadCredential=other:/nonexistent/x");
        machine.says(&["credential other: /nonexistent/x is not there", "there is no group nosuch"]);
    }

    #[test]
    fn variables_of_the_unit_count_and_its_hidden_places_too() {
        let machine = Machine::new();
        machine.config("password = { env = \"PW\" }");
        machine.says(&["refused", "PW is not set"]);
        machine.drop_in("Environment=PW=canary");
        assert!(!machine.said().contains("refused"), "{}", machine.said());
        let service = Service::find(machine.0.path()).unwrap();
        let barred = service.reads(Path::new("/home/x/eve.json")).unwrap_err();
        assert!(barred.words.contains("ProtectHome="), "{barred:?}");
        let barred = service.writes(Path::new("/data/otrelay")).unwrap_err();
        assert!(barred.remedy.contains("ReadWritePaths=/data/otrelay"), "{barred:?}");
    }

    #[test]
    fn a_sensors_file_is_judged_by_the_services_groups() {
        let machine = Machine::new();
        machine.write("log/eve.json", "", 0o640);
        let gid = std::fs::metadata(machine.path("log/eve.json")).unwrap().gid();
        machine.config("password = { env = \"PW\" }");
        machine.drop_in(&format!("Environment=PW=canary\nSupplementaryGroups={gid}"));
        assert!(!machine.said().contains("eve.json"), "{}", machine.said());
        machine.drop_in("Environment=PW=canary");
        machine.says(&["eve.json cannot be read: the service (user otrelay) may not read it", "0640"]);
        let log = machine.path("log");
        std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o711)).unwrap();
        std::fs::remove_file(machine.path("log/eve.json")).unwrap();
        machine.says(&["the service (user otrelay) may not read it", "0711"]);
    }

    #[test]
    fn the_groups_that_are_lacking_are_named_whatever_the_drop_in_that_is_replaced_gave() {
        let machine = Machine::new();
        machine.write("log/eve.json", "", 0o640);
        let gid = std::fs::metadata(machine.path("log/eve.json")).unwrap().gid();
        let of = |own: &str| {
            let service = Service::find(machine.0.path()).unwrap();
            service.groups_for(&machine.path("log/eve.json"), &machine.path(own))
        };
        let drop_in = "etc/systemd/system/otrelay.service.d/x.conf";
        // Root's own group is nothing to be given away.
        let lacking: &[String] = if gid == 0 { &[] } else { &["sensor".to_owned()] };
        assert_eq!(of(drop_in), lacking);
        machine.drop_in(&format!("SupplementaryGroups={gid}"));
        assert_eq!(of("elsewhere.conf"), [""; 0]);
        assert_eq!(of(drop_in), lacking);
        std::fs::set_permissions(machine.path("log/eve.json"), std::fs::Permissions::from_mode(0o600))
            .unwrap();
        assert_eq!(of(drop_in), [""; 0]);
    }

    #[test]
    fn in_a_sandbox_of_few_users_nobody_is_judged() {
        assert!(tells_users_apart("         0          0 4294967295\n"));
        assert!(tells_users_apart("0 100000 65536\n"));
        assert!(!tells_users_apart("         0          0          1\n       999        999          1\n"));
        assert!(!tells_users_apart("") && !tells_users_apart("0 0 x\n0\n"));
    }

    #[test]
    fn a_unit_that_cannot_start_is_named() {
        let machine = Machine::new();
        machine.write("etc/passwd", "root:x:0:0::/:/x\n", 0o644);
        machine.says(&["the user otrelay is not in /etc/passwd"]);
        machine.write("etc/systemd/system/otrelay.service", "", 0o644);
        machine.says(&["is masked", "systemctl unmask otrelay"]);
    }
}
