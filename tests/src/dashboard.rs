//! The queries of the Grafana dashboards in the repository.

use crate::binaries::repository;
use serde_json::Value;
use std::fs;

/// A query of a panel or of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Dashboard, panel and reference, for a reader of a failed assertion.
    pub place: String,
    /// `PromQL`, with Grafana's variables in it.
    pub expression: String,
}

/// Every dashboard of `dashboards/grafana`, by file name.
pub fn all() -> Vec<(String, Value)> {
    let folder = repository().join("dashboards/grafana");
    let mut dashboards: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("list {}: {error}", folder.display()))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let text = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            let dashboard = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), dashboard)
        })
        .collect();
    dashboards.sort_by(|a, b| a.0.cmp(&b.0));
    dashboards
}

/// The queries of the dashboard `file`: panels, those inside of rows, annotations, and variables.
pub fn queries(file: &str, dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap_or("untitled");
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(Query {
                place: format!("{file}: {title}: {}", target["refId"].as_str().unwrap_or("?")),
                expression: target["expr"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().into_iter().flatten() {
        queries.push(Query {
            place: format!("{file}: annotation {}", annotation["name"].as_str().unwrap_or("?")),
            expression: annotation["expr"].as_str().unwrap_or_default().to_owned(),
        });
    }
    for variable in dashboard["templating"]["list"].as_array().into_iter().flatten() {
        if variable["type"] == "query" {
            let definition = variable["query"]["query"]
                .as_str()
                .or(variable["query"].as_str())
                .unwrap_or_default();
            queries.push(Query {
                place: format!("{file}: variable {}", variable["name"].as_str().unwrap_or("?")),
                expression: label_values(definition),
            });
        }
    }
    queries
}

/// The panels, those inside of rows included, without the rows.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        if panel["type"] == "row" {
            found.extend(panels(panel));
        } else {
            found.push(panel);
        }
    }
    found
}

/// Grafana's `label_values(METRIC, LABEL)` as `PromQL`; anything else stays.
fn label_values(definition: &str) -> String {
    definition
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'))
        .and_then(|rest| rest.rsplit_once(','))
        .map_or_else(
            || definition.to_owned(),
            |(metric, label)| format!("count by ({}) ({})", label.trim(), metric.trim()),
        )
}

/// The metrics that a query or a rule names, without what a histogram puts behind its name.
pub fn metrics(expression: &str) -> Vec<String> {
    let prefixes = ["terrarium_", "container_", "machine_", "process_"];
    // Every other piece is within quotes.
    expression
        .split('"')
        .step_by(2)
        .flat_map(|piece| piece.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':'))
        .filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
        .map(|word| {
            let ends = ["_bucket", "_sum", "_count"];
            ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
        })
        .collect()
}

/// The metrics that the code declares, from the page that is written from it.
pub fn declared() -> Vec<String> {
    let file = repository().join("docs/METRICS.md");
    let text = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("read {}: {error}", file.display()));
    text.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// `expression` with Grafana's variables replaced by the values given and by those of a one-second scrape.
pub fn substitute(expression: &str, variables: &[(&str, &str)]) -> String {
    let builtin = [("__rate_interval", "5s"), ("__interval", "1s"), ("__range", "60s")];
    let mut text = expression.to_owned();
    for (name, value) in variables.iter().chain(&builtin) {
        // `${name:regex}` stands where a value may need escaping; the values here do not.
        for form in [format!("${{{name}}}"), format!("${{{name}:regex}}"), format!("${name}")] {
            text = text.replace(&form, value);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn queries_of_rows_and_variables_are_found() {
        let dashboard = json!({
            "panels": [
                {"type": "row", "title": "r", "panels": [
                    {"type": "timeseries", "title": "inner", "targets": [{"refId": "A", "expr": "a"}]}]},
                {"type": "stat", "title": "outer", "targets": [{"refId": "B", "expr": "b"}]},
            ],
            "templating": {"list": [
                {"type": "datasource", "name": "datasource", "query": "prometheus"},
                {"type": "query", "name": "name", "query": {"query": "label_values(m{x=\"1\"}, name)"}},
            ]},
        });
        let found: Vec<_> = queries("f", &dashboard)
            .into_iter()
            .map(|query| (query.place, query.expression))
            .collect();
        let expected = [
            ("f: inner: A", "a"),
            ("f: outer: B", "b"),
            ("f: variable name", "count by (name) (m{x=\"1\"})"),
        ]
        .map(|(place, expression)| (place.to_owned(), expression.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn metrics_are_found_in_expressions() {
        assert_eq!(
            metrics(
                "sum by (name) (rate(terrarium_a_seconds_bucket{x=~\"container_b\"}[5m])) / container_c"
            ),
            ["terrarium_a_seconds", "container_c"]
        );
    }

    #[test]
    fn every_form_of_a_variable_is_replaced() {
        assert_eq!(
            substitute(
                "rate(m{name=~\"$name\",i=\"${instance}\"}[$__rate_interval])",
                &[("name", "a|b"), ("instance", "h")]
            ),
            "rate(m{name=~\"a|b\",i=\"h\"}[5s])"
        );
    }
}
