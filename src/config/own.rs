//! Which files are otrelay's own by the config: the config itself, and every file that a key `file` or `…_file` names, be
//! it a secret, a key or a certificate of whatever part.

use std::path::{Path, PathBuf};

use toml::Value;

use super::Environment;
use crate::source::Own;

/// Of some config files, given as they are on disk.
pub(super) fn own<'a>(
    texts: impl Iterator<Item = (&'a Path, &'a str)>,
    state_dir: &Path,
    environment: &Environment,
) -> Own {
    let mut files = Vec::new();
    for (path, text) in texts {
        files.push(path.to_owned());
        // What is no TOML is no config.
        if let Ok(table) = toml::from_str::<toml::Table>(text) {
            named(&Value::Table(table), &mut files);
        }
    }
    let dirs = std::iter::once(state_dir.to_owned()).chain(environment.credentials_dir.clone());
    Own { files, dirs: dirs.collect() }
}

fn named(value: &Value, files: &mut Vec<PathBuf>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                match value {
                    Value::String(path) if key == "file" || key.ends_with("_file") => {
                        files.push(PathBuf::from(path));
                    }
                    value => named(value, files),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| named(value, files)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_config_names_is_ours_wherever_it_stands() {
        let text = r#"
            [servicenow.a]
            password = { file = "/s/password" }
            tls = { ca_file = "/s/ca.pem", pin = "sha256:00" }
            headers = { x = { file = "/s/header" } }
            [[source]]
            path = "/var/log/eve.json"
            token = { credential = "t" }
            [[source]]
            tls = { cert_file = "/s/cert.pem", key_file = "/s/key.pem" }
        "#;
        let environment = Environment::new(|_| None);
        let texts = [(Path::new("/etc/otrelay/otrelay.toml"), text), (Path::new("/x.toml"), "no = ")];
        let own = own(texts.into_iter(), Path::new("/state"), &environment);
        let mut files: Vec<&str> = own.files.iter().filter_map(|path| path.to_str()).collect();
        files.sort_unstable();
        assert_eq!(
            files,
            [
                "/etc/otrelay/otrelay.toml",
                "/s/ca.pem",
                "/s/cert.pem",
                "/s/header",
                "/s/key.pem",
                "/s/password",
                "/x.toml"
            ]
        );
        assert_eq!(own.dirs, [Path::new("/state")]);
    }
}
