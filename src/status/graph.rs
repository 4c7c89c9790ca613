//! Who talks to whom as one SVG, a row for each Purdue level and a column for each zone: a file of its own for `otrelay
//! devices graph`, a part of the page of devices.
//!
//! The layout is pure; every text from outside goes through [`Markup`], which knows no way to write one unescaped. Only so many
//! devices are drawn, those that talk most; what was left out is said in the picture.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::keys::called;
use crate::model::Device;
use crate::model::gather::Gather as _;
use crate::model::markup::{Attribute, Markup};
use crate::model::text::{clip, one_line};
use crate::store::DeviceRow;

/// Where a picture stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// In a file of its own, which brings its look.
    File,
    /// In a page, whose style sheet it follows: the page takes no other.
    Page,
}

impl Frame {
    /// Most devices of one picture. A page is sent again when it changes.
    fn most(self) -> usize {
        match self {
            Self::File => 400,
            Self::Page => 100,
        }
    }
}

/// The level that devices of this one's type usually have; `None`: nothing is usual.
pub type UsualLevel = fn(&Device) -> Option<usize>;

/// A device's box, and the room around it.
const BOX: (usize, usize) = (150, 34);
const GAP: usize = 14;
/// Devices beside one another in a zone.
const ACROSS: usize = 4;
/// Left of the zones, for the names of levels.
const LEFT: usize = 110;
/// Above the levels, for the names of zones.
const TOP: usize = 64;
/// Longest name in a box, in bytes.
const NAME_MAX: usize = 22;
/// Where no level is known.
const NO_LEVEL: usize = 6;

const STYLE: &str = "svg{background:#fff;font:12px system-ui,sans-serif;fill:#1a2733}\
    .zone{fill:#f4f6f8}.level{stroke:#d5dbe1;stroke-dasharray:2 4}.box{fill:#fff;stroke:#54677a}\
    .guessed{stroke-dasharray:4 3}.gone{opacity:.45}.head{font-weight:600}.small{font-size:10px;fill:#54677a}\
    .talk{fill:none;stroke:#2b6cb0;stroke-opacity:.55;stroke-width:1.3}";

/// Name, x, width.
type Zone = (String, usize, usize);
/// Number, y, height.
type Level = (usize, usize, usize);

/// A device in the picture.
struct Node<'a> {
    row: &'a DeviceRow,
    level: usize,
    /// The level is only what devices of its type usually have.
    guessed: bool,
    zone: String,
    x: usize,
    y: usize,
}

/// Who begins, with whom, and by what.
struct Talk {
    from: usize,
    to: usize,
    two_way: bool,
    words: String,
}

/// The picture of these devices.
pub fn draw(rows: &[DeviceRow], usual: UsualLevel, frame: Frame) -> String {
    let (mut nodes, left_out) = nodes(rows, usual, frame.most());
    let (zones, levels) = place(&mut nodes);
    let (talks, outside) = talks(&nodes);
    let width = zones.last().map_or(LEFT + 400, |(_, x, w)| x + w + GAP).max(LEFT + 400);
    let height = levels.last().map_or(TOP, |(_, y, h)| y + h) + 60;
    let mut svg = Svg::new(frame, width, height);
    for (name, x, w) in &zones {
        svg.0.empty(
            "rect",
            &[
                ("class", "zone"),
                ("x", &n(*x)),
                ("y", "34"),
                ("width", &n(*w)),
                ("height", &n(height - 84)),
                ("rx", "6"),
            ],
        );
        svg.text(("head", *x + 8, 54), &short(name, 60));
    }
    for (level, y, _) in &levels {
        let name = if *level == NO_LEVEL { "no level".to_owned() } else { format!("Level {level}") };
        svg.text(("head", 10, y + GAP + 20), &name);
        svg.0.empty(
            "line",
            &[("class", "level"), ("x1", "0"), ("x2", &n(width)), ("y1", &n(*y)), ("y2", &n(*y))],
        );
    }
    for talk in &talks {
        svg.talk(&nodes[talk.from], &nodes[talk.to], talk);
    }
    for node in &nodes {
        svg.node(node);
    }
    svg.text(("head", 10, 22), &format!("{} devices, {} connections", nodes.len(), talks.len()));
    let mut said =
        vec!["an arrow leads from who begins; dashed: the level is guessed from the type".to_owned()];
    said.extend((outside > 0).then(|| format!("{outside} connections lead to what is no known device")));
    said.extend((left_out > 0).then(|| format!("{left_out} devices that talk least are left out")));
    svg.text(("small", 10, height - 16), &said.join("; "));
    svg.finish()
}

