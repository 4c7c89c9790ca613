//! The JSON Schema of an alert, for those who write or push them: `otrelay config schema --alert`.

use serde_json::{Value, json};

use crate::model::alert::{MESSAGE_MAX, TITLE_MAX};
use crate::model::{Engine, Severity};

/// The schema (draft 2020-12) of otrelay's own alert.
pub fn schema() -> Value {
    let severities = Severity::ALL.map(Severity::as_str);
    let engines = Engine::ALL.map(Engine::as_str);
    let texts = |description: &str, example: &str| {
        json!({
            "description": description,
            "oneOf": [{ "type": "array", "items": { "type": "string" }, "maxItems": 32 }, { "type": "string" }],
            "examples": [[example]],
        })
    };
    let text = |description: &str| json!({ "description": description, "type": "string" });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "otrelay alert",
        "description": "One finding of a sensor, for sources of kind \"http\" and \"json-lines\". Keys beyond these are \
            tolerated. OCSF detection findings (class_uid 2004) and webhooks of Defender for IoT are accepted as well.",
        "type": "object",
        "required": ["title"],
        "properties": {
            "id": {
                "description": "The sender's own stable id: alerts with the same id are one finding. Without it, title, \
                    source, destination and first protocol are what makes two alerts one finding.",
                "type": ["string", "integer"],
            },
            "time": {
                "description": "When it was seen: RFC 3339 with an offset, or seconds or milliseconds since 1970. \
                    Default: the time of receipt.",
                "oneOf": [{ "type": "string", "format": "date-time" }, { "type": "number" }],
            },
            "title": {
                "description": format!("One line; what is beyond {TITLE_MAX} bytes is cut."),
                "type": "string",
                "minLength": 1,
            },
            "message": text(&format!("What happened, for people; what is beyond {MESSAGE_MAX} bytes is cut.")),
            "severity": { "description": "How bad it is.", "enum": severities, "default": "major" },
            "engine": { "description": "What kind of analysis raised it.", "enum": engines, "default": "anomaly" },
            "protocols": texts("Protocols involved, most specific first.", "Modbus"),
            "category": text("The sender's category."),
            "source": { "description": "Who began it.", "$ref": "#/$defs/end" },
            "destination": { "description": "Whom it went to.", "$ref": "#/$defs/end" },
            "sensor": text("Who saw it. Default: the agent's name."),
            "site": text("Default: the agent's site."),
            "zone": text("Default: the agent's zone."),
            "state": {
                "description": "Whether it stands, or its sender takes it back.",
                "enum": ["raised", "cleared"],
                "default": "raised",
            },
            "kind": {
                "description": "About the plant, or about the sensor itself.",
                "enum": ["alert", "system notification"],
                "default": "alert",
            },
            "references": texts("CVE numbers, signature ids, links.", "CVE-2021-44228"),
            "raw": text("The original, where there is one. Default: the object itself."),
        },
        "$defs": { "end": end() },
    })
}

/// Who began it, or whom it went to.
fn end() -> Value {
    let properties = json!({
        "ip": { "type": "string" },
        "mac": { "type": "string" },
        "name": { "type": "string" },
        "port": { "type": "integer", "minimum": 1, "maximum": 65535 },
        "device_id": { "type": ["string", "integer"] },
    });
    json!({
        "oneOf": [
            { "description": "Its address, else its name.", "type": "string" },
            { "type": "object", "properties": properties },
        ],
    })
}
