//! What this machine says about a config that is right in itself: can its directories be used, is there anything to
//! read. For `otrelay check`; the service finds out by doing it. Looks only, changes nothing.

use std::path::Path;

use rustix::fs::Access;

use super::Config;
use super::problem::{Level, Problem};
use crate::source::Input;

/// Most files of a pattern that are looked at.
const FILES_MAX: usize = 1000;

/// Looks at the state directory and at the files of each source.
pub fn look_around(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    state_dir(&config.store.dir, &mut problems);
    for source in &config.sources {
        if let Input::Files { pattern } = &source.input {
            files(source.name.as_str(), pattern, &mut problems);
        }
    }
    problems
}

fn problem(level: Level, key: &str, message: String, hint: &str) -> Problem {
    Problem::new(level, key, message).hint(hint)
}

fn state_dir(dir: &Path, problems: &mut Vec<Problem>) {
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
    if rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let cannot = if made { "made" } else { "written to" };
        let message = format!("{shown} cannot be {cannot} by the user that runs this");
        problems.push(problem(Level::Warning, key, message, "run this as the user that otrelay runs as"));
    }
}

fn files(name: &str, pattern: &str, problems: &mut Vec<Problem>) {
    let key = format!("source {name}: path");
    let Ok(paths) = glob::glob(pattern) else { return };
    let mut any = false;
    for path in paths.take(FILES_MAX) {
        any = true;
        let unreadable = match path {
            Ok(path) => {
                rustix::fs::access(&path, Access::READ_OK).err().map(|error| (path, error.to_string()))
            }
            Err(error) => Some((error.path().to_owned(), error.error().to_string())),
        };
        if let Some((path, why)) = unreadable {
            let message = format!("{} cannot be read: {why}", path.display());
            let hint = "the user that otrelay runs as has to be in the group of the files";
            problems.push(problem(Level::Warning, &key, message, hint));
            return;
        }
    }
    if !any {
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
        let of = |path: &Path| messages(|problems| state_dir(path, problems));
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
        assert!(messages(|problems| files("eve", &pattern, problems))[0].contains("no file matches"));
        std::fs::write(dir.path().join("eve-1.json"), "").unwrap();
        assert_eq!(messages(|problems| files("eve", &pattern, problems)), [""; 0]);
    }
}
