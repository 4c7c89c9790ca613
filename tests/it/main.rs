//! Black-box tests: one binary, a module per feature.

#[cfg(feature = "simulator")]
mod servicenow;
