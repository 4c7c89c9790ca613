//! Maps and sets that are filled one by one. `collect` sorts first, and the library's sort is made anew for each place:
//! five kilobytes of the program for lists of a handful.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// What `collect` does, without a sort.
pub trait Gather: Iterator + Sized {
    /// Of several with the same key the last one counts.
    fn into_map<K: Ord, V>(self) -> BTreeMap<K, V>
    where
        Self: Iterator<Item = (K, V)>,
    {
        let mut map = BTreeMap::new();
        self.for_each(|(key, value)| drop(map.insert(key, value)));
        map
    }

    /// Each once.
    fn into_set<K: Ord>(self) -> BTreeSet<K>
    where
        Self: Iterator<Item = K>,
    {
        let mut set = BTreeSet::new();
        set.extend(self);
        set
    }

    /// The same as JSON.
    fn into_object(self) -> Map<String, Value>
    where
        Self: Iterator<Item = (String, Value)>,
    {
        let mut object = Map::new();
        self.for_each(|(key, value)| drop(object.insert(key, value)));
        object
    }
}

impl<I: Iterator> Gather for I {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_collect_makes() {
        let pairs = [("b", 1), ("a", 2), ("b", 3)];
        assert_eq!(pairs.into_iter().into_map(), pairs.into_iter().collect());
        assert_eq!([3, 1, 3].into_iter().into_set(), BTreeSet::from([1, 3]));
        let json = |n: i32| ("k".to_owned(), Value::from(n));
        let object: Map<_, _> = [json(1), json(2)].into_iter().collect();
        assert_eq!([json(1), json(2)].into_iter().into_object(), object);
    }
}
