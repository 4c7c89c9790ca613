//! What systemd will make of the unit `otrelay.service`: user, groups, credentials, variables and what it may see, from
//! the unit and its drop-ins as they lie in the directories of systemd.unit(5). Only what concerns a config is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::model::SecretString;

/// The unit of the packages.
const NAME: &str = "otrelay.service";
/// Where units are, what counts most first.
const DIRS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// Where systemd looks for a credential that has no path.
const STORES: [&str; 4] = ["etc/credstore", "run/credstore", "usr/local/lib/credstore", "usr/lib/credstore"];
/// Largest file that is read, in bytes, and most drop-ins.
const FILE_MAX: u64 = 1 << 20;
const DROP_INS_MAX: usize = 200;

/// How a credential gets to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Given {
    /// As the text of this file.
    File(PathBuf),
    /// Only systemd can say: it is encrypted, written in the unit, or comes from elsewhere.
    Systemd,
}

/// The unit, as far as a config depends on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    /// The file of the unit itself, and whether it is masked.
    pub(super) file: PathBuf,
    pub(super) masked: bool,
    /// A drop-in could not be read, so something may stand in there.
    pub(super) partly: bool,
    pub(super) user: String,
    pub(super) group: Option<String>,
    pub(super) groups: Vec<(String, PathBuf)>,
    /// By name: how, and which file says so.
    pub(super) credentials: BTreeMap<String, (Given, PathBuf)>,
    /// `ImportCredential=`: how names may begin.
    imported: Vec<String>,
    pub(super) variables: BTreeMap<String, SecretString>,
    pub(super) config: Option<PathBuf>,
    /// Settings that hide something.
    hiding: BTreeSet<&'static str>,
    strict: bool,
    writable: Vec<PathBuf>,
}

impl Unit {
    /// `None` where there is no such unit.
    pub(super) fn read(root: &Path) -> Option<Self> {
        let dirs: Vec<PathBuf> = DIRS.iter().map(|dir| root.join(dir)).collect();
        let file = dirs.iter().map(|dir| dir.join(NAME)).find(|file| file.symlink_metadata().is_ok())?;
        let text = text_of(&file)?;
        let mut unit = Self { masked: text.trim().is_empty(), file: file.clone(), ..Self::default() };
        unit.take(&text, &file, root);
        for drop_in in drop_ins(&dirs) {
            match text_of(&drop_in) {
                Some(text) => unit.take(&text, &drop_in, root),
                None => unit.partly = true,
            }
        }
        Some(unit)
    }

    fn take(&mut self, text: &str, file: &Path, root: &Path) {
        let mut section = String::new();
        for line in logical_lines(text) {
            if line.starts_with('[') {
                section = line;
            } else if let (true, Some((key, value))) = (section == "[Service]", line.split_once('=')) {
                self.set(key.trim(), value.trim(), file, root);
            }
        }
    }

    fn set(&mut self, key: &str, value: &str, file: &Path, root: &Path) {
        let words = || value.split_whitespace();
        match key {
            "User" => value.clone_into(&mut self.user),
            "Group" => self.group = Some(value.to_owned()).filter(|group| !group.is_empty()),
            "SupplementaryGroups" if value.is_empty() => self.groups.clear(),
            "SupplementaryGroups" => {
                self.groups.extend(words().map(|name| (name.to_owned(), file.to_owned())));
            }
            "LoadCredential" | "LoadCredentialEncrypted" | "SetCredential" | "SetCredentialEncrypted" => {
                self.credential(key, value, file, root);
            }
            "ImportCredential" if value.is_empty() => self.imported.clear(),
            "ImportCredential" => {
                let name = value.rsplit(':').next().unwrap_or(value);
                self.imported.push(name.trim_end_matches('*').to_owned());
            }
            "Environment" if value.is_empty() => self.variables.clear(),
            "Environment" => {
                self.variables.extend(quoted_words(value).iter().filter_map(|word| assignment(word)));
            }
            "EnvironmentFile" => {
                let path = value.trim_start_matches('-');
                let text = Path::new(path)
                    .is_absolute()
                    .then(|| text_of(Path::new(path)))
                    .flatten()
                    .unwrap_or_default();
                let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
                self.variables.extend(lines.filter_map(|line| assignment(&quoted_words(line).join(" "))));
            }
            "ExecStart" if !value.is_empty() => self.config = config_of(value),
            "ProtectHome" => self.hide("ProtectHome=", is_true(value) || value == "tmpfs"),
            "PrivateTmp" => self.hide("PrivateTmp=", is_true(value) || value == "disconnected"),
            "ProtectSystem" => self.strict = value == "strict",
            "StateDirectory" => {
                self.writable.extend(
                    words().map(|name| Path::new("/var/lib").join(name.split(':').next().unwrap_or(name))),
                );
            }
            "ReadWritePaths" => {
                self.writable.extend(words().map(|path| PathBuf::from(path.trim_start_matches(['-', '+']))));
            }
            _ => {}
        }
    }

