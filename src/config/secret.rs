//! Fetches secrets from where the config says they are: a systemd credential, a file, a variable, the config itself.
//!
//! A secret file must not be readable by everyone or writable by a group: whoever can change it chooses whom otrelay
//! logs in as. Nothing of a secret's text goes into a problem.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::problem::{At, Level, Problem, Problems};
use super::service::{self, Given, Service};
use super::values::SecretRef;
use super::{Environment, Purpose};
use crate::model::Secret;
use crate::model::secret::ExposeSecret as _;

/// Said of a secret that stands in the config.
pub(super) const INLINE: &str = "the secret itself is written in the config";
/// Longest secret, in bytes.
const MAX: u64 = 64 * 1024;

/// Fetches one; `None` when it cannot be used and a problem says why.
pub(super) fn fetch(
    secret: &SecretRef,
    at: &At,
    environment: &Environment,
    purpose: Purpose,
    problems: &mut Problems,
) -> Option<Secret> {
    let origin = origin(secret);
    if purpose == Purpose::Show {
        return Some(Secret::new(origin, ""));
    }
    let text = match secret {
        SecretRef::Bare(text) => {
            problems.warn(at, INLINE, |p| {
                p.hint("move it to a credential or a file: { credential = \"NAME\" } or { file = \"/PATH\" }")
            });
            Ok(text.expose_secret().to_owned())
        }
        SecretRef::Env(name) => variable(name, environment),
        SecretRef::File(path) => match service::barred(Path::new(path), environment, purpose) {
            Some(problem) => Err(problem),
            None => from_file(Path::new(path), Some(environment)),
        },
        SecretRef::Credential(name) => match credential(name, environment, purpose) {
            Ok(Found::At(path)) => from_file(&path, None).map_err(|p| Problem {
                message: format!("{origin}: {}", p.message),
                hint: Some(
                    format!("LoadCredential={name}:/PATH in the unit, or `systemd-creds encrypt`").into(),
                ),
                ..p
            }),
            Ok(Found::Given) => return Some(Secret::new(origin, "")),
            Err(problem) if problem.level == Level::Warning => {
                problems.push(problem.at(at));
                return Some(Secret::new(origin, ""));
            }
            Err(problem) => Err(problem),
        },
    };
    let text =
        text.and_then(|text| {
            let trimmed = text.strip_suffix('\n').unwrap_or(&text);
            let trimmed = trimmed.strip_suffix('\r').unwrap_or(trimmed);
            match trimmed.len() as u64 {
                0 => Err(refuse(format!("the secret is empty ({origin})"))),
                length if length > MAX => Err(refuse(format!("the secret is longer than 64 KiB ({origin})"))
                    .hint("is it the right file?")),
                _ => Ok(trimmed.to_owned()),
            }
        });
    match text {
        Ok(text) => Some(Secret::new(origin, text)),
        Err(problem) => {
            problems.push(problem.at(at));
            None
        }
    }
}

/// Where it is, in words.
pub(super) fn origin(secret: &SecretRef) -> String {
    use super::problem::quote;
    match secret {
        SecretRef::Credential(name) => format!("credential {}", quote(name)),
        SecretRef::File(path) => format!("file {}", quote(path)),
        SecretRef::Env(name) => format!("environment variable {}", quote(name)),
        SecretRef::Bare(_) => "written in the config".to_owned(),
    }
}

fn refuse(message: impl Into<String>) -> Problem {
    Problem::new(Level::Error, "", message)
}

/// A variable of this process, else one that the unit sets for the service whose config this is.
fn variable(name: &str, environment: &Environment) -> Result<String, Problem> {
    let of_unit = || Some(environment.judged()?.variable(name)?.expose_secret().to_owned());
    (environment.variables)(name).or_else(of_unit).ok_or_else(|| {
        refuse(format!("the environment variable {} is not set", super::problem::quote(name)))
            .hint("set it in the service's environment")
    })
}

/// Where a credential is.
enum Found {
    At(PathBuf),
    /// The service gets it, and only the service.
    Given,
}

