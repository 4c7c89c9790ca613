//! EVE lines of our own making, small and told apart by a number.

use serde_json::{Value, json};

/// An alert line that is being made.
#[derive(Clone, Debug)]
pub(crate) struct Eve(Value);

/// Alert `number`: critical, Modbus, an address of its own, so a finding of its own.
pub(crate) fn alert(number: u32) -> Eve {
    let from = format!("10.{}.{}.{}", 64 + (number >> 16), number >> 8 & 255, number & 255);
    let second = number % 60;
    Eve(json!({
        "timestamp": format!("2026-05-18T06:{:02}:{second:02}.{:06}+0000", number / 60 % 60, number % 1_000_000),
        "flow_id": 7_000_000 + number,
        "event_type": "alert",
        "src_ip": from, "src_port": 49152 + number % 9000, "dest_ip": "10.40.1.11", "dest_port": 502,
        "proto": "TCP", "app_proto": "modbus", "direction": "to_server",
        "alert": {
            "action": "allowed", "gid": 1, "signature_id": 2_000_001, "rev": 1,
            "signature": title(number), "category": "Misc Attack", "severity": 1,
        },
    }))
}

/// The title of alert `number`.
pub(crate) fn title(number: u32) -> String {
    format!("TEST valve opened by stranger {number:05}")
}

/// `short_description` of alert `number` by default.
pub(crate) fn short(number: u32) -> String {
    format!("[critical] {} ({})", title(number), super::agent::NAME)
}

/// A payload in base64 that packs by a quarter and no more, another one for each number.
pub(crate) fn noise(number: u32, bytes: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = u64::from(number) * 2 + 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(LETTERS[(state >> 58) as usize])
    };
    (0..bytes).map(|_| letter()).collect()
}

/// Lines of the alerts in a range.
pub(crate) fn alerts(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| alert(number).line()).collect()
}

/// A line that is no alert.
pub(crate) fn flow(number: u32) -> String {
    let line = json!({"timestamp": "2026-05-18T06:00:00.000000+0000", "flow_id": number, "event_type": "flow",
        "src_ip": "10.40.2.10", "dest_ip": "10.40.1.11", "proto": "TCP"});
    format!("{line}\n")
}

impl Eve {
    /// Another signature.
    pub(crate) fn signature(mut self, title: &str, id: u32) -> Self {
        self.0["alert"]["signature"] = title.into();
        self.0["alert"]["signature_id"] = id.into();
        self
    }

    /// 1 critical, 2 major, 3 minor, 4 warning.
    pub(crate) fn severity(mut self, level: u8) -> Self {
        self.0["alert"]["severity"] = level.into();
        self
    }

    /// Another application protocol.
    pub(crate) fn protocol(mut self, name: &str) -> Self {
        self.0["app_proto"] = name.into();
        self
    }

    /// Any other value at the top.
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0[key] = value.into();
        self
    }

    /// Without a value at the top.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.0.as_object_mut().unwrap().remove(key);
        self
    }

    /// As Suricata writes it.
    pub(crate) fn line(&self) -> String {
        format!("{}\n", self.0)
    }
}
