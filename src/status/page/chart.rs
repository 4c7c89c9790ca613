//! Geometry of the two pictures: what became of what came in, and bars over time. Pure: numbers in, shapes out; the
//! templates write them.

use serde::Serialize;

use super::words::{clean, number, short};
use crate::model::Severity;
use crate::store::{Counts, HistoryPoint, Ring};

/// Widest sum of bands on one side, in units of the picture.
const BANDS: f64 = 210.0;
/// Between two boxes.
const GAP: f64 = 12.0;
/// Sources that have a box of their own.
const SOURCES: usize = 5;
const BARS: f64 = 96.0;

/// A band: from one height to another, so wide.
#[derive(Debug, Serialize)]
pub(super) struct Band {
    class: &'static str,
    from: f64,
    to: f64,
    width: f64,
}

/// A box with lines of text.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    class: &'static str,
    y: f64,
    height: f64,
    title: String,
    lines: Vec<(f64, String)>,
    title_y: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Flow {
    height: f64,
    left: Vec<Place>,
    right: Vec<Place>,
    middle: Place,
    bands_in: Vec<Band>,
    bands_out: Vec<Band>,
    words: String,
}

/// What goes in or comes out: its class, its number, its title and lines below it.
pub(super) struct Part {
    pub(super) class: &'static str,
    pub(super) count: i64,
    pub(super) title: String,
    pub(super) lines: Vec<String>,
}

/// The flow from sources through so many rules to what became of it; `None`: nothing came.
pub(super) fn flow(mut sources: Vec<Part>, rules: usize, outcomes: &[Part]) -> Option<Flow> {
    let total: i64 = sources.iter().map(|part| part.count).sum();
    sources.retain(|part| part.count > 0);
    if total <= 0 {
        return None;
    }
    sources.sort_by_key(|part| std::cmp::Reverse(part.count));
    if sources.len() > SOURCES {
        let rest = sources.split_off(SOURCES - 1);
        sources.push(Part {
            class: "in",
            count: rest.iter().map(|part| part.count).sum(),
            title: format!("{} others", rest.len()),
            lines: Vec::new(),
        });
    }
    let words: Vec<String> = outcomes.iter().map(|part| clean(&part.title)).collect();
    let words = format!("{} alerts: {}", number(total), words.join(", "));
    let root = |parts: &[Part]| parts.iter().map(|part| (part.count.max(0) as f64).sqrt()).sum::<f64>();
    // Square roots, so that a few dead letters stay visible beside many alerts.
    let scale = BANDS / root(&sources).max(root(outcomes)).max(1.0);
    let (left, left_widths, left_height) = places(&sources, scale, 20);
    let (right, right_widths, right_height) = places(outcomes, scale, 44);
    let most = left_widths.iter().sum::<f64>().max(right_widths.iter().sum());
    let middle_height = (most + 16.0).max(62.0);
    let height = left_height.max(right_height).max(middle_height) + 20.0;
    let top = (height - middle_height) / 2.0;
    let mut left = left;
    let shift = (height - left_height) / 2.0;
    for place in &mut left {
        place.move_by(shift);
    }
    let mut right = right;
    let shift = (height - right_height) / 2.0;
    for place in &mut right {
        place.move_by(shift);
    }
    let bands_in = bands(&sources, &left, &left_widths, height / 2.0, true);
    let bands_out = bands(outcomes, &right, &right_widths, height / 2.0, false);
    let middle = Place {
        class: "rules",
        y: round(top),
        height: round(middle_height),
        title: if rules == 1 { "1 rule".to_owned() } else { format!("{rules} rules") },
        lines: vec![(round(height / 2.0 + 14.0), format!("{} alerts", number(total)))],
        title_y: round(height / 2.0 - 4.0),
    };
    Some(Flow { height: round(height), left, right, middle, bands_in, bands_out, words })
}