    fn hide(&mut self, setting: &'static str, on: bool) {
        if on {
            self.hiding.insert(setting);
        } else {
            self.hiding.remove(setting);
        }
    }

    fn credential(&mut self, key: &str, value: &str, file: &Path, root: &Path) {
        if value.is_empty() {
            self.credentials.clear();
            return;
        }
        let (name, path) = value.split_once(':').map_or((value, None), |(name, path)| (name, Some(path)));
        let given = match (key, path) {
            ("LoadCredential", Some(path)) if path.starts_with('/') && !path.contains('%') => {
                Given::File(path.into())
            }
            ("LoadCredential", None) => {
                let stored = STORES.iter().map(|dir| root.join(dir).join(name)).find(|file| file.is_file());
                stored.map_or(Given::Systemd, Given::File)
            }
            _ => Given::Systemd,
        };
        self.credentials.insert(name.to_owned(), (given, file.to_owned()));
    }

    /// How the service gets this credential; `None`: not at all.
    pub(super) fn given(&self, name: &str) -> Option<Given> {
        let imported = || self.imported.iter().any(|begin| name.starts_with(begin)).then_some(Given::Systemd);
        self.credentials.get(name).map(|(given, _)| given.clone()).or_else(imported)
    }

    /// Why the service does not see what is there: the setting that hides it.
    pub(super) fn hides(&self, path: &Path) -> Option<&'static str> {
        let places =
            [("ProtectHome=", &["/home", "/root", "/run/user"][..]), ("PrivateTmp=", &["/tmp", "/var/tmp"])];
        let mut hiding = places.into_iter().filter(|(setting, _)| self.hiding.contains(setting));
        hiding.find(|(_, dirs)| dirs.iter().any(|dir| path.starts_with(dir))).map(|(setting, _)| setting)
    }

    /// Whether what the unit leaves writable has this directory in it.
    pub(super) fn lets_write(&self, dir: &Path) -> bool {
        !self.strict || self.writable.iter().any(|open| dir.starts_with(open))
    }
}

/// The drop-ins that count, in their order: of those with one name the first directory's; of a name that leads to
/// nothing, none.
fn drop_ins(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut by_name: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for dir in dirs.iter().flat_map(|dir| [dir.join(format!("{NAME}.d")), dir.join("service.d")]) {
        // /lib is a link to /usr/lib nowadays.
        if !seen.insert(dir.canonicalize().unwrap_or_else(|_| dir.clone())) {
            continue;
        }
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten().take(DROP_INS_MAX) {
            if entry.path().extension().is_some_and(|end| end == "conf") {
                by_name.entry(entry.file_name()).or_insert_with(|| entry.path());
            }
        }
    }
    by_name.into_values().collect()
}

fn text_of(file: &Path) -> Option<String> {
    // Not blocking: a pipe in the place of the file must not stop the check.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::File::options().read(true).custom_flags(nonblock).open(file).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() {
        return Some(String::new());
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lines without comments, continued ones put together.
fn logical_lines(text: &str) -> Vec<String> {
    let (mut lines, mut begun) = (Vec::new(), String::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        begun.push_str(line.trim_end_matches('\\'));
        if line.ends_with('\\') {
            begun.push(' ');
        } else if !begun.is_empty() {
            lines.push(std::mem::take(&mut begun));
        }
    }
    lines.extend(Some(begun).filter(|rest| !rest.is_empty()));
    lines
}

/// Words as systemd splits them: quotes keep spaces.
fn quoted_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in text.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, c) if c.is_whitespace() => {
                words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()));
            }
            (_, c) => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

fn assignment(word: &str) -> Option<(String, SecretString)> {
    let (name, value) = word.split_once('=')?;
    Some((name.to_owned(), value.to_owned().into()))
}

