//! Reads the config files, lays them together and has them checked.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::check::{Check, DEFAULT_STATE_DIR, check};
use super::problem::{At, Level, Problem, Problems};
use super::read::Reader;
use super::show::Effective;
use super::{ConfigError, Environment, Loaded, Purpose, TemplateCheck, file, own, service};

/// The config file when none is named.
pub const DEFAULT_PATH: &str = "/etc/otrelay/otrelay.toml";

/// Largest config file, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Most files of `conf.d`.
const FILES_MAX: usize = 200;

/// Reads the main file and `conf.d/*.toml` beside it, and checks all of it.
///
/// # Errors
/// With every problem that was found, when at least one of them is an error.
pub fn load(
    environment: &Environment,
    purpose: Purpose,
    templates: TemplateCheck,
) -> Result<Loaded, ConfigError> {
    let main = environment.config_path.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_PATH));
    let mut problems = Problems::default();
    if let (Purpose::Check, Some(service)) = (purpose, environment.judged()) {
        service.problems(&mut problems);
    }
    let paths = match beside(&main, &mut problems) {
        Some(others) => {
            let dir = main.with_file_name("conf.d");
            service::look(&dir, &At::file(&dir, FILES_MAX + 1), environment, purpose, &mut problems);
            std::iter::once(main.clone()).chain(others).collect()
        }
        None => vec![main.clone()],
    };
    let mut texts = Vec::new();
    for (order, path) in paths.iter().enumerate() {
        let at = At::file(path, order);
        match read(path, order == 0) {
            Ok((text, meta)) => {
                let mode = meta.mode();
                service::look(path, &at, environment, purpose, &mut problems);
                strangers(path, &meta, &at, &mut problems);
                texts.push((order, path.as_path(), text, mode));
            }
            Err(problem) => problems.push(problem.at(&at)),
        }
    }
    directories(&main, paths.len(), &mut problems);
    let complete = texts.len() == paths.len();
    let inputs: Vec<Input<'_>> = texts
        .iter()
        .map(|(order, path, text, mode)| Input { order: *order, path, text, mode: *mode })
        .collect();
    finish(&main, &inputs, complete, environment, purpose, templates, problems)
}

/// The state directory that a config names, also when the config cannot be used: what stands before the first mistake
/// is read. For asking the service that still runs with the config as it was.
pub fn whereabouts(environment: &Environment) -> PathBuf {
    let main = environment.config_path.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_PATH));
    let others = beside(&main, &mut Problems::default()).unwrap_or_default();
    let named = std::iter::once(main)
        .chain(others)
        .filter_map(|path| state_dir_of(&read(&path, false).ok()?.0))
        .find(|dir| dir.is_absolute());
    named.or_else(|| environment.state_dir.clone()).unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR))
}

/// `[agent] state_dir` of a text, as far as the text is TOML.
fn state_dir_of(text: &str) -> Option<PathBuf> {
    let mut text = text;
    loop {
        let error = match toml::from_str::<toml::Table>(text) {
            Ok(table) => return Some(PathBuf::from(table.get("agent")?.get("state_dir")?.as_str()?)),
            Err(error) => error,
        };
        // The line with the mistake and what follows it goes; each time at least one line.
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
        let end =
            if before < text.len() { before } else { text.trim_end().rfind('\n').map_or(0, |end| end + 1) };
        text = text.get(..end).filter(|text| !text.is_empty())?;
    }
}

/// Checks one text as if it were the only config file. Reads no variable and no file but the time
/// zone database: for tests and fuzzing.
///
/// # Errors
/// With every problem that was found, when at least one of them is an error.
pub fn parse_str(name: &str, text: &str) -> Result<Loaded, ConfigError> {
    let path = Path::new(name);
    if text.len() as u64 > FILE_MAX {
        return Err(ConfigError { problems: vec![too_large().at(&At::file(path, 0))] });
    }
    let environment = Environment::new(|_| None);
    alone(path, text, &environment, Purpose::Show, |_, _| Ok(()))
}

