//! Every query of every dashboard gives data from a Prometheus that scrapes a live observatory.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use terrarium_tests::binaries::repository;
use terrarium_tests::dashboard::{self, Query};
use terrarium_tests::prometheus::{Prometheus, configuration};
use terrarium_tests::{Observatory, TestBed, eventually, http, process, require, requirement};

#[test]
fn every_query_of_every_dashboard_gives_data() {
    require!(Root, CgroupV2, MemoryController, Btf, Program("busybox"), Program("prometheus"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &["--probe-stats"]);
    let prometheus = Prometheus::start(bed.folder(), observatory.address());
    let options = ["--cap-add=SYS_ADMIN", "--memory=32m", "--pids-limit=64", "--net=bridge"];
    let mut container = bed.container("seen").with(options).follow();
    observatory.wait_for(container.name());

    let name = container.name().to_owned();
    let variables = [("instance", observatory.address()), ("name", name.as_str())];
    let mut waiting: Vec<Query> = dashboard::all()
        .iter()
        .flat_map(|(file, dashboard)| dashboard::queries(file, dashboard))
        .collect();
    assert!(waiting.len() > 10, "the dashboards have queries: {waiting:?}");
    eventually("every query gives data", || {
        // A rate needs events between two scrapes, a quantile of stalls needs stalls.
        container.call("fork 20");
        container.call("mount 3");
        container.call("unshare uts 3");
        container.call("setns uts 3");
        container.call("touch-in-child 64000000");
        // Another one starts and ends.
        bed.container("passing").run(["true"]).success();
        let mut reasons = Vec::new();
        waiting.retain(|query| {
            let expression = dashboard::substitute(&query.expression, &variables);
            let reason = match prometheus.query(&expression) {
                Ok(series) if series.iter().any(|series| series.value.is_finite()) => return false,
                Ok(series) => format!("{} series without a number", series.len()),
                Err(error) => error,
            };
            reasons.push(format!("{}: {expression}: {reason}", query.place));
            true
        });
        if waiting.is_empty() { Ok(()) } else { Err(format!("\n{}", reasons.join("\n"))) }
    });

    let kills = format!("sum(terrarium_oom_kills_total{{name=\"{name}\"}})");
    eventually("what Prometheus has is what happened", || {
        let series = prometheus.query(&kills)?;
        if series.first().is_some_and(|series| series.value >= 1.0) {
            Ok(())
        } else {
            Err(format!("{series:?}"))
        }
    });
    let target = prometheus.ask("/api/v1/targets").expect("prometheus lists its targets");
    assert_eq!(target["data"]["activeTargets"][0]["health"], "up", "{target}");
}

#[test]
fn dashboards_name_no_data_source_of_anybodys_and_explain_each_panel() {
    require!(Sources);
    let dashboards = dashboard::all();
    assert!(!dashboards.is_empty());
    for (file, dashboard) in &dashboards {
        assert!(dashboard["schemaVersion"].as_u64() >= Some(36), "{file}: schemaVersion");
        assert!(
            dashboard["uid"].is_string() && dashboard["title"].is_string(),
            "{file}: uid and title"
        );
        let mut ids = BTreeSet::new();
        for panel in dashboard::panels(dashboard) {
            let title = panel["title"].as_str().unwrap_or_default();
            let place = format!("{file}: {title}");
            assert!(!title.is_empty(), "{place}: a panel has a title");
            assert!(ids.insert(panel["id"].as_u64()), "{place}: the id of a panel is its own");
            assert!(
                panel["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{place}: description"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{place}");
            }
            if panel["type"] != "table" {
                assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{place}: unit");
            }
        }
    }
}

#[test]
fn dashboards_and_rules_name_only_metrics_that_the_code_declares() {
    require!(Sources);
    let declared = dashboard::declared();
    assert!(declared.len() > 30, "{declared:?}");
    let rules = repository().join("dashboards/prometheus/rules.yml");
    let rules = fs::read_to_string(rules).expect("the rules are there");
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let of_rules = expressions.map(|expression| ("rules.yml".to_owned(), expression.to_owned()));
    let of_dashboards = dashboard::all().into_iter().flat_map(|(file, dashboard)| {
        let queries = dashboard::queries(&file, &dashboard).into_iter();
        queries.map(|query| (query.place, query.expression)).collect::<Vec<_>>()
    });
    for (place, expression) in of_rules.chain(of_dashboards) {
        for metric in dashboard::metrics(&expression) {
            let known = declared.contains(&metric) || metric.starts_with("process_");
            assert!(known, "{place}: {metric} is not declared");
        }
    }
}

#[test]
fn promtool_passes_the_tests_of_the_rules() {
    require!(Program("promtool"));
    let promtool = requirement::program("promtool").expect("it is required");
    let folder = repository().join("dashboards/prometheus");
    let mut test = Command::new(promtool);
    process::run(test.args(["test", "rules", "rules-test.yml"]).current_dir(folder)).success();
}

#[test]
fn promtool_accepts_the_configuration_and_the_metrics() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("promtool"));
    let promtool = requirement::program("promtool").expect("it is required");
    process::run(Command::new(&promtool).args(["check", "config"]).arg(configuration())).success();

    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let container = bed.container("checked").with(["--memory", "32m", "--net", "bridge"]).follow();
    observatory.wait_for(container.name());
    let file = bed.folder().join("metrics");
    let text = http::get(&observatory.url("/metrics")).expect("it serves").body;
    assert!(
        text.contains("container_memory_working_set_bytes{"),
        "what containers use is checked too"
    );
    fs::write(&file, text).expect("the test's folder is writable");
    let script = "exec \"$0\" check metrics < \"$1\"";
    let outcome = process::run(Command::new("sh").args(["-c", script]).arg(promtool).arg(&file));
    let complaints: Vec<_> = outcome.stderr.lines().chain(outcome.stdout.lines()).collect();
    assert_eq!((outcome.code, complaints.len()), (0, 0), "{complaints:#?}");
}