fn n(number: usize) -> String {
    number.to_string()
}

fn short(text: &str, most: usize) -> String {
    let line = one_line(text);
    if line.len() <= most { line.into_owned() } else { format!("{}…", clip(&line, most)) }
}

/// The devices that talk most, and how many others there are.
fn nodes(rows: &[DeviceRow], usual: UsualLevel, most: usize) -> (Vec<Node<'_>>, usize) {
    let mut all: Vec<&DeviceRow> = rows.iter().collect();
    all.sort_by_key(|row| (std::cmp::Reverse(row.peers.len()), &row.id));
    let left_out = all.len().saturating_sub(most);
    all.truncate(most);
    (all.into_iter().map(|row| Node::of(row, usual)).collect(), left_out)
}

impl<'a> Node<'a> {
    fn of(row: &'a DeviceRow, usual: UsualLevel) -> Self {
        let d = &row.view.device;
        let told = d.level().map(usize::from);
        let level = told.or_else(|| usual(d)).unwrap_or(NO_LEVEL);
        let zone = d.zone.clone().or_else(|| d.site.clone()).unwrap_or_else(|| "no zone".to_owned());
        Self { row, level, guessed: told.is_none() && level != NO_LEVEL, zone, x: 0, y: 0 }
    }
}

/// Gives each device its place: zones beside one another, levels below one another, the highest on top. Gives the zones
/// (name, x, width) and the levels (number, y, height).
fn place(nodes: &mut [Node<'_>]) -> (Vec<Zone>, Vec<Level>) {
    let mut cells: BTreeMap<(String, usize), usize> = BTreeMap::new();
    for node in nodes.iter() {
        *cells.entry((node.zone.clone(), node.level)).or_default() += 1;
    }
    let names: BTreeSet<&String> = cells.keys().map(|(zone, _)| zone).into_set();
    let (mut zones, mut x) = (Vec::new(), LEFT);
    for name in names {
        let widest = cells.iter().filter(|((zone, _), _)| zone == name).map(|(_, count)| *count).max();
        let across = widest.unwrap_or(1).min(ACROSS);
        let width = across * (BOX.0 + GAP) + GAP;
        zones.push((name.clone(), x, width));
        x += width + GAP;
    }
    let (mut levels, mut y) = (Vec::new(), TOP);
    let order = (0..NO_LEVEL).rev().chain([NO_LEVEL]);
    for level in order {
        let most = cells.iter().filter(|((_, own), _)| *own == level).map(|(_, count)| *count).max();
        let Some(most) = most else { continue };
        let height = most.div_ceil(ACROSS) * (BOX.1 + GAP) + 2 * GAP;
        levels.push((level, y, height));
        y += height;
    }
    let mut used: BTreeMap<(String, usize), usize> = BTreeMap::new();
    for node in nodes.iter_mut() {
        let at = used.entry((node.zone.clone(), node.level)).or_default();
        let left = zones.iter().find(|(name, ..)| *name == node.zone).map_or(LEFT, |(_, x, _)| *x);
        let top = levels.iter().find(|(level, ..)| *level == node.level).map_or(TOP, |(_, y, _)| *y);
        node.x = left + GAP + (*at % ACROSS) * (BOX.0 + GAP);
        node.y = top + GAP + (*at / ACROSS) * (BOX.1 + GAP);
        *at += 1;
    }
    (zones, levels)
}

/// Connections between these, each once, and how many lead elsewhere.
fn talks(nodes: &[Node<'_>]) -> (Vec<Talk>, usize) {
    let places: BTreeMap<&str, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.row.id.as_str(), at)).into_map();
    let (mut all, mut outside): (BTreeMap<(usize, usize), Talk>, usize) = (BTreeMap::new(), 0);
    for (own, node) in nodes.iter().enumerate() {
        for (place, c) in node.row.view.device.connections.iter().enumerate() {
            let peer = node.row.peers.iter().find(|peer| peer.place == place);
            let Some(other) = peer.and_then(|peer| places.get(peer.key.as_str())).copied() else {
                outside += 1;
                continue;
            };
            let turned = if c.two_way { other < own } else { c.inbound };
            let (from, to) = if turned { (other, own) } else { (own, other) };
            let ports: Vec<String> = c.ports.iter().map(u16::to_string).collect();
            let words = [c.protocols.join(", "), ports.join(", ")];
            let words = words.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", port ");
            let two_way = c.two_way;
            let known = all.entry((from, to)).or_insert(Talk { from, to, two_way, words: String::new() });
            if known.words.is_empty() {
                known.words = words;
            }
        }
    }
    (all.into_values().collect(), outside)
}

