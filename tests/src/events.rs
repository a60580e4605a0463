//! Events as they come out: `terrarium.event/v1`, one JSON object a line.

use serde_json::Value;

/// The domains of `type` and the payload object that each carries; `None` for a domain whose facts stand in common fields.
const DOMAINS: &[(&str, Option<&str>)] = &[
    ("process", Some("process")),
    ("namespace", Some("namespace")),
    ("mount", Some("mount")),
    ("memory", Some("memory")),
    ("cgroup", Some("cgroup")),
    ("guard", Some("guard")),
    ("container", Some("container")),
    ("finding", Some("finding")),
    ("residue", Some("residue")),
    ("stream", None),
];

/// Reads JSON Lines; an error names the line.
pub fn parse(text: &str) -> Result<Vec<Value>, String> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}")))
        .collect()
}

/// What is wrong with the fields of one event, or nothing.
pub fn fault(event: &Value) -> Option<String> {
    let require = |met: bool, what: &str| if met { None } else { Some(format!("{what}: {event}")) };
    let kind = event["type"].as_str().unwrap_or_default();
    let domain = kind.split_once('.').map_or("", |(domain, _)| domain);
    let payload = DOMAINS.iter().find(|(name, _)| *name == domain);
    require(event["schema"] == "terrarium.event/v1", "schema is not terrarium.event/v1")
        .or_else(|| require(event["seq"].is_u64(), "seq is no number"))
        .or_else(|| require(event["mono_ns"].is_u64(), "mono_ns is no number"))
        .or_else(|| require(event["lost_before"].is_u64(), "lost_before is no number"))
        .or_else(|| {
            require(event["time"].as_str().is_some_and(is_utc), "time is no RFC 3339 in UTC")
        })
        .or_else(|| require(event["severity"].is_string(), "severity is missing"))
        .or_else(|| require(event["host"].is_string(), "host is missing"))
        .or_else(|| require(payload.is_some(), "unknown domain of type"))
        .or_else(|| {
            let object = payload.and_then(|(_, object)| *object);
            require(
                object.is_none_or(|object| event[object].is_object()),
                "the payload object is missing",
            )
        })
        .or_else(|| {
            require(
                domain == "stream"
                    || (event["cgroup"]["id"].is_u64() && event["cgroup"]["path"].is_string()),
                "cgroup has no id or path",
            )
        })
        .or_else(|| {
            let ok = &event["result"]["ok"];
            let errno = &event["result"]["errno"];
            require(
                event.get("result").is_none_or(Value::is_null)
                    || (ok.is_boolean() && (errno.is_null() || errno.is_string())),
                "result has no ok or a strange errno",
            )
        })
}

/// `2026-11-23T22:01:02.123456789Z`
fn is_utc(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape
        .strip_prefix("0000-00-00T00:00:00")
        .and_then(|rest| rest.strip_suffix('Z'))
        .is_some_and(|rest| rest.is_empty() || rest.trim_end_matches('0') == ".")
}

/// The events of `kind` that belong to the container called `name`.
pub fn of<'a>(events: &'a [Value], name: &str, kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["container"]["name"] == name && event["type"] == kind)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Value {
        json!({
            "schema": "terrarium.event/v1", "seq": 1, "time": "2026-11-23T22:01:02.123456789Z",
            "mono_ns": 5, "type": "namespace.enter", "severity": "info", "host": "n1",
            "cgroup": {"id": 4312, "path": "/terrarium/web"},
            "namespace": {"kind": "mnt"}, "result": {"ok": false, "errno": "EPERM"}, "lost_before": 0
        })
    }

    #[test]
    fn a_whole_event_has_no_fault() {
        assert_eq!(fault(&event()), None);
    }

    #[test]
    fn each_missing_field_is_named() {
        for (field, said) in [
            ("schema", "schema is not"),
            ("seq", "seq is no number"),
            ("time", "time is no RFC 3339"),
            ("lost_before", "lost_before"),
            ("type", "unknown domain"),
            ("namespace", "the payload object is missing"),
            ("cgroup", "cgroup has no id"),
        ] {
            let mut event = event();
            event.as_object_mut().unwrap().remove(field);
            let fault = fault(&event).unwrap_or_default();
            assert!(fault.starts_with(said), "without {field}: {fault:?}");
        }
    }

    #[test]
    fn only_utc_is_taken_for_utc() {
        for (text, expected) in [
            ("2026-11-23T22:01:02Z", true),
            ("2026-11-23T22:01:02.5Z", true),
            ("2026-11-23T22:01:02+01:00", false),
            ("2026-11-23 22:01:02Z", false),
        ] {
            assert_eq!(is_utc(text), expected, "{text}");
        }
    }
}
