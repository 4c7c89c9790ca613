//! Formats of the field: pure functions from bytes to alerts. No I/O, no clock, no async; each has a fuzz target.

pub mod eve;