/// One text as the only config file.
pub(super) fn alone(
    path: &Path,
    text: &str,
    environment: &Environment,
    purpose: Purpose,
    templates: TemplateCheck,
) -> Result<Loaded, ConfigError> {
    let inputs = [Input { order: 0, path, text, mode: 0o600 }];
    finish(path, &inputs, true, environment, purpose, templates, Problems::default())
}

struct Input<'a> {
    order: usize,
    path: &'a Path,
    text: &'a str,
    mode: u32,
}

fn finish(
    main: &Path,
    inputs: &[Input<'_>],
    mut complete: bool,
    environment: &Environment,
    purpose: Purpose,
    templates: TemplateCheck,
    mut problems: Problems,
) -> Result<Loaded, ConfigError> {
    let mut merged = file::File::default();
    for input in inputs {
        let mut reader = Reader::new(input.path, input.order, input.text, &mut problems);
        let Some(one) = reader.document::<file::File>() else {
            complete = false;
            continue;
        };
        if let Some(at) = reader.secret.filter(|_| input.mode & 0o004 != 0) {
            readable_secret(&at, input, &mut problems);
        }
        merged.lay_beside(one, &mut problems);
    }
    let root = At::file(main, 0);
    let effective = Effective::default();
    let mut context = Check { environment, purpose, templates, complete, problems: &mut problems, effective };
    // A file that could not be read leaves no config: what is checked then is checked for its problems only.
    let config = check(&merged, &root, &mut context);
    let effective = context.effective;
    match config {
        Some(mut config) => {
            let texts = inputs.iter().map(|input| (input.path, input.text));
            config.own = own::own(texts, &config.store.dir, environment);
            let files = inputs.iter().map(|input| input.path.to_owned()).collect();
            Ok(Loaded { config, warnings: problems.sorted(), files, effective })
        }
        None => Err(ConfigError { problems: problems.sorted() }),
    }
}

/// A file that everyone may read should not hold a secret itself.
fn readable_secret(at: &At, input: &Input<'_>, problems: &mut Problems) {
    let message = format!("everyone may read this secret (the file has mode {:04o})", input.mode & 0o7777);
    problems.warn(at, message, |p| p.hint(format!("chmod 0640 {}", input.path.display())));
}

fn refuse(message: impl Into<String>) -> Problem {
    Problem::new(Level::Error, "", message)
}

fn too_large() -> Problem {
    refuse("the file is larger than 1 MiB").hint("is it the right file?")
}

/// The files of `conf.d`, in lexical order; `None` when they cannot be listed.
fn beside(main: &Path, problems: &mut Problems) -> Option<Vec<PathBuf>> {
    let dir = main.parent().unwrap_or_else(|| Path::new("")).join("conf.d");
    let at = At::file(&dir, FILES_MAX + 1);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            let message = format!("cannot be listed: {error}");
            problems.error(&at, message, |p| p.hint("it has to be a directory that otrelay may read"));
            return None;
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => {
                let path = entry.path();
                // Editors leave `.otrelay.toml.swp` and `.#x.toml` behind.
                let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
                    files.push(path);
                }
            }
            Err(error) => problems.error(&at, format!("cannot be listed: {error}"), |p| p),
        }
        if files.len() > FILES_MAX {
            problems
                .error(&at, format!("more than {FILES_MAX} config files"), |p| p.hint("put them together"));
            return None;
        }
    }
    files.sort();
    Some(files)
}

/// The directories of the config: who may write into one can put another file in the place of each that is in it.
fn directories(main: &Path, order: usize, problems: &mut Problems) {
    let dir = main.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for dir in [dir.to_owned(), dir.join("conf.d")] {
        if let Ok(meta) = std::fs::metadata(&dir) {
            strangers(&dir, &meta, &At::file(&dir, order), problems);
        }
    }
}

