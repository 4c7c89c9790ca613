//! What this machine says about a config that is right in itself: can its directories be used, is there anything to
//! read. For `otrelay check`; the service finds out by doing it. Looks only, changes nothing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::problem::{Level, Problem};
use super::{Config, Service};
use crate::model::text::one_line;
use crate::source::transport::tail::{self, Pattern};
use crate::source::transport::unix;
use crate::source::{Input, OwnIds};

/// Most files of a pattern that are looked at.
const FILES_MAX: usize = 1000;

/// Most things that are not read that are told of one source.
pub const SHOWN: usize = 10;
/// What to do about what is no file to be read.
const FILES: &str = "correct `path`: it has to lead to files of the sensor, and to nothing else";
/// What to do where it is not known what bars the way.
const READABLE: &str =
    "the user that otrelay runs as has to be in the group of the files, and of the directories above";
/// What to do about a place where no socket can be.
pub const SOCKET: &str =
    "correct `listen`, or make the directory, writable by the service, e.g. /run/otrelay";
/// The directory that systemd makes for the service (`RuntimeDirectory=` of the unit).
const RUNTIME_DIR: &str = "/run/otrelay";

/// Looks at the state directory and at the files of each source: whether the service may use them where one is given, else
/// whether who runs this may.
pub fn look_around(config: &Config, service: Option<&Service>) -> Vec<Problem> {
    let mut problems = Vec::new();
    state_dir(&config.store.dir, service, &mut problems);
    let own = config.own.ids();
    for source in &config.sources {
        let name = source.name.as_str();
        match &source.input {
            Input::Files { pattern } => files(name, pattern, service, &own, &mut problems),
            Input::Unix(listen) => socket(name, listen, service, &mut problems),
            _ => {}
        }
    }
    problems
}

fn problem(level: Level, key: &str, message: String, hint: &str) -> Problem {
    Problem::new(level, key, message).hint(hint)
}

fn state_dir(dir: &Path, service: Option<&Service>, problems: &mut Vec<Problem>) {
    let shown = dir.display();
    let key = "agent.state_dir";
    let (there, made) = match std::fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => (dir, false),
        Ok(_) => {
            let message = format!("{shown} is not a directory");
            problems.push(problem(Level::Error, key, message, "name another one, or move the file away"));
            return;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => match dir.parent() {
            Some(parent) if parent.is_dir() => (parent, true),
            _ => {
                let message = format!("{shown} cannot be made: the directory above it is not there");
                problems.push(problem(Level::Error, key, message, "make it, or name another one"));
                return;
            }
        },
        Err(error) => {
            let message = format!("{shown} cannot be looked at: {error}");
            problems.push(problem(Level::Warning, key, message, "run this as the user that otrelay runs as"));
            return;
        }
    };
    if let Some(service) = service {
        // The directory itself belongs to the service at its start: systemd sees to that where the unit makes it.
        if let Err(barred) = service.writes(dir) {
            problems.push(problem(Level::Warning, key, format!("{shown}: {}", barred.words), &barred.remedy));
        }
        return;
    }
    if rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let cannot = if made { "made" } else { "written to" };
        let message = format!("{shown} cannot be {cannot} by the user that runs this");
        problems.push(problem(Level::Warning, key, message, "run this as the user that otrelay runs as"));
    }
}

/// What a source of files would find now: for `check` and `doctor`, judged as the source itself does.
#[derive(Debug, Default)]
pub struct Found {
    /// What it would read.
    pub files: Vec<PathBuf>,
    /// What it would not.
    pub unread: Vec<Unread>,
    /// Something was hidden from who runs this, not from the service: there may be more files.
    pub hidden: bool,
}

