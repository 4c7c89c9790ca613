//! otrelay carries OT/IoT security alerts from on-prem sensors into ServiceNow.
//!
//! **An alert's path.** [`source`] reads a line and makes an alert of it; [`rules`] says where it goes and why;
//! [`intake`] commits it with its deliveries and the file's cursor; [`store`] keeps it; [`relay`] claims what is
//! due and calls the [`destination`]; [`servicenow`] finds or creates the ticket; [`relay`] settles with what became of it;
//! [`sync`] takes home what becomes of the ticket there.
//!
//! The modules below stand in that order; `ARCHITECTURE.md` has the invariants, `tests/it/tidy.rs` the import table.

// Wiring: sees every room below; no room sees it.
pub mod cli;

pub mod app;

pub mod config;

// Loops and edges, in the order an alert passes them.
pub mod source;

pub mod rules;

pub mod intake;

pub mod store;

pub mod relay;

pub mod destination;

pub mod servicenow;

pub mod sync;

pub mod status;

pub mod control;

// Ground.
pub mod net;

pub mod clock;

pub mod heartbeat;

pub mod log;

pub mod device;

pub mod model;

// The other side, for rehearsal and tests. The agent never knows which it talks to.
#[cfg(feature = "simulator")]
pub mod simulator;
