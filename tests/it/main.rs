//! Black-box tests: one binary, a module per feature.

#[cfg(test)]
#[cfg(feature = "simulator")]
mod simulator;