struct Svg(Markup);

impl Svg {
    fn new(frame: Frame, width: usize, height: usize) -> Self {
        let mut svg = Self(Markup::default());
        let (w, h) = (n(width), n(height));
        let view = format!("0 0 {w} {h}");
        let size = [("width", w.as_str()), ("height", &h), ("viewBox", &view)];
        let own = match frame {
            Frame::File => ("xmlns", "http://www.w3.org/2000/svg"),
            Frame::Page => ("class", "zones"),
        };
        svg.0.open("svg", &[&[own, ("role", "img")], &size[..]].concat());
        svg.with_text("title", &[], "Devices and who talks to whom");
        if frame == Frame::File {
            svg.with_text("style", &[], STYLE);
        }
        svg.0.open("defs", &[]);
        let arrow = [
            ("id", "arrow"),
            ("viewBox", "0 0 8 8"),
            ("refX", "7"),
            ("refY", "4"),
            ("markerWidth", "7"),
            ("markerHeight", "7"),
            ("orient", "auto-start-reverse"),
        ];
        svg.0.open("marker", &arrow);
        svg.0.empty("path", &[("d", "M0 0L8 4L0 8z"), ("fill", "#2b6cb0")]);
        svg.close("marker");
        svg.close("defs");
        svg
    }

    fn finish(mut self) -> String {
        self.close("svg");
        self.0.into_string()
    }

    fn node(&mut self, node: &Node<'_>) {
        let d = &node.row.view.device;
        self.0.open("g", &[("class", if d.deleted { "gone" } else { "" })]);
        let all: Vec<String> = d.ips.iter().map(ToString::to_string).chain(d.macs.iter().cloned()).collect();
        let kind = d.kind.clone().unwrap_or_else(|| "unknown".to_owned());
        let vendor = d.vendor.clone().unwrap_or_default();
        let full = [called(d), kind.clone(), vendor, all.join(", ")];
        let full = full.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        self.with_text("title", &[], &one_line(&full));
        let class = if node.guessed { "box guessed" } else { "box" };
        let (w, h) = (n(BOX.0), n(BOX.1));
        self.0.empty(
            "rect",
            &[
                ("class", class),
                ("x", &n(node.x)),
                ("y", &n(node.y)),
                ("width", &w),
                ("height", &h),
                ("rx", "4"),
            ],
        );
        self.text(("", node.x + 8, node.y + 14), &short(&called(d), NAME_MAX));
        self.text(("small", node.x + 8, node.y + 27), &short(&kind, NAME_MAX + 4));
        self.close("g");
    }

    /// From the edge of one box to the edge of the other.
    fn talk(&mut self, from: &Node<'_>, to: &Node<'_>, talk: &Talk) {
        let middle = |node: &Node<'_>| node.x + BOX.0 / 2;
        let (x1, x2) = (middle(from), middle(to));
        let (y1, y2, bend) = match from.y.cmp(&to.y) {
            std::cmp::Ordering::Less => (from.y + BOX.1, to.y, (to.y - from.y) / 2),
            std::cmp::Ordering::Greater => (from.y, to.y + BOX.1, (from.y - to.y) / 2),
            std::cmp::Ordering::Equal => (from.y, to.y, 0),
        };
        let (c1, c2) = if y1 < y2 {
            (y1 + bend / 2, y2.saturating_sub(bend / 2))
        } else {
            (y1.saturating_sub(24), y2.saturating_sub(24))
        };
        let path = format!("M{x1} {y1}C{x1} {c1} {x2} {c2} {x2} {y2}");
        let start = if talk.two_way { "url(#arrow)" } else { "none" };
        self.0.open(
            "path",
            &[("class", "talk"), ("d", &path), ("marker-end", "url(#arrow)"), ("marker-start", start)],
        );
        let ends = format!("{} → {}", called(&from.row.view.device), called(&to.row.view.device));
        let words = if talk.words.is_empty() { ends } else { format!("{ends}: {}", talk.words) };
        self.with_text("title", &[], &one_line(&words));
        self.close("path");
    }

