//! Black-box tests: one binary, a module per feature.

#[cfg(test)]
mod config_errors;
#[cfg(all(test, feature = "simulator"))]
mod servicenow;
#[cfg(all(test, feature = "simulator"))]
mod simulator;
#[cfg(test)]
mod tidy;
