//! A command that root runs becomes the owner of the state directory before it touches anything there. The directory
//! belongs to somebody with fewer rights, who may put any link under any name: what is done as that user can do no more
//! than that user could. Where the directory, and all above it, is root's own, root stays root.
//!
//! Credentials belong to threads on Linux. [`become_owner`] is therefore called while there is only one, and everything
//! that is started later inherits them; [`as_owner`] gives up the rights of one thread, for a command that has to write
//! elsewhere as root.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::CliError;

/// Root's user id.
const ROOT: u32 = 0;
/// What the system knows of users and groups, and the most that is read of it.
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const TABLE_MAX: u64 = 4 << 20;
/// Where the unit of the service and what belongs to it are, the weakest first.
const UNITS: [&str; 3] = ["/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system"];
const UNIT: &str = "otrelay.service";

/// Whom root becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heir {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Heir {
    /// The owner of a directory, with the primary group and the groups that the system's tables give that user, and those
    /// that the `unit` gives the service where that runs as this user.
    fn of(owner: (u32, u32), passwd: &str, group: &str, unit: &str) -> Self {
        let (uid, dir_gid) = owner;
        let user = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let user = user.into_iter().find(|fields| number(fields, 2) == Some(uid));
        let gid = user.as_ref().and_then(|fields| number(fields, 3)).unwrap_or(dir_gid);
        let name = user.as_ref().and_then(|fields| fields.first().copied()).filter(|name| !name.is_empty());
        let by_unit = name.map(|name| groups_of_unit(unit, name)).unwrap_or_default();
        let mut groups = vec![gid];
        for fields in group.lines().map(|line| line.split(':').collect::<Vec<_>>()) {
            let has = name.is_some_and(|name| fields.get(3).is_some_and(|m| m.split(',').any(|m| m == name)))
                || fields.first().is_some_and(|group| by_unit.contains(group));
            if let Some(more) = number(&fields, 2).filter(|gid| has && !groups.contains(gid)) {
                groups.push(more);
            }
        }
        Self { uid, gid, groups }
    }

    /// The calling thread has only the rights of this user from here on.
    fn take_over(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }

    fn failed(&self, dir: &Path, source: &io::Error) -> CliError {
        CliError::Words(format!(
            "{} belongs to user {}, and root works there only as that user, which it cannot become: {source}; run it as \
             that user",
            dir.display(),
            self.uid
        ))
    }
}

/// The groups that a unit gives its service beside those of its user, if it is this user's.
fn groups_of_unit<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let values = |key: &str| -> Vec<&'a str> {
        let of_key = |line: &'a str| line.trim().split_once('=').filter(|(k, _)| k.trim() == key);
        unit.lines().filter_map(of_key).map(|(_, value)| value.trim()).collect()
    };
    if values("User").last() != Some(&name) {
        return Vec::new();
    }
    values("SupplementaryGroups").into_iter().fold(Vec::new(), |mut groups, value| {
        // An empty one takes back what stood before.
        if value.is_empty() {
            groups.clear();
        }
        groups.extend(value.split_whitespace());
        groups
    })
}

/// The unit with its drop-ins as one text, in the order in which they count.
fn unit(places: &[&str]) -> String {
    let mut files: Vec<PathBuf> = places
        .iter()
        .rev()
        .map(|dir| Path::new(dir).join(UNIT))
        .filter(|file| file.is_file())
        .take(1)
        .collect();
    let mut drop_ins = BTreeMap::new();
    for dir in places {
        let entries = fs::read_dir(Path::new(dir).join(format!("{UNIT}.d"))).into_iter().flatten().flatten();
        drop_ins.extend(entries.map(|e| (e.file_name(), e.path())));
    }
    files.extend(drop_ins.into_values().filter(|path| path.extension().is_some_and(|e| e == "conf")));
    files.iter().filter_map(|path| read(path).ok()).fold(String::new(), |all, text| all + &text + "\n")
}

fn number(fields: &[&str], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok()
}

/// The first that is not root's of `dir` and all above it: who owns a directory can put another one in the place of what
/// is in it. What is not there yet belongs to who makes it.
fn stranger(dir: &Path, owner: impl Fn(&Path) -> Option<(u32, u32)>) -> Option<(u32, u32)> {
    dir.ancestors().filter_map(owner).find(|(uid, _)| *uid != ROOT)
}

/// Whom this process has to become for `dir`; `None` for anybody but root, and where all is root's.
fn heir(dir: &Path) -> Option<Heir> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let owner = |path: &Path| fs::metadata(path).ok().map(|m| (m.uid(), m.gid()));
    let owner = stranger(&whole(dir), owner)?;
    let table = |path: &str| read(Path::new(path)).unwrap_or_default();
    Some(Heir::of(owner, &table(PASSWD), &table(GROUP), &unit(&UNITS)))
}

