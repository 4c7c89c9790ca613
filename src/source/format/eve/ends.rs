//! Who began it and whom it went to.
//!
//! `src_ip` and `dest_ip` of an alert follow the packet that matched, so a match in an answer has the server as its
//! source; and with mid-stream pick-up the flow itself is often reversed. The order in [`Ends::of`] is the one that
//! recorded OT traffic called for: the rule's word, then a known server port, then the flow, then the direction.

use std::net::IpAddr;

use super::{tables, wire};
use crate::model::Endpoint;

#[derive(Debug)]
pub(super) struct Ends {
    /// Who began it.
    pub(super) initiator: Endpoint,
    /// Whom it went to.
    pub(super) responder: Endpoint,
}

impl Ends {
    /// Decides by the first basis that applies.
    pub(super) fn of(record: &wire::Record<'_>) -> Self {
        let sender = end(&record.src_ip, record.src_port);
        let receiver = end(&record.dest_ip, record.dest_port);
        let (attacker, victim) = (&record.alert.source, &record.alert.target);
        if attacker.ip.get().is_some() && victim.ip.get().is_some() {
            let told =
                Self { initiator: end(&attacker.ip, attacker.port), responder: end(&victim.ip, victim.port) };
            return told.with_macs(record, &sender, &receiver);
        }
        let server = |end: &Endpoint| end.port.and_then(tables::ot_port).is_some();
        let forward = match (server(&sender), server(&receiver)) {
            (false, true) => true,
            (true, false) => false,
            _ if record.flow.src_ip.get().is_some() && record.flow.dest_ip.get().is_some() => {
                let flow = Self {
                    initiator: end(&record.flow.src_ip, record.flow.src_port),
                    responder: end(&record.flow.dest_ip, record.flow.dest_port),
                };
                return flow.with_macs(record, &sender, &receiver);
            }
            _ => record.direction.get() != Some("to_client"),
        };
        let (initiator, responder) =
            if forward { (sender.clone(), receiver.clone()) } else { (receiver.clone(), sender.clone()) };
        Self { initiator, responder }.with_macs(record, &sender, &receiver)
    }

    /// MAC addresses are those of the packet: each goes to the end that has the packet's address. Between equal
    /// addresses the port decides.
    fn with_macs(mut self, record: &wire::Record<'_>, sender: &Endpoint, receiver: &Endpoint) -> Self {
        let (src, dest) = (mac(&record.ether.src_mac), mac(&record.ether.dest_mac));
        if src.is_none() && dest.is_none() {
            return self;
        }
        let same = |one: &Endpoint, other: &Endpoint| one.ip == other.ip && one.port == other.port;
        let near = |one: &Endpoint, other: &Endpoint| one.ip == other.ip && one.ip.is_some();
        if same(&self.initiator, sender) && same(&self.responder, receiver) {
            (self.initiator.mac, self.responder.mac) = (src, dest);
        } else if same(&self.initiator, receiver) && same(&self.responder, sender) {
            (self.initiator.mac, self.responder.mac) = (dest, src);
        } else if near(&self.initiator, sender) && near(&self.responder, receiver) {
            (self.initiator.mac, self.responder.mac) = (src, dest);
        } else if near(&self.initiator, receiver) && near(&self.responder, sender) {
            (self.initiator.mac, self.responder.mac) = (dest, src);
        }
        self
    }
}

fn end(ip: &wire::Text<'_>, port: wire::Number) -> Endpoint {
    Endpoint { ip: ip.get().and_then(address), port: port.port(), ..Endpoint::default() }
}

/// Suricata writes IPv6 in full (`fe80:0000:…`); an address is compared as an address. A zone (`%eth0`) is dropped.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.split_once('%').map_or(text, |(address, _)| address).parse().ok()
}

/// `00:1b:1b:aa:bb:cc`, or nothing when it is not a MAC address.
pub(super) fn mac(text: &wire::Text<'_>) -> Option<String> {
    let mac = text.get()?.trim().to_ascii_lowercase().replace('-', ":");
    let valid = mac.len() == 17
        && mac.bytes().enumerate().all(|(at, byte)| match at % 3 {
            2 => byte == b':',
            _ => byte.is_ascii_hexdigit(),
        });
    valid.then_some(mac)
}
