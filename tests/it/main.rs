//! Black-box tests: one binary, a module per feature.

#[cfg(all(test, feature = "simulator"))]
mod alert_to_incident;
#[cfg(all(test, feature = "simulator"))]
mod bad_input;
#[cfg(all(test, feature = "simulator"))]
mod cli;
#[cfg(test)]
mod config_errors;
#[cfg(all(test, feature = "simulator"))]
mod lost_answer;
#[cfg(all(test, feature = "simulator"))]
mod outage;
#[cfg(all(test, feature = "simulator"))]
mod rotation;
#[cfg(all(test, feature = "simulator"))]
mod rules_change;
#[cfg(all(test, feature = "simulator"))]
mod secrets;
#[cfg(all(test, feature = "simulator"))]
mod servicenow;
#[cfg(all(test, feature = "simulator"))]
mod simulator;
#[cfg(all(test, feature = "simulator"))]
mod support;
#[cfg(test)]
mod tidy;