/// Something that a source of files does not read.
#[derive(Debug)]
pub struct Unread {
    /// `PATH cannot be read: WHY`.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

impl Unread {
    fn new(path: &Path, why: &str, remedy: &str) -> Self {
        let text = one_line(&format!("{} cannot be read: {why}", path.display())).into_owned();
        Self { text, remedy: remedy.to_owned() }
    }
}

/// Looks what is there for the service where one is given, else for who runs this; `own` is what no source reads.
pub fn found(pattern: &str, service: Option<&Service>, own: &OwnIds) -> Result<Found, String> {
    let paths = Pattern::new(pattern)?;
    let (mut names, mut barred, mut found) = (Vec::new(), Vec::new(), Found::default());
    paths.each(
        |path| {
            if names.len() < FILES_MAX {
                names.push(path);
            }
        },
        |path, error| barred.push((path.to_owned(), error.kind(), error.to_string())),
    );
    names.sort_unstable();
    for (path, kind, why) in barred {
        found.barred(&path, kind, &why, service);
    }
    for path in names {
        match tail::judge(&path, own, service.and_then(Service::uid)) {
            Ok(()) => match service.map(|service| service.reads(&path)) {
                Some(Err(barred)) => {
                    found.unread.push(Unread::new(&path, &barred.words, &barred.remedy));
                }
                _ => found.files.push(path),
            },
            // Gone since, or a link that leads nowhere: what is not there yet is no trouble.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => found.barred(&path, error.kind(), &error.to_string(), service),
        }
    }
    // A directory that hides its files from the service looks empty to it, whoever else sees them.
    let dir = Path::new(pattern).parent().filter(|dir| dir.is_dir());
    if found.files.is_empty()
        && found.unread.is_empty()
        && !found.hidden
        && let Some(Err(barred)) = dir.zip(service).map(|(dir, service)| service.reads(dir))
    {
        found.unread.push(Unread::new(Path::new(pattern), &barred.words, &barred.remedy));
    }
    Ok(found)
}

impl Found {
    fn barred(&mut self, path: &Path, kind: ErrorKind, why: &str, service: Option<&Service>) {
        let remedy = if kind == ErrorKind::PermissionDenied { READABLE } else { FILES };
        // What is closed to who runs this may be open to the service, which then knows better what is there.
        match service.filter(|_| kind == ErrorKind::PermissionDenied).map(|service| service.reads(path)) {
            None => self.unread.push(Unread::new(path, why, remedy)),
            Some(Err(barred)) => self.unread.push(Unread::new(path, &barred.words, &barred.remedy)),
            Some(Ok(())) => self.hidden = true,
        }
    }
}

/// Why a socket in the file system cannot be listened at. The directory that the unit makes comes with the service.
pub fn unfit_socket(listen: &unix::Listen, service: Option<&Service>) -> Option<&'static str> {
    let comes = service.is_some() && listen.path.starts_with(RUNTIME_DIR) && !Path::new(RUNTIME_DIR).exists();
    unix::unfit(listen).filter(|_| !comes)
}

fn files(name: &str, pattern: &str, service: Option<&Service>, own: &OwnIds, problems: &mut Vec<Problem>) {
    let key = format!("source {name}: path");
    // What is no pattern is an error of the config.
    let Ok(found) = found(pattern, service, own) else { return };
    for unread in found.unread.iter().take(SHOWN) {
        problems.push(problem(Level::Warning, &key, unread.text.clone(), &unread.remedy));
    }
    if found.unread.len() > SHOWN {
        let message = format!("{} more cannot be read", found.unread.len() - SHOWN);
        problems.push(problem(Level::Warning, &key, message, FILES));
    }
    if found.files.is_empty() && found.unread.is_empty() && !found.hidden {
        let message = format!("no file matches {pattern} now");
        problems.push(problem(
            Level::Warning,
            &key,
            message,
            "right if the sensor has not written yet; else check it",
        ));
    }
}

fn socket(name: &str, listen: &unix::Listen, service: Option<&Service>, problems: &mut Vec<Problem>) {
    if let Some(why) = unfit_socket(listen, service) {
        let key = format!("source {name}: listen");
        let message = one_line(&format!("cannot listen on {listen}: {why}")).into_owned();
        problems.push(problem(Level::Warning, &key, message, SOCKET));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Own;

    fn messages(check: impl Fn(&mut Vec<Problem>)) -> Vec<String> {
        let mut problems = Vec::new();
        check(&mut problems);
        problems.into_iter().map(|p| p.message).collect()
    }

    #[test]
    fn a_state_dir_that_can_be_made_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &Path| messages(|problems| state_dir(path, None, problems));
        assert_eq!(of(dir.path()), [""; 0]);
        assert_eq!(of(&dir.path().join("new")), [""; 0]);
        assert!(of(&dir.path().join("a/b"))[0].contains("cannot be made"));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(of(&file)[0].contains("is not a directory"));
    }

    #[test]
    fn a_pattern_without_files_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = dir.path().join("eve*.json").to_str().unwrap().to_owned();
        let own = Own { files: vec![dir.path().join("password")], dirs: Vec::new() };
        let said = || messages(|problems| files("eve", &pattern, None, &own.ids(), problems));
        std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("eve-9.json")).unwrap();
        assert!(said()[0].contains("no file matches"));
        std::fs::write(dir.path().join("eve-1.json"), "").unwrap();
        assert_eq!(said(), [""; 0]);
        std::fs::create_dir(dir.path().join("eve-2.json")).unwrap();
        std::fs::write(dir.path().join("password"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("password"), dir.path().join("eve-3.json")).unwrap();
        let said = said();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].ends_with("eve-2.json cannot be read: it is a directory, not a file"), "{said:?}");
        assert!(said[1].contains("eve-3.json cannot be read: it is one of otrelay's own files"), "{said:?}");
    }

    #[test]
    fn a_socket_needs_its_directory_and_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let said = |path: &str| {
            let listen = unix::Listen { way: unix::Way::Stream, path: dir.path().join(path) };
            messages(|problems| socket("eve", &listen, None, problems))
        };
        assert_eq!(said("eve.sock"), [""; 0]);
        assert!(said("no/eve.sock")[0].ends_with("no/eve.sock: the directory is not there"));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(said("file")[0].contains("what is there is no socket"));
        assert!(said("file/eve.sock")[0].ends_with("the directory is not there"));
    }
}