    fn text(&mut self, (class, x, y): (&str, usize, usize), text: &str) {
        self.with_text("text", &[("class", class), ("x", &n(x)), ("y", &n(y))], text);
    }

    fn with_text(&mut self, name: &'static str, attributes: &[Attribute<'_>], text: &str) {
        self.0.with(name, attributes, text);
        self.0.raw("\n");
    }

    /// Ends a line, too: people open the file.
    fn close(&mut self, name: &'static str) {
        self.0.close(name);
        self.0.raw("\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::merge::View;
    use crate::model::Timestamp;
    use crate::model::device::{Connection, Peer};

    fn row(id: &str, device: Device, peers: Vec<Peer>) -> DeviceRow {
        DeviceRow {
            id: id.to_owned(),
            view: View { device, ..View::default() },
            changed: Vec::new(),
            changed_at: Timestamp::EPOCH,
            told_at: None,
            sys_id: String::new(),
            class: String::new(),
            seen_at: Timestamp::EPOCH,
            peers,
            sources: Vec::new(),
        }
    }

    fn usual(device: &Device) -> Option<usize> {
        device.kind.as_deref().filter(|kind| *kind == "PLC").map(|_| 1)
    }

    fn peer(place: usize, key: &str) -> Peer {
        Peer { place, key: key.to_owned(), ..Peer::default() }
    }

    fn device(name: &str, kind: &str, level: Option<&str>, inbound: &[bool]) -> Device {
        Device {
            name: Some(name.to_owned()),
            kind: Some(kind.to_owned()),
            purdue_level: level.map(str::to_owned),
            connections: inbound
                .iter()
                .map(|inbound| Connection { inbound: *inbound, ports: vec![502], ..Connection::default() })
                .collect(),
            ..Device::default()
        }
    }

    #[test]
    fn levels_are_below_one_another_and_each_connection_is_one_arrow() {
        let rows = [
            row("d1", device("SCADA", "Server", Some("Level 3"), &[false, false]), vec![peer(0, "d2")]),
            row("d2", device("PLC-7", "PLC", None, &[true]), vec![peer(0, "d1")]),
        ];
        let (mut nodes, left_out) = nodes(&rows, usual, 10);
        place(&mut nodes);
        let at = |name: &str| nodes.iter().find(|node| node.row.id == name).unwrap();
        assert!(at("d1").y < at("d2").y && (at("d2").level, at("d2").guessed) == (1, true));
        let (talks, outside) = talks(&nodes);
        assert_eq!((talks.len(), outside, left_out), (1, 1, 0));
        assert_eq!(nodes[talks[0].from].row.id, "d1", "who begins");
        assert_eq!(talks[0].words, "502");
    }

    #[test]
    fn no_text_of_a_sensor_is_an_element_or_ends_one() {
        let evil = "</text><script>alert(1)</script>\u{1}\" onload=\"x&y";
        let device = Device { zone: Some(evil.to_owned()), ..device(evil, evil, None, &[]) };
        let svg = draw(&[row("d1", device, Vec::new())], usual, Frame::File);
        assert!(
            !svg.contains("<script") && !svg.contains("onload=\"x") && svg.contains("&lt;script&gt;"),
            "{svg}"
        );
        assert!(!svg.contains('\u{1}'));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn what_is_left_out_is_said() {
        let most = Frame::File.most();
        let rows: Vec<DeviceRow> = (0..most + 3)
            .map(|n| row(&format!("d{n:04}"), device("x", "PLC", None, &[]), Vec::new()))
            .collect();
        let svg = draw(&rows, usual, Frame::File);
        assert!(svg.contains("3 devices that talk least are left out"));
        assert_eq!(svg.matches("box guessed").count(), most);
        assert!(draw(&[], usual, Frame::File).contains("0 devices"));
    }

    #[test]
    fn in_a_page_it_brings_no_look_that_the_page_would_refuse() {
        let svg = draw(&[row("d1", device("x", "PLC", None, &[]), Vec::new())], usual, Frame::Page);
        assert!(!svg.contains("style") && svg.starts_with("<svg class=\"zones\" role=\"img\""), "{svg}");
    }
}
