//! This sensor's own facts. For now its name, the default of `[agent] name`, and its identity, the default of `[agent] id`.

use std::io::Read as _;

/// The host name, or `sensor` where the machine has none.
pub fn name() -> String {
    sysinfo::System::host_name()
        .ok()
        .filter(|name| !name.trim().is_empty())
        .unwrap_or_else(|| "sensor".to_owned())
}

/// What otrelay is known by where identities are made from the machine id.
const APPLICATION: [u8; 16] =
    [0x0e, 0x7a, 0x41, 0x5c, 0x93, 0x2b, 0x4d, 0x68, 0x8f, 0xd1, 0x6a, 0x30, 0xc4, 0xb7, 0x59, 0x12];
/// Where the machine id is; the second is its place before systemd.
const MACHINE_ID: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// The id of this machine; `None` where it has none, or not yet (`uninitialized` while it boots for the first time).
pub fn machine_id() -> Option<[u8; 16]> {
    let read = |path: &&str| {
        let mut text = String::new();
        std::fs::File::open(path).ok()?.take(64).read_to_string(&mut text).ok()?;
        parse(&text)
    };
    MACHINE_ID.iter().find_map(read)
}

/// 32 hex digits that are not all zero.
fn parse(text: &str) -> Option<[u8; 16]> {
    let text = text.trim();
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (bytes != [0; 16]).then_some(bytes)
}

/// What keeps redaction's pseudonyms from being computed elsewhere.
const REDACTION: [u8; 16] =
    [0x5b, 0x1d, 0xe2, 0x07, 0x68, 0xf4, 0x43, 0x9c, 0xa0, 0x3e, 0x71, 0xcd, 0x15, 0x8a, 0xb6, 0x94];

/// The key of pseudonyms on this machine: nobody who knows the agent's identity knows it, and it outlives the buffer.
pub fn redaction_key(machine: &[u8; 16]) -> [u8; 32] {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, machine);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(ring::hmac::sign(&key, &REDACTION).as_ref());
    bytes
}

/// The agent's identity on a machine: does not give the machine id away, and is no other program's. As
/// `sd_id128_get_machine_app_specific` makes it, so that `systemd-id128 machine-id --app-specific` can say it too.
pub fn agent_id(machine: &[u8; 16]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, machine);
    let mut id = [0; 16];
    id.copy_from_slice(&ring::hmac::sign(&key, &APPLICATION).as_ref()[..16]);
    // A UUID of version 4.
    (id[6], id[8]) = ((id[6] & 0x0f) | 0x40, (id[8] & 0x3f) | 0x80);
    crate::model::alert::hex(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_as_they_are_written() {
        assert_eq!(parse("00112233445566778899aabbccddeeff\n").map(|id| (id[1], id[15])), Some((0x11, 0xff)));
        for bad in ["", "uninitialized\n", "0011", &"0".repeat(32), &"g".repeat(32), &"é".repeat(16)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_identity_is_of_the_machine_and_does_not_show_it() {
        let machine = parse("00112233445566778899aabbccddeeff").unwrap();
        let id = agent_id(&machine);
        assert_eq!(id, EXPECTED);
        assert_ne!(id, agent_id(&[1; 16]));
    }

    /// `openssl dgst -sha256 -mac HMAC` over the application's id, first half, with the bits of version 4.
    const EXPECTED: &str = "0375cb469b39498c9e9713c8c34215a2";
}
