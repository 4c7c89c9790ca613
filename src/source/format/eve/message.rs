//! The text of an alert for people: what EVE says beyond the fields that every alert has (parties, category, sensor are
//! not repeated here). Labels are fixed so that an analyst finds the same thing in the same place of every ticket.

use std::fmt::Write;

use super::{Signature, app_proto, tables, wire, word};
use crate::model::Protocol;
use crate::model::alert::MESSAGE_MAX;
use crate::model::text::clip;

/// Several lines, cleaned, at most `MESSAGE_MAX` bytes. `undated`: the timestamp that cannot be read.
pub(super) fn compose(
    record: &wire::Record<'_>,
    signature: &Signature,
    title: &str,
    protocols: &[Protocol],
    undated: Option<&str>,
) -> String {
    let mut text = String::with_capacity(512);
    // Writing to a String cannot fail.
    let _ = write(&mut text, record, signature, title, protocols);
    if let Some(written) = undated {
        let _ = writeln!(text, "Time: that of reading; the sensor's own, {}, cannot be read", word(written));
    }
    if text.ends_with('\n') {
        text.pop();
    }
    clip(&text, MESSAGE_MAX).into_owned()
}

fn write(
    text: &mut String,
    record: &wire::Record<'_>,
    signature: &Signature,
    title: &str,
    protocols: &[Protocol],
) -> std::fmt::Result {
    writeln!(text, "{title}")?;
    if let Some(protocol) = protocols.first() {
        write!(text, "Protocol: {protocol}")?;
        match record.proto.get() {
            Some(proto) if app_proto(record).is_some() => writeln!(text, " over {}", word(proto))?,
            _ => writeln!(text)?,
        }
    }
    exchange(text, "Modbus", &record.modbus)?;
    exchange(text, "DNP3", &record.dnp3)?;
    exchange(text, "EtherNet/IP", &record.enip)?;
    if let Some(action) = record.alert.action.get() {
        writeln!(text, "Action: {}", word(action))?;
    }
    flow(text, &record.flow)?;
    let rev = signature.rev.unwrap_or(0);
    writeln!(text, "Signature: {}:{} revision {rev}", signature.gid, signature.sid)?;
    if let Some(id) = record.flow_id.0 {
        writeln!(text, "Flow id: {id}")?;
    }
    if let Some(id) = record.community_id.get() {
        writeln!(text, "Community id: {}", word(id))?;
    }
    Ok(())
}

fn flow(text: &mut String, flow: &wire::Flow<'_>) -> std::fmt::Result {
    let counted = |packets: wire::Number, bytes: wire::Number| packets.0.zip(bytes.0);
    let to_server = counted(flow.pkts_toserver, flow.bytes_toserver);
    let to_client = counted(flow.pkts_toclient, flow.bytes_toclient);
    let Some(((pkts_up, bytes_up), (pkts_down, bytes_down))) = to_server.zip(to_client) else {
        return Ok(());
    };
    writeln!(
        text,
        "Flow: {pkts_up} packets, {bytes_up} bytes to server; {pkts_down} packets, {bytes_down} bytes to client"
    )
}

/// What was asked for and answered, in a line: `Modbus request: WrSingleCoil (WRITE | COILS), unit 1`.
fn exchange(text: &mut String, protocol: &str, exchange: &wire::Exchange<'_>) -> std::fmt::Result {
    for (side, message) in [("request", &exchange.request), ("response", &exchange.response)] {
        if let Some(code) = message.application.function_code.0 {
            writeln!(text, "{protocol} {side}: function {code}{}", tables::dnp3_function(code))?;
        }
        let Some(code) = message.function_code.get().or(message.command.get()) else { continue };
        write!(text, "{protocol} {side}: {}", word(code))?;
        for detail in [&message.access_type, &message.cip.service] {
            if let Some(detail) = detail.get() {
                write!(text, " ({})", word(detail))?;
            }
        }
        if let Some(unit) = message.unit_id.0 {
            write!(text, ", unit {unit}")?;
        }
        writeln!(text)?;
    }
    Ok(())
}
