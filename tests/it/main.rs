//! Black-box tests: one binary, a module per feature.

mod config_errors;

mod tidy;