/// In the directory that systemd made; outside of a unit where the unit says that it is from. A warning: it cannot be
/// known here.
fn credential(name: &str, environment: &Environment, purpose: Purpose) -> Result<Found, Problem> {
    let plain = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !plain {
        return Err(refuse("this is not the name of a credential").expected("A-Z a-z 0-9 _ - ."));
    }
    if let Some(dir) = &environment.credentials_dir {
        let path = dir.join(name);
        let is_given = purpose != Purpose::LogIn || path.exists();
        return Ok(if is_given { Found::At(path) } else { Found::Given });
    }
    let may_lack = matches!(purpose, Purpose::Check | Purpose::LogIn);
    let level = if may_lack { Level::Warning } else { Level::Error };
    let Some(service) = environment.judged() else {
        let message = format!("credential {name} cannot be looked up: CREDENTIALS_DIRECTORY is not set");
        return Err(Problem::new(level, "", message)
            .hint("systemd sets it for the service; by hand use { file = \"/PATH\" }"));
    };
    match service.credential(name)? {
        // Its file is 0600 root: whoever may not look leaves it to systemd.
        Given::File(path) if may_lack && is_barred(&path) => Ok(Found::Given),
        Given::File(path) => Ok(Found::At(path)),
        Given::Systemd if may_lack => Ok(Found::Given),
        Given::Systemd => Err(refuse(format!("only systemd can open credential {name} of the unit"))
            .hint("start the service (systemctl start otrelay): commands then ask it")),
    }
}

