//! Black-box tests: one binary, a module per feature.

#[cfg(test)]
mod config_errors;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod servicenow;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod simulator;
#[cfg(test)]
mod tidy;