/// Warns of a part of the config that somebody else may change.
fn strangers(path: &Path, meta: &Metadata, at: &At, problems: &mut Problems) {
    let (shown, mode) = (path.display(), meta.mode() & 0o7777);
    let (what, good) =
        if meta.is_dir() { ("what is in this directory", 0o750) } else { ("this file", 0o640) };
    // In a directory with the sticky bit each may change only what is their own.
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        let message = format!("others may change {what} (mode {mode:04o})");
        problems.warn(at, message, |p| p.hint(format!("chmod {good:04o} {shown}")));
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != own {
        let message = format!("user {} may change {what}: it belongs to that user", meta.uid());
        problems.warn(at, message, |p| p.hint(format!("chown root {shown}")));
    }
}

/// The text of a file, and whose it is.
fn read(path: &Path, is_main: bool) -> Result<(String, Metadata), Problem> {
    let cannot = |error: &std::io::Error| {
        let problem = refuse(format!("cannot be read: {error}"));
        match error.kind() {
            std::io::ErrorKind::NotFound if is_main => {
                problem.hint("`otrelay config example` prints one to begin with; --config names another file")
            }
            std::io::ErrorKind::PermissionDenied => {
                problem.hint("it has to be readable by the user that otrelay runs as")
            }
            _ => problem,
        }
    };
    // Not blocking: a pipe in the place of the file must not stop the start.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(|e| cannot(&e))?;
    let metadata = file.metadata().map_err(|e| cannot(&e))?;
    if metadata.is_dir() {
        return Err(refuse("this is a directory").hint("name the file in it"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|e| cannot(&e))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(too_large());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((text, metadata)),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = memchr::memchr_iter(b'\n', good).count() + 1;
            Err(refuse(format!("line {line} is not UTF-8")).hint("save the file as UTF-8"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_change_the_config_is_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let more = dir.path().join("conf.d");
        std::fs::create_dir(&more).unwrap();
        let (main, part) = (dir.path().join("otrelay.toml"), more.join("x.toml"));
        for file in [&main, &part] {
            std::fs::write(file, "").unwrap();
        }
        let said = |modes: [u32; 4]| -> Vec<String> {
            [dir.path(), &more, &main, &part].into_iter().zip(modes).for_each(|(path, mode)| set(path, mode));
            let mut problems = Problems::default();
            directories(&main, 9, &mut problems);
            for file in [&main, &part] {
                let (_, meta) = read(file, true).unwrap();
                strangers(file, &meta, &At::file(file, 0), &mut problems);
            }
            problems.sorted().into_iter().map(|p| p.message).collect()
        };
        assert_eq!(said([0o755, 0o750, 0o640, 0o600]), Vec::<String>::new());
        assert_eq!(said([0o1777, 0o750, 0o640, 0o600]), Vec::<String>::new());
        assert_eq!(
            said([0o775, 0o750, 0o640, 0o600]),
            ["others may change what is in this directory (mode 0775)"]
        );
        assert_eq!(
            said([0o755, 0o777, 0o640, 0o600]),
            ["others may change what is in this directory (mode 0777)"]
        );
        assert_eq!(said([0o755, 0o750, 0o640, 0o622]), ["others may change this file (mode 0622)"]);
        set(dir.path(), 0o755);
        set(&more, 0o755);
        // Only root can give a file away.
        if std::os::unix::fs::chown(&part, Some(54_321), None).is_ok() && rustix::process::geteuid().is_root()
        {
            assert_eq!(
                said([0o755, 0o750, 0o640, 0o600]),
                ["user 54321 may change this file: it belongs to that user"]
            );
        }
    }

    #[test]
    fn the_state_directory_is_found_before_a_mistake() {
        let check =
            |text: &str, dir: Option<&str>| assert_eq!(state_dir_of(text), dir.map(PathBuf::from), "{text}");
        let good = "[agent]\nname = \"a\"\nstate_dir = \"/x\"\n";
        check(good, Some("/x"));
        check(&format!("{good}[sync]\n[sync]\n"), Some("/x"));
        check(&format!("{good}[sync\ninterval = \n"), Some("/x"));
        check(&format!("{good}a = \"\"\"open"), Some("/x"));
        check("[agent\nstate_dir = \"/x\"\n", None);
        check("[agent]\nstate_dir = 7\n", None);
        check("", None);
    }
}