/// What belongs to the data source of an annotation, which the schema leaves to it.
const OF_PROMETHEUS: [&str; 6] =
    ["expr", "step", "titleFormat", "textFormat", "tagKeys", "useValueForTime"];

/// A program in TypeScript that is well-typed if and only if the dashboards are as Grafana's packages say.
fn typed(dashboards: &[(String, Value)]) -> String {
    // In JSON, a value stands for the name that an enumeration gives it.
    let mut program = String::from(
        "import type { Dashboard } from \"@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen\";\n\
         type Plain<T> = 0 extends 1 & T ? any : T extends string ? `${T}` : T extends number ? number\n\
         : T extends (infer U)[] ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;\n",
    );
    let mut values = String::new();
    let mut kinds = BTreeSet::new();
    let mut add = |of: &str, kind: &str, value: &Value| {
        let number = values.matches("export const").count();
        let text = format!("// {of}\nexport const v{number}: {kind} = {value};\n");
        values.push_str(&text);
    };
    for (file, dashboard) in dashboards {
        let mut dashboard = dashboard.clone();
        let annotations = dashboard["annotations"]["list"].as_array_mut();
        for annotation in annotations.into_iter().flatten().filter_map(Value::as_object_mut) {
            annotation.retain(|field, _| !OF_PROMETHEUS.contains(&field.as_str()));
        }
        add(file, "Plain<Dashboard>", &dashboard);
        for panel in dashboard::panels(&dashboard) {
            let kind = panel["type"].as_str().unwrap_or_default().replace('-', "");
            let of = format!("{file}: {}", panel["title"]);
            let custom = &panel["fieldConfig"]["defaults"]["custom"];
            for (name, value) in [("Options", &panel["options"]), ("FieldConfig", custom)] {
                if value.is_object() {
                    add(&of, &format!("Partial<Plain<{kind}.{name}>>"), value);
                }
            }
            kinds.insert(kind);
        }
    }
    for kind in &kinds {
        let name = match kind.as_str() {
            "timeseries" => "TimeSeries",
            "statetimeline" => "StateTimeline",
            "bargauge" => "BarGauge",
            "stat" => "Stat",
            "table" => "Table",
            "text" => "Text",
            "heatmap" => "Heatmap",
            "piechart" => "PieChart",
            "histogram" => "Histogram",
            "gauge" => "Gauge",
            kind => panic!("which of Grafana's files describes panels of type {kind}?"),
        };
        let file = format!("{kind}/panelcfg/x/{name}PanelCfg_types.gen");
        let place = format!("@grafana/schema/dist/esm/raw/composable/{file}");
        let _ = writeln!(program, "import type * as {kind} from \"{place}\";");
    }
    program + &values
}

/// What the compiler of TypeScript says of a program; nothing where it is well-typed.
fn complaints(bed: &TestBed, program: &str) -> String {
    let packages = PathBuf::from(std::env::var_os("TERRARIUM_GRAFANA").expect("it is required"));
    // The compiler looks for packages in the folders above.
    let file = packages.join(bed.unique("dashboards") + ".ts");
    fs::write(&file, program).expect("the folder is writable");
    let mut command = Command::new("node");
    command.arg(packages.join("node_modules/typescript/bin/tsc")).args([
        "--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution",
        "bundler",
    ]);
    let outcome = process::run(command.arg(&file));
    fs::remove_file(&file).expect("it was written");
    outcome.stdout + &outcome.stderr
}

#[test]
fn the_dashboards_are_as_grafanas_packages_say() {
    require!(Sources, Program("node"), Made("TERRARIUM_GRAFANA"));
    let bed = TestBed::new();
    let dashboards = dashboard::all();
    assert_eq!(complaints(&bed, &typed(&dashboards)), "");
    // That it would say so.
    let mut wrong = dashboards;
    wrong[0].1["graphToolTip"] = json!(1);
    let panel = wrong[0].1["panels"].as_array_mut().expect("a list");
    let panel = panel.iter_mut().find(|panel| panel["options"].is_object()).expect("one has");
    panel["options"]["colourMode"] = json!("value");
    let said = complaints(&bed, &typed(&wrong));
    assert!(said.contains("graphToolTip") && said.contains("colourMode"), "{said}");
}
