//! What several sources say of the devices of a plant, put together. Pure: values in, values out.
//!
//! `keys` says by what two sightings are known to be one device, `merge` makes one view of what the sources say, `diff`
//! says which parts of a view have changed, `ends` which device an alert is about. Stored by `store`, told by `relay` and `servicenow`.

pub mod diff;
pub mod ends;
pub mod keys;
pub mod merge;

#[cfg(test)]
mod tests;
