//! The manufacturer by the first three bytes of a MAC, where no source names one: from the list of the IEEE that the system
//! has (package `ieee-data` or `hwdata`). Without it nothing is known; nothing is asked over the network.
//!
//! Only where each entry stands is kept in memory, some 300 KiB, and only once a device needs it; the name is read from the
//! file then.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;

use crate::device::keys::own_macs;
use crate::device::merge::{Origin, View};
use crate::model::Timestamp;
use crate::model::text::{clip, one_line};

/// Where the list is, by distribution.
const FILES: [&str; 3] =
    ["/usr/share/ieee-data/oui.txt", "/var/lib/ieee-data/oui.txt", "/usr/share/hwdata/oui.txt"];
/// Most of it that is read, in bytes; it has some 6 MB.
const FILE_MAX: u64 = 32 << 20;
/// Most entries that are kept.
const ENTRIES_MAX: usize = 200_000;
/// Longest line, and longest name that is taken, in bytes.
const LINE_MAX: usize = 256;
const NAME_MAX: usize = 100;
/// What stands between the three bytes and the name.
const HEX: &str = "(hex)";
/// Who says it, among the sources of a device.
const SAYS: &str = "the IEEE's list";

/// The list, read when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Vendors {
    opened: bool,
    file: Option<File>,
    /// Three bytes and where their line begins, in order.
    entries: Vec<(u32, u32)>,
}

impl Vendors {
    /// Names the manufacturer where no source does.
    pub(super) fn fill(&mut self, view: &mut View, now: Timestamp) {
        if view.device.vendor.is_some() {
            return;
        }
        let prefixes: Vec<u32> = own_macs(&view.device).filter_map(prefix).collect();
        if let Some(vendor) = prefixes.into_iter().find_map(|prefix| self.name(prefix)) {
            view.from.insert("vendor".to_owned(), Origin { source: SAYS.to_owned(), at: now });
            view.device.vendor = Some(vendor);
        }
    }

    fn name(&mut self, prefix: u32) -> Option<String> {
        if !self.opened {
            self.open(&FILES);
        }
        let at = self.entries.binary_search_by_key(&prefix, |(known, _)| *known).ok()?;
        let mut line = [0; LINE_MAX];
        let read = self.file.as_ref()?.read_at(&mut line, u64::from(self.entries[at].1)).ok()?;
        let line = String::from_utf8_lossy(&line[..read]);
        let line = line.lines().next()?;
        // Whoever replaced the file in its place meanwhile has other lines there.
        if entry(line) != Some(prefix) {
            return None;
        }
        let (_, name) = line.split_once(HEX)?;
        let name = one_line(name.trim());
        let says_nothing = ["", "Private", "IEEE Registration Authority"].contains(&name.as_ref());
        (!says_nothing).then(|| clip(&name, NAME_MAX).into_owned())
    }

    /// The first of these that can be read.
    fn open(&mut self, files: &[&str]) {
        self.opened = true;
        let Some(file) = files.iter().find_map(|path| File::open(path).ok()) else { return };
        let (mut at, mut line) = (0, Vec::new());
        let mut text = BufReader::new((&file).take(FILE_MAX));
        while self.entries.len() < ENTRIES_MAX {
            line.clear();
            match text.read_until(b'\n', &mut line) {
                Ok(1..) => {}
                _ => break,
            }
            self.entries.extend(std::str::from_utf8(&line).ok().and_then(entry).map(|prefix| (prefix, at)));
            at = at.saturating_add(u32::try_from(line.len()).unwrap_or(u32::MAX));
        }
        drop(text);
        self.entries.sort_unstable();
        self.entries.dedup_by_key(|(prefix, _)| *prefix);
        self.entries.shrink_to_fit();
        self.file = Some(file);
    }
}

/// The three bytes at the beginning of an entry: `00-1B-1B   (hex)`, then the name.
fn entry(line: &str) -> Option<u32> {
    let (bytes, rest) = line.split_at_checked(8)?;
    if !rest.trim_start().starts_with(HEX) {
        return None;
    }
    let mut parts = bytes.split('-').map(|part| u32::from_str_radix(part, 16).ok());
    let (a, b, c) = (parts.next()??, parts.next()??, parts.next()??);
    (parts.next().is_none() && a.max(b).max(c) <= 0xff).then_some(a << 16 | b << 8 | c)
}

/// The three bytes of a MAC that were given to a manufacturer; one that was made up locally has none.
fn prefix(mac: &str) -> Option<u32> {
    let byte = |at: usize| u32::from_str_radix(mac.get(at..at + 2)?, 16).ok();
    let (a, b, c) = (byte(0)?, byte(3)?, byte(6)?);
    (a & 2 == 0).then_some(a << 16 | b << 8 | c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Device;

    const LIST: &str = "OUI/MA-L\t\tOrganization\n\n00-1B-1B   (hex)\t\tSiemens AG\u{1b}[2J\n001B1B     (base 16)\t\tno\n\
        \t\t\tFrankenstrasse\n00-00-BC   (hex)\t\tRockwell Automation\n00-50-C2   (hex)\t\tIEEE Registration Authority\n\
        zz-00-00   (hex)\t\tno\n\u{ff}-00";

    fn vendor(vendors: &mut Vendors, device: Device) -> Option<String> {
        let mut view = View { device, ..View::default() };
        vendors.fill(&mut view, Timestamp::EPOCH);
        assert_eq!(view.from.contains_key("vendor"), view.device.vendor.is_some());
        view.device.vendor
    }

    fn of(mac: &str) -> Device {
        Device { macs: vec![mac.to_owned()], macs_are_own: true, ..Device::default() }
    }

    #[test]
    fn the_list_names_who_made_it_and_only_where_it_can_know() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oui.txt");
        std::fs::write(&path, LIST).unwrap();
        let mut vendors = Vendors::default();
        vendors.open(&["/nonexistent/oui.txt", path.to_str().unwrap()]);
        assert_eq!(vendors.entries.len(), 3);
        let made = vendor(&mut vendors, of("00:1b:1b:aa:bb:cc")).unwrap();
        assert!(made.starts_with("Siemens AG") && !made.contains('\u{1b}'), "{made:?}");
        assert_eq!(vendor(&mut vendors, of("00:00:bc:00:00:01")).as_deref(), Some("Rockwell Automation"));
        for unknown in ["00:50:c2:00:00:01", "02:1b:1b:aa:bb:cc", "00:1b:1c:aa:bb:cc"] {
            assert_eq!(vendor(&mut vendors, of(unknown)), None, "{unknown}");
        }
        let routers = Device { macs_are_own: false, ..of("00:1b:1b:aa:bb:cc") };
        assert_eq!(vendor(&mut vendors, routers), None);
        // Another list in its place: what was remembered of the first is not believed.
        let other = LIST.replace("00-1B-1B", "00-1B-1D");
        std::fs::write(&path, other).unwrap();
        assert_eq!(vendor(&mut vendors, of("00:1b:1b:aa:bb:cc")), None);
    }

    #[test]
    fn a_source_that_names_one_is_believed_and_without_a_list_nothing_is_known() {
        let mut vendors = Vendors { opened: true, ..Vendors::default() };
        let told = Device { vendor: Some("ACME".to_owned()), ..of("00:1b:1b:aa:bb:cc") };
        let mut view = View { device: told, ..View::default() };
        vendors.fill(&mut view, Timestamp::EPOCH);
        assert_eq!(view.device.vendor.as_deref(), Some("ACME"));
        assert!(view.from.is_empty());
        assert_eq!(vendor(&mut vendors, of("00:1b:1b:aa:bb:cc")), None);
    }
}
