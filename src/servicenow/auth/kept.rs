//! The refresh token on disk: one small file of the state directory, for the owner only, replaced as a whole.
//!
//! The new file is made under a name that must not exist, synced, and renamed. Nothing that is there is written to or
//! followed. Root that runs `otrelay login` is the owner of the directory by then (`cli/owner.rs`).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::model::alert::hex;
use crate::model::secret::{ExposeSecret, SecretString};
use crate::model::{DestinationName, HealthIssue, Timestamp};

/// Largest such file, in bytes.
const FILE_MAX: u64 = 64 * 1024;
/// What a refresh token lives as ServiceNow is delivered.
const LIVES: Duration = Duration::from_hours(100 * 24);
/// From this age on a person is told.
const TELL_AFTER: Duration = Duration::from_hours(80 * 24);

#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Absent where the config's own token is still the one to use.
    pub(crate) refresh_token: Option<SecretString>,
    /// When it was issued; of the config's token when it was first used, if nothing better is known.
    pub(crate) issued_at: Timestamp,
    /// Which token of the config this follows: its SHA-256.
    pub(crate) seed: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// Seconds since 1970.
    issued_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<String>,
}

/// Where the token of a destination is kept.
pub fn path(state_dir: &Path, name: &DestinationName) -> PathBuf {
    state_dir.join(format!("login-{name}.json"))
}

/// Tells one token of the config from another.
pub(super) fn seed(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

/// A token of the config, and when it was issued where it is a file that `otrelay login` kept.
pub(super) fn parse(text: &str) -> (SecretString, Option<Timestamp>) {
    match serde_json::from_str::<Stored>(text) {
        Ok(Stored { refresh_token: Some(token), issued_at, .. }) => {
            (SecretString::from(token), Some(Timestamp::from_secs(issued_at)))
        }
        _ => (SecretString::from(text.to_owned()), None),
    }
}

/// What is kept; `None` where there is no such file. The error says what is wrong with it.
pub(super) fn read(path: &Path) -> Result<Option<Kept>, String> {
    let failed = |what: &str| format!("{} cannot be used: {what}", path.display());
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(&e.to_string())),
    };
    let metadata = file.metadata().map_err(|e| failed(&e.to_string()))?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
        return Err(failed("expected a file of mode 0600"));
    }
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(|e| failed(&e.to_string()))?;
    // Not the parser's own words: they may quote the file.
    let stored: Stored = serde_json::from_str(&text).map_err(|_| failed("it is damaged"))?;
    Ok(Some(Kept {
        refresh_token: stored.refresh_token.filter(|token| super::is_token(token)).map(SecretString::from),
        issued_at: Timestamp::from_secs(stored.issued_at),
        seed: stored.seed,
    }))
}

/// Puts this in the place of what was kept.
pub(crate) fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let stored = Stored {
        version: 1,
        refresh_token: kept.refresh_token.as_ref().map(|token| token.expose_secret().to_owned()),
        issued_at: kept.issued_at.as_secs(),
        seed: kept.seed.clone(),
    };
    let text = serde_json::to_vec(&stored).map_err(io::Error::other)?;
    let dir = path.parent().ok_or_else(|| io::Error::other("it has no directory"))?;
    // Before the first start of the service there is none yet.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut random = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
        .map_err(|_| io::Error::other("this machine gives no random numbers"))?;
    let fresh = path.with_extension(format!("{}.new", hex(&random)));
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&fresh)?;
    let written = (|| {
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        // The first error counts; what is left over holds a token, so it is not left.
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

/// What a person has to know while a refresh token cannot be written.
pub(super) fn unkept(path: &Path, name: &DestinationName) -> HealthIssue {
    let text = format!(
        "the new refresh token of destination {name} cannot be written to {}: the service goes on with it, and its next start \
         may be refused",
        path.display()
    );
    let remedy = format!(
        "make room on that disk, or let the service write there; the log says what failed. If log-ins are refused after a \
         restart: otrelay login {name}"
    );
    HealthIssue::new("login-unkept", text, remedy).about(name.as_str())
}

/// What a person has to know about the kept token of a destination: it grows old, or cannot be read.
pub(crate) fn concern(path: &Path, name: &DestinationName, now: Timestamp) -> Option<HealthIssue> {
    let remedy = format!("otrelay login {name}");
    let kept = match read(path) {
        Ok(kept) => kept?,
        Err(what) => {
            let text = format!("the log-in of destination {name}: {what}");
            return Some(HealthIssue::new("login-unreadable", text, remedy).about(name.as_str()));
        }
    };
    let age = now.since(kept.issued_at);
    if age < TELL_AFTER {
        return None;
    }
    let days = age.as_secs() / 86_400;
    let end = kept.issued_at.after(LIVES).servicenow();
    let end = end.get(..10).unwrap_or_default();
    let what = if age < LIVES {
        format!(
            "the refresh token of destination {name} is {days} days old; by default ServiceNow ends it after 100 days, on {end}"
        )
    } else {
        format!("the refresh token of destination {name} is {days} days old, and should have ended on {end}")
    };
    let remedy = format!("{remedy}: it asks for user and password once and obtains a new one");
    Some(HealthIssue::new("login-grows-old", what, remedy).about(name.as_str()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept(token: &str, days: u64) -> Kept {
        let issued_at = Timestamp::from_secs(1_795_248_900).before(Duration::from_hours(24 * days));
        Kept { refresh_token: Some(SecretString::from(token)), issued_at, seed: None }
    }

    #[test]
    fn a_token_is_kept_for_the_owner_only_and_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), &DestinationName::new("prod").unwrap());
        assert!(read(&path).unwrap().is_none());
        for token in ["first", "second"] {
            write(&path, &kept(token, 0)).unwrap();
            assert_eq!(read(&path).unwrap().unwrap().refresh_token.unwrap().expose_secret(), token);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let (token, issued_at) = parse(&std::fs::read_to_string(&path).unwrap());
        assert_eq!((token.expose_secret(), issued_at), ("second", Some(Timestamp::from_secs(1_795_248_900))));
        assert_eq!(parse("bare").0.expose_secret(), "bare");
    }

    #[test]
    fn a_link_a_wrong_mode_and_damage_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("login-x.json"), dir.path().join("other"));
        std::fs::write(&other, "canary").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(read(&path).is_err());
        write(&path, &kept("t", 0)).unwrap();
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "canary");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).unwrap_err().contains("mode 0600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "{\"canary").unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains("damaged") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn a_person_is_told_before_day_100() {
        let dir = tempfile::tempdir().unwrap();
        let name = DestinationName::new("prod").unwrap();
        let (path, now) = (path(dir.path(), &name), Timestamp::from_secs(1_795_248_900));
        assert_eq!(concern(&path, &name, now), None);
        for (days, words) in [
            (79, None),
            (80, Some("80 days old; by default")),
            (101, Some("should have ended on 2026-11-20")),
        ] {
            write(&path, &kept("canary", days)).unwrap();
            let told = concern(&path, &name, now);
            assert_eq!(told.is_some(), words.is_some(), "{days}");
            if let (Some(told), Some(words)) = (told, words) {
                assert!(
                    told.text.contains(words) && told.remedy.starts_with("otrelay login prod"),
                    "{told:?}"
                );
            }
        }
    }
}