/// Boxes below one another, the widths of their bands, and the height of all.
fn places(parts: &[Part], scale: f64, most: usize) -> (Vec<Place>, Vec<f64>, f64) {
    let (mut all, mut widths, mut y) = (Vec::new(), Vec::new(), 0.0);
    for part in parts {
        let width = ((part.count.max(0) as f64).sqrt() * scale).max(2.0);
        let text = 20.0 + 18.0 * part.lines.len() as f64;
        let height = (width + 8.0).max(text + 14.0);
        // The text stands in the middle of its box.
        let first = y + (height - text) / 2.0 + 14.0;
        let line =
            |(at, text): (usize, &String)| (round(first + 18.0 * (at as f64 + 1.0)), short(text, most));
        all.push(Place {
            class: part.class,
            y: round(y),
            height: round(height),
            title: short(&part.title, most),
            lines: part.lines.iter().enumerate().map(line).collect(),
            title_y: round(first),
        });
        widths.push(width);
        y += height + GAP;
    }
    (all, widths, (y - GAP).max(0.0))
}

impl Place {
    fn move_by(&mut self, shift: f64) {
        self.y = round(self.y + shift);
        self.title_y = round(self.title_y + shift);
        for (y, _) in &mut self.lines {
            *y = round(*y + shift);
        }
    }
}

/// Bands between boxes and the middle, where they lie on one another around `center`.
fn bands(parts: &[Part], places: &[Place], widths: &[f64], center: f64, inwards: bool) -> Vec<Band> {
    let mut y = center - widths.iter().sum::<f64>() / 2.0;
    let mut all = Vec::new();
    for ((part, place), width) in parts.iter().zip(places).zip(widths) {
        let (outer, inner) = (place.y + place.height / 2.0, y + width / 2.0);
        let (from, to) = if inwards { (outer, inner) } else { (inner, outer) };
        if part.count > 0 {
            all.push(Band { class: part.class, from: round(from), to: round(to), width: round(*width) });
        }
        y += width;
    }
    all
}

fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

#[derive(Debug, Serialize)]
struct Bar {
    class: &'static str,
    x: f64,
    y: f64,
    height: f64,
}

/// Bars over time, stacked by severity.
#[derive(Debug, Serialize)]
pub(super) struct Bars {
    width: f64,
    bar: f64,
    columns: Vec<Bar>,
    labels: Vec<(f64, String)>,
    most: String,
    words: String,
    total: i64,
}

/// What came in each slot of a ring, by severity, the oldest first; the last one is the present.
pub(super) fn by_slot(ring: Ring, points: &[HistoryPoint], counts: &Counts, now: i64) -> Vec<[i64; 4]> {
    let first = now - ring.kept() + 1;
    let mut slots = vec![[0; 4]; ring.kept() as usize];
    for (at, point) in points.iter().enumerate() {
        let after = points.get(at + 1).map_or(counts, |next| &next.counts);
        let Some(slot) = usize::try_from(point.slot - first).ok().and_then(|slot| slots.get_mut(slot)) else {
            continue;
        };
        *slot = Severity::ALL.map(|severity| {
            let of = |counts: &Counts| counts.get("severity").and_then(|c| c.get(severity.as_str())).copied();
            (of(after).unwrap_or(0) - of(&point.counts).unwrap_or(0)).max(0)
        });
    }
    slots
}