/// Where a path leads, links followed as far as it is there.
fn whole(dir: &Path) -> PathBuf {
    let there = dir.ancestors().find_map(|path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        fs::canonicalize(path).ok()
    });
    match (fs::canonicalize(dir), there) {
        (Ok(path), _) | (Err(_), Some(path)) => path,
        (Err(_), None) => dir.to_owned(),
    }
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(TABLE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Root becomes the owner of the state directory, for good. Everybody else stays who they are.
pub(super) fn become_owner(dir: &Path) -> Result<(), CliError> {
    let Some(heir) = heir(dir) else { return Ok(()) };
    // A thread that was started before would stay root.
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    let result =
        if threads == 1 { heir.take_over() } else { Err(io::Error::other("it has threads already")) };
    result.map_err(|e| heir.failed(dir, &e))
}

/// Does `work` with the rights of the owner of the state directory; `None` where root, or whoever runs this, needs no
/// other ones.
pub(super) fn as_owner<T: Send>(dir: &Path, work: impl FnOnce() -> T + Send) -> Result<Option<T>, CliError> {
    let Some(heir) = heir(dir) else { return Ok(None) };
    let done = std::thread::scope(|scope| {
        let task = scope.spawn(|| heir.take_over().map(|()| work()));
        task.join().unwrap_or_else(|_| Err(io::Error::other("the thread for it failed")))
    });
    done.map(Some).map_err(|e| heir.failed(dir, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\notrelay:x:990:980::/:/sbin/nologin\nodd\n:x:7:7::/:\n";
    const GROUP: &str =
        "root:x:0:\nsuricata:x:110:zeek,otrelay\notrelay:x:980:\nadm:x:4:otrelayer\nempty:x:5:\n\n";

    #[test]
    fn root_becomes_the_owner_with_the_groups_of_that_user_and_no_others() {
        let check = |owner, gid, groups: &[u32]| {
            let heir = Heir::of(owner, PASSWD, GROUP, "");
            assert_eq!((heir.uid, heir.gid, heir.groups.as_slice()), (owner.0, gid, groups));
        };
        check((990, 33), 980, &[980, 110]);
        check((54_321, 33), 33, &[33]);
        // A user without a name is in no group that names nobody.
        check((7, 33), 7, &[7]);
    }

    #[test]
    fn root_gets_the_groups_that_the_unit_gives_the_service() {
        let dir = tempfile::tempdir().unwrap();
        let (lib, etc) = (dir.path().join("lib"), dir.path().join("etc"));
        let put = |dir: &Path, name: &str, text: &str| {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(&lib, "otrelay.service", "[Service]\nUser=otrelay\nGroup=otrelay\n#SupplementaryGroups=root\n");
        put(&lib, "otrelay.service.d/10.conf", "SupplementaryGroups=root\n");
        put(&etc, "otrelay.service.d/10.conf", "[Service]\nSupplementaryGroups=adm\n");
        put(&etc, "otrelay.service.d/20.conf", "[Service]\nSupplementaryGroups=empty  nosuch\n");
        put(&etc, "otrelay.service.d/30.conf.off", "[Service]\nSupplementaryGroups=root\n");
        let text = || unit(&[lib.to_str().unwrap(), etc.to_str().unwrap()]);
        assert_eq!(Heir::of((990, 33), PASSWD, GROUP, &text()).groups, [980, 110, 4, 5]);
        // Of another user's directory the unit says nothing.
        assert_eq!(Heir::of((7, 33), PASSWD, GROUP, &text()).groups, [7]);
        put(&etc, "otrelay.service.d/25.conf", "[Service]\nSupplementaryGroups=\n");
        assert_eq!(Heir::of((990, 33), PASSWD, GROUP, &text()).groups, [980, 110]);
        put(&etc, "otrelay.service", "[Service]\nUser=somebody\n");
        assert_eq!(Heir::of((990, 33), PASSWD, GROUP, &text()).groups, [980, 110]);
    }

    #[test]
    fn a_directory_is_a_strangers_when_one_above_it_is() {
        let check = |owners: &[(&str, u32)], expected: Option<u32>| {
            let owner = |path: &Path| {
                let (_, uid) = owners.iter().find(|(name, _)| Path::new(name) == path)?;
                Some((*uid, *uid))
            };
            assert_eq!(stranger(Path::new("/a/b/c"), owner).map(|(uid, _)| uid), expected, "{owners:?}");
        };
        check(&[("/", 0), ("/a", 0), ("/a/b", 0), ("/a/b/c", 0)], None);
        check(&[("/", 0), ("/a", 0), ("/a/b", 0), ("/a/b/c", 9)], Some(9));
        check(&[("/", 0), ("/a", 8), ("/a/b", 0), ("/a/b/c", 0)], Some(8));
        // Not made yet: the next one above it counts.
        check(&[("/", 0), ("/a", 0), ("/a/b", 9)], Some(9));
        check(&[("/", 0), ("/a", 0)], None);
    }

    #[test]
    fn a_link_is_followed_to_the_directory_that_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        assert_eq!(whole(&dir.path().join("link")), real);
        assert_eq!(whole(&dir.path().join("link/not/there/yet")), real);
        assert_eq!(whole(Path::new("")), whole(Path::new(".")));
    }
}
