//! The titles of the product's alerts: which engine raises them, their category, their usual severity. Neither the API
//! nor all of its syslog forms say these; the title does. A title that is not in the list is as good an alert as any.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::model::{Engine, Severity};

/// What a title says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which engine raises it.
    pub engine: Engine,
    /// Category, called alert group by some of the forms.
    pub category: &'static str,
    /// Severity unless a user of the sensor changed it.
    pub severity: Severity,
}

const LIST: &str = include_str!("titles.txt");

static BY_TITLE: LazyLock<HashMap<String, Known>> = LazyLock::new(|| {
    let mut group = None;
    let mut all = HashMap::new();
    for line in LIST.lines() {
        if let Some(heading) = line.strip_prefix('[') {
            group = heading.trim_end_matches(']').split_once(": ");
        } else if let (Some((engine, category)), Some((letter, title))) = (group, line.split_once(' ')) {
            let known = Engine::parse(engine).zip(severity(letter));
            all.extend(known.map(|(engine, severity)| (fold(title), Known { engine, category, severity })));
        }
    }
    all
});

fn severity(letter: &str) -> Option<Severity> {
    Some(match letter {
        "C" => Severity::Critical,
        "M" => Severity::Major,
        "m" => Severity::Minor,
        "w" => Severity::Warning,
        _ => return None,
    })
}

fn fold(title: &str) -> String {
    title.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// What the title says: compared without case, and once more without a suffix in brackets; `None` for one that is not
/// in the list.
pub fn known(title: &str) -> Option<Known> {
    let folded = fold(title);
    if let Some(known) = BY_TITLE.get(&folded) {
        return Some(*known);
    }
    let bare = folded.rsplit_once(" (").filter(|(_, rest)| rest.ends_with(')'))?.0;
    BY_TITLE.get(bare).copied()
}

/// The list's own spelling of a category, for one that is written in another way (`Restart/ Stop Commands`); `None`
/// for one that no title has.
pub fn category(written: &str) -> Option<&'static str> {
    let fold = |text: &str| {
        let letters = text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase);
        letters.collect::<String>().replace("restartandstop", "restart/stop")
    };
    let wanted = fold(written);
    BY_TITLE.values().map(|known| known.category).find(|category| fold(category) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_understood() {
        let titles = LIST.lines().filter(|line| !line.starts_with(['#', '['])).count();
        assert_eq!((titles, BY_TITLE.len()), (202, 202));
        let severities = Severity::ALL.map(|s| BY_TITLE.values().filter(|known| known.severity == s).count());
        assert_eq!(severities, [26, 11, 123, 42]);
    }

    #[test]
    fn titles_are_found_however_they_are_written() {
        let scan = Known { engine: Engine::Anomaly, category: "Scan", severity: Severity::Critical };
        assert_eq!(known("Address Scan Detected"), Some(scan));
        assert_eq!(known(" address scan  DETECTED"), Some(scan));
        assert_eq!(known("Traffic Detected on sensor Interface").unwrap().category, "Sensor Traffic");
        assert_eq!(
            known("Suspicion of Malicious Activity (Stuxnet)").unwrap().category,
            "Suspicion of Malware"
        );
        assert_eq!(
            known("Suspicion of Malicious Activity (Novel)").unwrap().category,
            "Suspicion of Malicious Activity"
        );
        assert_eq!(known("A title of tomorrow"), None);
        assert_eq!(known(""), None);
    }

    #[test]
    fn categories_have_one_spelling() {
        assert_eq!(category("restart/ stop commands"), Some("Restart/Stop Commands"));
        assert_eq!(category("Restart and stop commands"), Some("Restart/Stop Commands"));
        assert_eq!(category("Suspicion of malicious activity"), Some("Suspicion of Malicious Activity"));
        assert_eq!(category("NA"), None);
    }
}