/// The picture of them; `label` gives the text below a slot, if it has one.
pub(super) fn bars(slots: &[[i64; 4]], label: impl Fn(usize) -> Option<String>) -> Bars {
    let sums: Vec<i64> = slots.iter().map(|slot| slot.iter().sum()).collect();
    let (total, most) = (sums.iter().sum(), sums.iter().copied().max().unwrap_or(0));
    let width = 1_120.0;
    let step = (width - 16.0) / slots.len().max(1) as f64;
    let mut columns = Vec::new();
    for (at, slot) in slots.iter().enumerate() {
        let mut y = BARS + 10.0;
        for severity in Severity::ALL {
            let n = slot[severity as usize];
            if n == 0 {
                continue;
            }
            // What is there at all is seen.
            let height = (BARS * n as f64 / most as f64).max(1.5);
            y -= height;
            let x = round(8.0 + at as f64 * step);
            columns.push(Bar { class: severity.as_str(), x, y: round(y), height: round(height) });
        }
    }
    let labels =
        (0..slots.len()).filter_map(|at| Some((round(8.0 + at as f64 * step), label(at)?))).collect();
    let by_severity: Vec<String> = (Severity::ALL.into_iter().rev())
        .map(|severity| (severity, slots.iter().map(|slot| slot[severity as usize]).sum::<i64>()))
        .filter(|(_, n)| *n > 0)
        .map(|(severity, n)| format!("{} {severity}", number(n)))
        .collect();
    let peak = sums.iter().position(|sum| *sum == most).unwrap_or(0);
    let words = if total == 0 {
        "no alerts".to_owned()
    } else {
        let ago = slots.len() - 1 - peak;
        format!(
            "{} alerts: {}; the most, {}, {ago} bars before now",
            number(total),
            by_severity.join(", "),
            number(most)
        )
    };
    Bars { width, bar: round(step * 0.78), columns, labels, most: number(most), words, total }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(count: i64, title: &str) -> Part {
        Part { class: "in", count, title: title.to_owned(), lines: vec!["x".to_owned()] }
    }

    fn counts(minor: i64) -> Counts {
        [("severity".to_owned(), [("minor".to_owned(), minor)].into())].into()
    }

    #[test]
    fn nothing_that_came_is_no_picture() {
        assert!(flow(Vec::new(), 3, &[part(0, "a")]).is_none());
        assert!(flow(vec![part(0, "a")], 3, &[]).is_none());
    }

    #[test]
    fn boxes_do_not_overlap_and_lie_within_the_picture() {
        let sources = (1..=9).map(|n| part(n * n * 1_000, &format!("s{n}"))).collect();
        let flow = flow(sources, 2, &[part(280_000, "a"), part(1, "b"), part(0, "c")]).unwrap();
        assert_eq!(flow.left.len(), SOURCES);
        assert_eq!(flow.left[SOURCES - 1].title, "5 others");
        for places in [&flow.left, &flow.right] {
            for pair in places.windows(2) {
                assert!(pair[0].y + pair[0].height <= pair[1].y, "{places:?}");
            }
            assert!(places[0].y >= 0.0 && places.iter().all(|p| p.y + p.height <= flow.height), "{places:?}");
        }
        assert_eq!(flow.bands_out.len(), 2, "what is none has no band");
        assert!(flow.bands_out[1].width >= 2.0, "what is little is seen");
        assert!(flow.bands_in.iter().map(|band| band.width).sum::<f64>() <= BANDS + 1.0);
    }

    #[test]
    fn a_slot_has_the_difference_of_its_counters() {
        let now = 1_000;
        let points =
            [(960, 5), (997, 10), (1_000, 30)].map(|(slot, n)| HistoryPoint { slot, counts: counts(n) });
        let slots = by_slot(Ring::HalfHour, &points, &counts(31), now);
        assert_eq!(slots.len(), 48);
        let minor = |slot: i64| slots[(slot - now + 47) as usize][1];
        assert_eq!((minor(960), minor(997), minor(998), minor(1_000)), (5, 20, 0, 1));
    }

    #[test]
    fn counters_that_were_made_anew_and_rows_of_another_time_do_no_harm() {
        let points =
            [(5, 9), (1_000, 100), (2_000, 1)].map(|(slot, n)| HistoryPoint { slot, counts: counts(n) });
        let slots = by_slot(Ring::Day, &points, &Counts::new(), 1_000);
        assert!(slots.iter().flatten().all(|n| *n == 0));
    }

    #[test]
    fn bars_are_as_high_as_they_are_many() {
        let picture = bars(&[[0; 4], [3, 1, 0, 0], [0, 2, 0, 0]], |at| (at == 1).then(|| "10:00".to_owned()));
        assert_eq!((picture.total, picture.columns.len(), picture.labels.len()), (6, 3, 1));
        assert!((picture.columns[0].height + picture.columns[1].height - BARS).abs() < 0.2);
        assert_eq!(picture.words, "6 alerts: 3 minor, 3 warning; the most, 4, 1 bars before now");
        assert_eq!(bars(&[[0; 4]], |_| None).words, "no alerts");
    }
}
