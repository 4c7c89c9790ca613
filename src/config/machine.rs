//! What this machine says about a config that is right in itself: can its directories be used, is there anything to
//! read. For `otrelay check`; the service finds out by doing it. Looks only, changes nothing.

use std::path::Path;

use rustix::fs::Access;

use super::problem::{Level, Problem};
use super::{Config, Service};
use crate::model::text::one_line;
use crate::source::Input;
use crate::source::transport::tail::Pattern;

/// Most files of a pattern that are looked at.
const FILES_MAX: usize = 1000;

/// What to do about what is no file.
const FILES: &str = "correct `path`: it has to lead to files";
/// What to do where it is not known what bars the way.
const READABLE: &str = "the user that otrelay runs as has to be in the group of the files";

/// Looks at the state directory and at the files of each source: whether the service may use them where one is given, else
/// whether who runs this may.
pub fn look_around(config: &Config, service: Option<&Service>) -> Vec<Problem> {
    let mut problems = Vec::new();
    state_dir(&config.store.dir, service, &mut problems);
    for source in &config.sources {
        if let Input::Files { pattern } = &source.input {
            files(source.name.as_str(), pattern, service, &mut problems);
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match dir.parent() {
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

/// Why a file of a source cannot be read, and what to do: by the service where one is given, else by who runs this.
pub fn unread(path: &Path, service: Option<&Service>) -> Option<(String, String)> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => return Some(("it is a directory".to_owned(), FILES.to_owned())),
        Ok(meta) if !meta.is_file() => return Some(("it is not a file".to_owned(), FILES.to_owned())),
        _ => {}
    }
    if let Some(service) = service {
        return service.reads(path).err().map(|barred| (barred.words, barred.remedy));
    }
    let error = rustix::fs::access(path, Access::READ_OK).err()?;
    Some((error.to_string(), READABLE.to_owned()))
}

fn files(name: &str, pattern: &str, service: Option<&Service>, problems: &mut Vec<Problem>) {
    let key = format!("source {name}: path");
    let Ok(paths) = Pattern::new(pattern) else { return };
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    paths.each(
        |path| {
            if found.len() < FILES_MAX {
                found.push(path);
            }
        },
        |path, error| unreadable.push((path.to_owned(), error.kind(), error.to_string())),
    );
    // What is closed to who runs this may be open to the service, which then knows better whether there is a file.
    let known = !found.is_empty() || !unreadable.is_empty();
    let judged = found.into_iter().filter_map(|path| {
        let (why, remedy) = unread(&path, service)?;
        Some((path, why, remedy))
    });
    let unreadable = unreadable.into_iter().filter_map(|(path, kind, why)| match service {
        Some(service) if kind == std::io::ErrorKind::PermissionDenied => {
            service.reads(&path).err().map(|barred| (path, barred.words, barred.remedy))
        }
        _ => Some((path, why, READABLE.to_owned())),
    });
    if let Some((path, why, remedy)) = unreadable.chain(judged).next() {
        let message = one_line(&format!("{} cannot be read: {why}", path.display())).into_owned();
        problems.push(problem(Level::Warning, &key, message, &remedy));
        return;
    }
    // A directory that hides its files from the service looks empty to it, whoever else sees them.
    let dir = Path::new(pattern).parent().filter(|dir| dir.is_dir());
    if let (false, Some(Err(barred))) = (known, dir.zip(service).map(|(dir, service)| service.reads(dir))) {
        let message = one_line(&format!("{pattern} cannot be read: {}", barred.words)).into_owned();
        problems.push(problem(Level::Warning, &key, message, &barred.remedy));
        return;
    }
    if !known {
        let message = format!("no file matches {pattern} now");
        problems.push(problem(
            Level::Warning,
            &key,
            message,
            "right if the sensor has not written yet; else check it",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(messages(|problems| files("eve", &pattern, None, problems))[0].contains("no file matches"));
        std::fs::write(dir.path().join("eve-1.json"), "").unwrap();
        assert_eq!(messages(|problems| files("eve", &pattern, None, problems)), [""; 0]);
    }
}
