//! `terrarium inspect`: all that is kept about containers.

use crate::Global;
use anyhow::{Context, bail};
use serde_json::Value;
use std::process::ExitCode;
use terrarium_container::Store;

/// Print all that is kept about containers, as a JSON array: state.json, and the OCI spec as `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print this text for each instead, with fields put in: '{{.pid}} {{.network.address}}', or as JSON '{{json .labels}}'
    #[arg(long, short, value_name = "TEMPLATE")]
    format: Option<String>,
    /// The containers, by id or the beginning of one
    #[arg(required = true)]
    id: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let template = match args.format.as_deref().map(Template::parse).transpose() {
        Ok(template) => template,
        Err(error) => return Err(crate::exit::WithCode::error(2, error)),
    };
    let store = Store::open(&global.root)?;
    let mut all: Vec<Value> = Vec::new();
    let code = super::for_each(&store, &args.id, |id| {
        let mut state = store.state(id)?;
        state.status = state.observed_status();
        let mut value = serde_json::to_value(&state).context("write JSON")?;
        let spec = terrarium_container::spec_of(&store, id)?;
        value["config"] = serde_json::to_value(&spec).context("write JSON")?;
        all.push(value);
        Ok(())
    })?;
    match template {
        Some(template) => {
            for value in &all {
                super::print(&template.fill(value)?)?;
            }
        }
        None => super::print(&serde_json::to_string_pretty(&all).context("write JSON")?)?,
    }
    Ok(code)
}

/// A text with fields, as engines take them: of the language that they share the part that names a field.
#[derive(Debug, PartialEq, Eq)]
struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The names on the way to it; and whether it is to be JSON whatever it is.
    Field(Vec<String>, bool),
}

impl Template {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((inner, after)) = after.split_once("}}") else {
                bail!("--format {text:?}: {{{{ is not closed by }}}}");
            };
            let (name, is_json) = match inner.trim().strip_prefix("json ") {
                Some(name) => (name.trim(), true),
                None => (inner.trim(), false),
            };
            let Some(path) = name.strip_prefix('.').filter(|name| !name.contains([' ', '|']))
            else {
                bail!(
                    "--format {text:?}: {inner:?} is no field (as {{{{.pid}}}}, {{{{.network.address}}}} or {{{{json .labels}}}})"
                );
            };
            pieces.push(Piece::Text(before.to_owned()));
            let names = path.split('.').filter(|name| !name.is_empty());
            pieces.push(Piece::Field(names.map(str::to_owned).collect(), is_json));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    fn fill(&self, value: &Value) -> anyhow::Result<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text += piece,
                Piece::Field(names, is_json) => {
                    let mut field = value;
                    for name in names {
                        let found = match field {
                            Value::Array(items) => {
                                name.parse::<usize>().ok().and_then(|at| items.get(at))
                            }
                            other => other.get(name),
                        };
                        // What a container does not have is not written into its state at all.
                        field = found.unwrap_or(&Value::Null);
                    }
                    match field {
                        Value::String(string) if !is_json => text += string,
                        Value::Null if !is_json => {}
                        other => text += &serde_json::to_string(other).context("write JSON")?,
                    }
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_names_fields() {
        let value = json!({"pid": 7, "network": {"address": "10.0.0.2/16"}, "command": ["sh", "-c"], "labels": {"a": "b"}});
        let fill = |text: &str| Template::parse(text).unwrap().fill(&value).unwrap();
        assert_eq!(fill("{{.pid}} at {{ .network.address }}."), "7 at 10.0.0.2/16.");
        assert_eq!(fill("{{.command.1}}{{.command.9}}{{.nothing.there}}"), "-c");
        assert_eq!(
            fill("{{json .labels}} {{.labels}} {{json .network.address}}"),
            "{\"a\":\"b\"} {\"a\":\"b\"} \"10.0.0.2/16\""
        );
        assert_eq!(fill("{{json .missing}}"), "null");
        assert!(fill("{{json .}}").starts_with('{'));
        assert_eq!(fill("plain }} {"), "plain }} {");
        for bad in ["{{.pid", "{{pid}}", "{{range .command}}", "{{.pid | x}}", "{{}}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