/// `--config FILE` of a command line.
fn config_of(line: &str) -> Option<PathBuf> {
    let words = quoted_words(line);
    let at = words.iter().position(|word| word == "--config" || word.starts_with("--config="))?;
    let path = words[at].strip_prefix("--config=").or_else(|| words.get(at + 1).map(String::as_str));
    path.map(PathBuf::from)
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "yes" | "true" | "on" | "1" | "y" | "t")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::ExposeSecret as _;

    fn written(files: &[(&str, &str)]) -> (tempfile::TempDir, Option<Unit>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let unit = Unit::read(dir.path());
        (dir, unit)
    }

    const SHIPPED: &str = include_str!("../../../systemd/otrelay.service");

    #[test]
    fn the_shipped_unit_is_understood() {
        let (_dir, unit) = written(&[("usr/lib/systemd/system/otrelay.service", SHIPPED)]);
        let unit = unit.unwrap();
        assert_eq!((unit.user.as_str(), unit.group.as_deref()), ("otrelay", Some("otrelay")));
        assert!(unit.credentials.is_empty() && !unit.masked && unit.config.is_none());
        let hides = |path: &str| unit.hides(Path::new(path));
        assert_eq!(
            (hides("/home/x"), hides("/tmp/x"), hides("/var/log/x")),
            (Some("ProtectHome="), Some("PrivateTmp="), None)
        );
        let lets = |path: &str| unit.lets_write(Path::new(path));
        assert!(lets("/var/lib/otrelay") && !lets("/data/otrelay") && !lets("/var/lib/otrelay2"));
    }

    #[test]
    fn drop_ins_are_laid_over_it_by_name() {
        let own = "etc/systemd/system/otrelay.service.d";
        let (_dir, unit) = written(&[
            ("lib/systemd/system/otrelay.service", SHIPPED),
            (
                &format!("{own}/a.conf"),
                "[Service]\n# LoadCredential=no:/no\nLoadCredential=one:/etc/one\nSupplementaryGroups=adm \\\n  suricata\n\
                 LoadCredentialEncrypted=two:/etc/two.cred\n[Unit]\nUser=nobody\n",
            ),
            (
                &format!("{own}/b.conf"),
                "[Service]\nEnvironment=\"A=b c\" D=e\nSetCredential=three:text\nReadWritePaths=-/data\n",
            ),
            ("usr/lib/systemd/system/otrelay.service.d/b.conf", "[Service]\nUser=shadowed\n"),
            (
                "run/systemd/system/otrelay.service.d/c.conf",
                "[Service]\nExecStart=\nExecStart=/x run --config=/etc/other.toml\n",
            ),
            (&format!("{own}/notes.txt"), "[Service]\nUser=ignored\n"),
        ]);
        let unit = unit.unwrap();
        assert_eq!(unit.user, "otrelay");
        assert_eq!(unit.given("one"), Some(Given::File("/etc/one".into())));
        assert_eq!(
            (unit.given("two"), unit.given("three"), unit.given("no")),
            (Some(Given::Systemd), Some(Given::Systemd), None)
        );
        let groups: Vec<&str> = unit.groups.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(groups, ["adm", "suricata"]);
        assert_eq!(unit.variables["A"].expose_secret(), "b c");
        assert_eq!(unit.config, Some("/etc/other.toml".into()));
        assert!(unit.lets_write(Path::new("/data/x")));
    }

    #[test]
    fn empty_values_take_back_and_nonsense_is_passed_over() {
        let (_dir, unit) = written(&[(
            "etc/systemd/system/otrelay.service",
            "LoadCredential=x:/y\n[Service]\nLoadCredential=a:/b\nLoadCredential=\nSupplementaryGroups=g\nSupplementaryGroups=\n\
             LoadCredential=rel:b\nLoadCredential=spec:%d/x\nLoadCredential=bare\nImportCredential=otrelay.*\n=\n[\n\\",
        )]);
        let unit = unit.unwrap();
        assert!(unit.groups.is_empty() && unit.given("a").is_none() && unit.given("x").is_none());
        for name in ["rel", "spec", "bare", "otrelay.token"] {
            assert_eq!(unit.given(name), Some(Given::Systemd), "{name}");
        }
        assert!(Unit::read(Path::new("/nonexistent")).is_none());
        let (_dir, masked) = written(&[("etc/systemd/system/otrelay.service", "")]);
        assert!(masked.unwrap().masked);
    }
}
