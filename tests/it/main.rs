//! Black-box tests: one binary, a module per feature.

#[cfg(test)]
#[cfg(feature = "simulator")]
mod alert_to_incident;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod bad_input;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod cli;
#[cfg(test)]
mod config_errors;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod lost_answer;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod outage;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod rotation;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod rules_change;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod secrets;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod servicenow;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod simulator;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod support;
#[cfg(test)]
mod tidy;
