//! Whose rights a command of root's has in a directory that belongs to somebody with fewer.

use std::collections::BTreeSet;
use std::path::Path;

use super::access::Names;
use super::unit::Unit;

/// A user with its groups, as a process has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// All its groups, that one too.
    pub groups: BTreeSet<u32>,
}

impl Rights {
    /// Of the owner (user, group) of a directory: with the groups that the tables below `root` give that user, and those
    /// that the unit gives the service where that runs as this user. A user that is in no table has the directory's group.
    pub fn of(root: &Path, owner: (u32, u32)) -> Self {
        let (uid, dir_gid) = owner;
        let names = Names::read(root);
        let Some((name, gid)) = names.user(uid) else {
            return Self { uid, gid: dir_gid, groups: BTreeSet::from([dir_gid]) };
        };
        let unit = Unit::read(root).filter(|unit| !name.is_empty() && unit.user == name).unwrap_or_default();
        let more: Vec<u32> = unit.groups.iter().filter_map(|(group, _)| names.group(group)).collect();
        let groups =
            names.person(&uid.to_string(), None, &more).map_or_else(BTreeSet::new, |person| person.groups);
        Self { uid, gid, groups }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\notrelay:x:990:980::/:/sbin/nologin\nodd\n:x:7:7::/:\n";
    const GROUP: &str =
        "root:x:0:\nsuricata:x:110:zeek,otrelay\notrelay:x:980:\nadm:x:4:otrelayer\nempty:x:5:\n\n";

    /// A machine with these users, and how to put more files into it.
    fn machine() -> (tempfile::TempDir, impl Fn(&str, &str)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let put = move |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("etc/passwd", PASSWD);
        put("etc/group", GROUP);
        (dir, put)
    }

    #[test]
    fn root_becomes_the_owner_with_the_groups_of_that_user_and_no_others() {
        let (root, _) = machine();
        let check = |owner, gid, groups: &[u32]| {
            let rights = Rights::of(root.path(), owner);
            assert_eq!((rights.uid, rights.gid), (owner.0, gid));
            assert_eq!(rights.groups, groups.iter().copied().collect());
        };
        check((990, 33), 980, &[980, 110]);
        check((54_321, 33), 33, &[33]);
        // A user without a name is in no group that names nobody.
        check((7, 33), 7, &[7]);
    }

    #[test]
    fn root_gets_the_groups_that_the_unit_gives_the_service() {
        let (root, put) = machine();
        let groups = |owner| -> Vec<u32> { Rights::of(root.path(), owner).groups.into_iter().collect() };
        let lib = "usr/lib/systemd/system/otrelay.service";
        let etc = "etc/systemd/system/otrelay.service";
        put(lib, "[Service]\nUser=otrelay\nGroup=otrelay\n#SupplementaryGroups=root\n");
        put(&format!("{lib}.d/10.conf"), "[Service]\nSupplementaryGroups=root\n");
        put(&format!("{etc}.d/10.conf"), "[Service]\nSupplementaryGroups=adm\n");
        put(&format!("{etc}.d/20.conf"), "[Service]\nSupplementaryGroups=empty  nosuch\n");
        put(&format!("{etc}.d/30.conf.off"), "[Service]\nSupplementaryGroups=root\n");
        assert_eq!(groups((990, 33)), [4, 5, 110, 980]);
        // Of another user's directory the unit says nothing.
        assert_eq!(groups((7, 33)), [7]);
        put(&format!("{etc}.d/25.conf"), "[Service]\nSupplementaryGroups=\n");
        assert_eq!(groups((990, 33)), [110, 980]);
        put(etc, "[Service]\nUser=somebody\n");
        assert_eq!(groups((990, 33)), [110, 980]);
    }
}