fn is_barred(path: &Path) -> bool {
    File::open(path).is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Whether a key file may be used as a secret; `net` reads what is in it.
pub(super) fn key_file(path: &Path, environment: &Environment) -> Result<(), Problem> {
    from_file(path, Some(environment)).map(drop)
}

/// The text of a file; where `trusted` is given, of one that nobody else may read or change.
fn from_file(path: &Path, trusted: Option<&Environment>) -> Result<String, Problem> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(refuse("the path of a secret has to be absolute").found(path.to_string_lossy()));
    }
    // Not blocking: a pipe in the place of the file must not stop the start.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file =
        File::options().read(true).custom_flags(nonblock).open(path).map_err(|e| unreadable(path, &e))?;
    let metadata = file.metadata().map_err(|e| unreadable(path, &e))?;
    if !metadata.is_file() {
        return Err(refuse(format!("{shown} is not a file")));
    }
    if let Some(environment) = trusted {
        may_be_trusted(path, &metadata, environment.judged().and_then(Service::uid))?;
    }
    let mut bytes = Vec::new();
    file.take(MAX + 3).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    // Notepad writes one before the text, and nobody sees it.
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    String::from_utf8(bytes).map_err(|_| {
        let problem = refuse(format!("{shown} is not text in UTF-8"));
        if utf16 {
            problem.hint("it is UTF-16, as some editors of Windows write; save it as UTF-8")
        } else {
            problem
        }
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let problem = refuse(format!("{} cannot be read: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::NotFound => problem.hint("create it, root:otrelay with mode 0640"),
        std::io::ErrorKind::PermissionDenied => {
            problem.hint("it has to be readable by the user that otrelay runs as")
        }
        _ => problem,
    }
}

/// `service` is the user of the service whose config this is, where that may be another one than who runs this.
fn may_be_trusted(path: &Path, metadata: &Metadata, service: Option<u32>) -> Result<(), Problem> {
    let mode = metadata.mode() & 0o7777;
    let own = rustix::process::geteuid().as_raw();
    let shown = path.display();
    if mode & 0o027 != 0 {
        let who = if mode & 0o007 != 0 { "everyone" } else { "a group" };
        let does = if mode & 0o006 == 0o004 { "be read by" } else { "be changed by" };
        return Err(refuse(format!("{shown} has mode {mode:04o}: a secret must not {does} {who}")).hint(
            format!("chmod 0640 {shown}, and chown root:otrelay where the service of the package reads it"),
        ));
    }
    if metadata.uid() != 0 && metadata.uid() != own && Some(metadata.uid()) != service {
        return Err(refuse(format!("{shown} belongs to user {}", metadata.uid()))
            .expected(format!("root or the user that otrelay runs as ({own})"))
            .hint(format!("chown root {shown}, or run this as its owner")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn environment(dir: Option<&Path>, vars: &[(&str, &str)]) -> Environment {
        let vars: BTreeMap<String, String> = vars.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut environment = Environment::new(move |name| vars.get(name).cloned());
        environment.credentials_dir = dir.map(Into::into);
        environment
    }

    fn get(secret: &SecretRef, environment: &Environment, purpose: Purpose) -> Result<Secret, String> {
        let mut problems = Problems::default();
        let at = At::file(Path::new("t.toml"), 0);
        let secret = fetch(secret, &at, environment, purpose, &mut problems);
        secret.ok_or_else(|| problems.sorted()[0].message.clone())
    }

    fn file(dir: &Path, name: &str, text: &[u8], mode: u32) -> SecretRef {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        SecretRef::File(path.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_file_gives_its_text_without_the_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let environment = environment(None, &[]);
        for (text, mode) in
            [("canary", 0o600), ("canary\n", 0o640), ("canary\r\n", 0o400), ("\u{feff}canary\r\n", 0o600)]
        {
            let secret = file(dir.path(), "s", text.as_bytes(), mode);
            assert_eq!(get(&secret, &environment, Purpose::Run).unwrap().expose(), "canary");
            std::fs::remove_file(dir.path().join("s")).unwrap();
        }
    }

    #[test]
    fn files_that_others_may_use_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, why) in [
            (0o644, "be read by everyone"),
            (0o620, "be changed by a group"),
            (0o602, "be changed by everyone"),
            (0o666, "be changed by everyone"),
        ] {
            let secret = file(dir.path(), &format!("{mode:o}"), b"canary", mode);
            let error = get(&secret, &environment(None, &[]), Purpose::Run).unwrap_err();
            assert!(error.contains(why) && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn empty_long_and_binary_secrets_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = vec![b'x'; 64 * 1024 + 1];
        for (text, why) in [(&b"\n"[..], "empty"), (&long, "longer than 64 KiB"), (b"\xff\xfe", "not text")] {
            let secret = file(dir.path(), "s", text, 0o600);
            let error = get(&secret, &environment(None, &[]), Purpose::Run).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let just = file(dir.path(), "s", &long[1..], 0o600);
        assert_eq!(get(&just, &environment(None, &[]), Purpose::Run).unwrap().expose().len(), 64 * 1024);
    }

    #[test]
    fn a_directory_or_nothing_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let environment = environment(None, &[]);
        let of = |path: &Path| SecretRef::File(path.to_str().unwrap().to_owned());
        assert!(get(&of(dir.path()), &environment, Purpose::Run).unwrap_err().contains("is not a file"));
        let missing = get(&of(&dir.path().join("none")), &environment, Purpose::Run).unwrap_err();
        assert!(missing.contains("cannot be read"), "{missing}");
        let relative = get(&SecretRef::File("secret".into()), &environment, Purpose::Run).unwrap_err();
        assert!(relative.contains("absolute"), "{relative}");
    }

    #[test]
    fn credentials_come_from_systemd_whatever_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "token", b"canary\n", 0o444);
        let inside = environment(Some(dir.path()), &[]);
        let token = SecretRef::Credential("token".into());
        let secret = get(&token, &inside, Purpose::Run).unwrap();
        assert_eq!((secret.expose(), secret.origin.as_str()), ("canary", "credential token"));
        for bad in ["../token", "", "a/b", "."] {
            assert!(get(&SecretRef::Credential(bad.into()), &inside, Purpose::Run).is_err(), "{bad}");
        }
        let outside = environment(None, &[]);
        assert!(get(&token, &outside, Purpose::Run).unwrap_err().contains("CREDENTIALS_DIRECTORY"));
        assert!(get(&token, &outside, Purpose::Check).is_ok());
    }

    #[test]
    fn variables_and_bare_texts() {
        let environment = environment(None, &[("PW", "canary"), ("NONE", "")]);
        let of = |name: &str| SecretRef::Env(name.into());
        assert_eq!(get(&of("PW"), &environment, Purpose::Run).unwrap().expose(), "canary");
        assert!(get(&of("NONE"), &environment, Purpose::Run).unwrap_err().contains("empty"));
        assert!(get(&of("UNSET"), &environment, Purpose::Run).unwrap_err().contains("is not set"));
        let bare = SecretRef::Bare("canary".to_owned().into());
        assert_eq!(get(&bare, &environment, Purpose::Run).unwrap().origin, "written in the config");
        assert_eq!(get(&bare, &environment, Purpose::Show).unwrap().expose(), "");
    }
}
