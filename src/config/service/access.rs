//! Whether a person may read or write a path: owner, group, mode and access list of it and of each directory on the way.
//!
//! Answers for somebody else than who runs this, so nothing is tried out. What cannot be looked at blocks nobody here:
//! whoever tries it says so.

use crate::model::gather::Gather as _;
use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const NAMES_MAX: u64 = 4 << 20;
/// Largest access list that is read, in bytes: more than the kernel stores.
const LIST_MAX: usize = 4096;

/// Somebody, as far as files are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) uid: u32,
    pub(super) groups: BTreeSet<u32>,
}

/// Names and numbers of users and groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Name, number, number of the group.
    users: Vec<(String, u32, u32)>,
    /// Name, number, members.
    groups: Vec<(String, u32, Vec<String>)>,
}

impl Names {
    pub(super) fn read(root: &Path) -> Self {
        let rows = |file: &str| -> Vec<Vec<String>> {
            let mut bytes = Vec::new();
            let read = std::fs::File::open(root.join(file))
                .and_then(|file| file.take(NAMES_MAX).read_to_end(&mut bytes));
            // A name that is no UTF-8 is one row's trouble.
            let text = String::from_utf8_lossy(&bytes);
            let row = |line: &str| line.split(':').map(str::to_owned).collect();
            read.map_or(Vec::new(), |_| text.lines().map(row).collect())
        };
        let number = |row: &[String], at: usize| row.get(at)?.parse().ok();
        let user = |row: Vec<String>| Some((row.first()?.clone(), number(&row, 2)?, number(&row, 3)?));
        let group = |row: Vec<String>| {
            let members = row.get(3)?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Some((row.first()?.clone(), number(&row, 2)?, members))
        };
        Self {
            users: rows("etc/passwd").into_iter().filter_map(user).collect(),
            groups: rows("etc/group").into_iter().filter_map(group).collect(),
        }
    }

    /// Name and group of the user of this number.
    pub(super) fn user(&self, number: u32) -> Option<(&str, u32)> {
        let (name, _, group) = self.users.iter().find(|(_, uid, _)| *uid == number)?;
        Some((name, *group))
    }

    /// The number of a group; a number is its own name.
    pub(super) fn group(&self, name: &str) -> Option<u32> {
        let named = self.groups.iter().find(|(group, ..)| group == name).map(|(_, number, _)| *number);
        named.or_else(|| name.parse().ok())
    }

    /// A user with the groups of `/etc/group` and these.
    pub(super) fn person(&self, name: &str, own: Option<u32>, more: &[u32]) -> Option<Person> {
        let known = self.users.iter().find(|(user, number, _)| user == name || number.to_string() == name)?;
        let (user, uid, gid) = known;
        let member = |members: &[String]| members.iter().any(|member| member == user);
        let listed = self.groups.iter().filter(|(.., members)| member(members)).map(|(_, number, _)| *number);
        Some(Person {
            uid: *uid,
            groups: listed.chain([own.unwrap_or(*gid)]).chain(more.iter().copied()).into_set(),
        })
    }

    /// `root:suricata 0640`.
    pub(super) fn owner(&self, of: &Stat) -> String {
        let user = self.user(of.uid).map_or(of.uid.to_string(), |(name, _)| name.to_owned());
        format!("{user}:{} {:04o}", self.group_name(of.gid), of.mode)
    }

    pub(super) fn group_name(&self, number: u32) -> String {
        let group = self.groups.iter().find(|(_, other, _)| *other == number);
        group.map_or(number.to_string(), |(name, ..)| name.clone())
    }
}

/// What of a file or directory decides who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) at: PathBuf,
    pub(super) stat: Stat,
    /// It is a directory on the way, not the thing itself.
    pub(super) on_the_way: bool,
}

/// Whether the person may do this with what is there; of nothing, everybody may do everything.
pub(super) fn may(person: &Person, path: &Path, wanted: Access) -> Result<(), Blocked> {
    let whole = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // As it is written and where its links lead: either way may be barred.
    let mut ways: Vec<&Path> = Vec::new();
    for way in [path, &whole] {
        let mut above: Vec<&Path> = way.ancestors().skip(1).filter(|dir| !ways.contains(dir)).collect();
        above.reverse();
        ways.extend(above);
    }
    for dir in ways {
        check(person, dir, Access::EXEC_OK, true)?;
    }
    check(person, &whole, wanted, false)
}

fn check(person: &Person, path: &Path, wanted: Access, on_the_way: bool) -> Result<(), Blocked> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
    let wanted = if metadata.is_dir() { wanted | Access::EXEC_OK } else { wanted };
    let bits = wanted.bits() & 7;
    if allows(person, &metadata, &list(path), bits) {
        return Ok(());
    }
    let stat = Stat { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 };
    Err(Blocked { at: path.to_owned(), stat, on_the_way })
}

/// The access list as the kernel keeps it; empty where there is none.
fn list(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; LIST_MAX];
    let length = rustix::fs::getxattr(path, "system.posix_acl_access", bytes.as_mut_slice()).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

