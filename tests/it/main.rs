//! Black-box tests: one binary, a module per feature.
//!
//! `cfg(test)` stands on a line of its own: only so clippy knows the helpers for test code.

#[cfg(feature = "simulator")]
#[cfg(test)]
mod affected;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod alert_to_incident;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod auth;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod backup;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod bad_input;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod canary;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod cli;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod clock;
#[cfg(test)]
mod config_errors;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod corruption;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod decoys;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod defender;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod devices;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod diag;
#[cfg(test)]
mod docs;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod doctor;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod endings;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod host;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod init;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod instance_setup;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod life;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod limits;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod lists;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod lost_answer;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod outage;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod page;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod pushed;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod reasons;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod redact;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod rehearsal;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod reload;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod rewind;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod rotation;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod rules_change;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod said;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod secrets;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod servicenow;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod simulator;
mod storms;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod support;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod syslog;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod systemd;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod tables;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod tap;
#[cfg(test)]
mod tidy;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod tls;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod top;
#[cfg(feature = "simulator")]
#[cfg(test)]
mod zeek;
