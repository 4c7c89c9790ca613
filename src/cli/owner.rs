//! A command that root runs becomes the owner of the state directory before it touches anything there. The directory
//! belongs to somebody with fewer rights, who may put any link under any name: what is done as that user can do no more
//! than that user could. Where the directory, and all above it, is root's own, root stays root.
//!
//! Credentials belong to threads on Linux. [`become_owner`] is therefore called while there is only one, and everything
//! that is started later inherits them; [`as_owner`] gives up the rights of one thread, for a command that has to write
//! elsewhere as root.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::CliError;
use crate::config::Rights;

/// Root's user id.
const ROOT: u32 = 0;
/// The calling thread has only these rights from here on.
fn take_over(heir: &Rights) -> io::Result<()> {
    let groups: Vec<Gid> = heir.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(heir.uid), Gid::from_raw(heir.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn failed(heir: &Rights, dir: &Path, source: &io::Error) -> CliError {
    CliError::Words(format!(
        "{} belongs to user {}, and root works there only as that user, which it cannot become: {source}; run it as \
         that user",
        dir.display(),
        heir.uid
    ))
}

/// The first that is not root's of `dir` and all above it: who owns a directory can put another one in the place of what
/// is in it. What is not there yet belongs to who makes it.
fn stranger(dir: &Path, owner: impl Fn(&Path) -> Option<(u32, u32)>) -> Option<(u32, u32)> {
    dir.ancestors().filter_map(owner).find(|(uid, _)| *uid != ROOT)
}

/// Whom this process has to become for `dir`; `None` for anybody but root, and where all is root's.
fn heir(dir: &Path) -> Option<Rights> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let owner = |path: &Path| fs::metadata(path).ok().map(|m| (m.uid(), m.gid()));
    let owner = stranger(&whole(dir), owner)?;
    Some(Rights::of(Path::new("/"), owner))
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

/// Root becomes the owner of the state directory, for good. Everybody else stays who they are.
pub(super) fn become_owner(dir: &Path) -> Result<(), CliError> {
    let Some(heir) = heir(dir) else { return Ok(()) };
    // A thread that was started before would stay root.
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    let result =
        if threads == 1 { take_over(&heir) } else { Err(io::Error::other("it has threads already")) };
    result.map_err(|e| failed(&heir, dir, &e))
}

/// Whether root runs this, and the directory or one above it is somebody else's.
pub(super) fn is_root_among_others(dir: &Path) -> bool {
    heir(dir).is_some()
}

/// Does `work` with the rights of the owner of a directory, where root runs this; everybody else stays who they are.
pub(super) fn as_owner<T: Send>(dir: &Path, work: impl FnOnce() -> T + Send) -> Result<T, CliError> {
    let Some(heir) = heir(dir) else { return Ok(work()) };
    let done = std::thread::scope(|scope| {
        let task = scope.spawn(|| take_over(&heir).map(|()| work()));
        task.join().unwrap_or_else(|_| Err(io::Error::other("the thread for it failed")))
    });
    done.map_err(|e| failed(&heir, dir, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

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