/// The decision of acl(5), which is that of the mode where there is no list.
fn allows(person: &Person, metadata: &Metadata, list: &[u8], bits: u32) -> bool {
    let has = |granted: u32| granted & bits == bits;
    if person.uid == 0 {
        return true;
    }
    if person.uid == metadata.uid() {
        return has(metadata.mode() >> 6);
    }
    let own_group = person.groups.contains(&metadata.gid());
    let entries: Vec<(u16, u32, u32)> =
        list.get(4..).unwrap_or_default().chunks_exact(8).filter_map(entry).collect();
    let of = |tag: u16| entries.iter().find(|(other, ..)| *other == tag).map(|(_, granted, _)| *granted);
    let mask = of(MASK).unwrap_or(7);
    if let Some((_, granted, _)) = entries.iter().find(|(tag, _, id)| *tag == USER && *id == person.uid) {
        return has(granted & mask);
    }
    // With a list, the group's bits of the mode are the mask.
    let group = of(GROUP_OBJ).map_or(metadata.mode() >> 3, |granted| granted & mask);
    let named = entries.iter().filter(|(tag, _, id)| *tag == GROUP && person.groups.contains(id));
    let mut groups =
        own_group.then_some(group).into_iter().chain(named.map(|(_, granted, _)| granted & mask)).peekable();
    if groups.peek().is_some() {
        return groups.any(has);
    }
    has(metadata.mode())
}

const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;

/// Tag, permissions, number.
fn entry(bytes: &[u8]) -> Option<(u16, u32, u32)> {
    let (tag, granted) = (bytes.get(..2)?, bytes.get(2..4)?);
    let id = bytes.get(4..8)?;
    Some((
        u16::from_le_bytes(tag.try_into().ok()?),
        u32::from(u16::from_le_bytes(granted.try_into().ok()?)),
        u32::from_le_bytes(id.try_into().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn someone(groups: &[u32]) -> Person {
        Person { uid: 64_001, groups: groups.iter().copied().collect() }
    }

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn owner_group_and_others_have_their_bits() {
        let dir = tempfile::tempdir().unwrap();
        set(dir.path(), 0o755);
        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        let gid = std::fs::metadata(&file).unwrap().gid();
        let can = |mode: u32, person: &Person| {
            set(&file, mode);
            may(person, &file, Access::READ_OK).is_ok()
        };
        let (stranger, member) = (someone(&[64_001]), someone(&[gid]));
        assert!(can(0o604, &stranger) && !can(0o640, &stranger) && !can(0o600, &stranger));
        assert!(can(0o640, &member) && !can(0o604, &member) && !can(0o600, &member));
        // Root is never asked for its own.
        assert!(can(0, &Person { uid: 0, groups: BTreeSet::new() }));
    }

    #[test]
    fn a_directory_on_the_way_bars_the_file() {
        let dir = tempfile::tempdir().unwrap();
        set(dir.path(), 0o755);
        let (inner, link) = (dir.path().join("in"), dir.path().join("link"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("f"), "").unwrap();
        std::os::unix::fs::symlink(inner.join("f"), &link).unwrap();
        set(&inner.join("f"), 0o644);
        for (mode, fine) in [(0o755, true), (0o711, true), (0o744, false), (0o700, false)] {
            set(&inner, mode);
            for path in [&inner.join("f"), &link] {
                let result = may(&someone(&[1]), path, Access::READ_OK);
                assert_eq!(result.is_ok(), fine, "{mode:o} {}", path.display());
                if let Err(blocked) = result {
                    assert_eq!((blocked.at.as_path(), blocked.on_the_way), (inner.as_path(), true));
                }
            }
        }
        assert!(may(&someone(&[1]), &dir.path().join("none"), Access::READ_OK).is_ok());
    }

    #[test]
    fn an_access_list_counts_before_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        set(&file, 0o660);
        let metadata = std::fs::metadata(&file).unwrap();
        let list = |entries: &[(u16, u16, u32)]| {
            let mut bytes = 2_u32.to_le_bytes().to_vec();
            for (tag, granted, id) in entries {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(granted.to_le_bytes());
                bytes.extend(id.to_le_bytes());
            }
            bytes
        };
        let allowed =
            |entries: &[(u16, u16, u32)], person: &Person| allows(person, &metadata, &list(entries), 4);
        let none = u32::MAX;
        let base = [(1, 6, none), (GROUP_OBJ, 0, none), (MASK, 6, none), (32, 0, none)];
        let with = |entry: (u16, u16, u32)| [&base[..], &[entry]].concat();
        assert!(allowed(&with((USER, 4, 64_001)), &someone(&[])));
        assert!(!allowed(&with((USER, 0, 64_001)), &someone(&[])));
        assert!(allowed(&with((GROUP, 4, 77)), &someone(&[77])));
        // The mode has 0060 here, and it is the mask's: the group itself has nothing.
        assert!(!allowed(&base, &someone(&[metadata.gid()])));
        let masked = [(1, 6, none), (USER, 4, 64_001), (GROUP_OBJ, 0, none), (MASK, 2, none), (32, 0, none)];
        assert!(!allowed(&masked, &someone(&[])));
        // Cut off: what can be read of it counts.
        assert!(!allows(&someone(&[]), &metadata, &[2, 0, 0, 0, 9], 4));
    }

    #[test]
    fn people_have_the_groups_of_the_file_and_of_the_unit() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/:/bin/sh\nbroken\notrelay:x:999:998::/:/x\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("etc/group"),
            "otrelay:x:998:\nadm:x:4:a,otrelay\nsuricata:x:7:\nodd:x\n",
        )
        .unwrap();
        let names = Names::read(dir.path());
        let person = names.person("otrelay", None, &[7]).unwrap();
        assert_eq!((person.uid, person.groups), (999, BTreeSet::from([4, 7, 998])));
        assert_eq!(
            (names.group("suricata"), names.group("12"), names.group("none")),
            (Some(7), Some(12), None)
        );
        assert_eq!(names.person("nobody", None, &[]), None);
        assert_eq!(names.owner(&Stat { uid: 0, gid: 7, mode: 0o640 }), "root:suricata 0640");
        assert_eq!(Names::read(&dir.path().join("none")).person("otrelay", None, &[]), None);
    }
}
