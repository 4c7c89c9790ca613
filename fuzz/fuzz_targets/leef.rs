//! Any bytes as LEEF: no panic, every text within its bounds and safe to show.
#![no_main]

#[path = "shared/messages.rs"]
mod messages;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use otrelay::source::format::syslog::{Payload, Syslog};

static FORMATS: LazyLock<Vec<Syslog>> = LazyLock::new(|| messages::formats(&[Payload::Leef]));

fuzz_target!(|message: &[u8]| messages::check(&FORMATS, message));
