//! Every query of every dashboard gives data from a Prometheus that scrapes a live observatory.

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
        let mut ids = std::collections::BTreeSet::new();
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
    let rules = std::fs::read_to_string(rules).expect("the rules are there");
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
    let mut test = std::process::Command::new(promtool);
    process::run(test.args(["test", "rules", "rules-test.yml"]).current_dir(folder)).success();
}

#[test]
fn promtool_accepts_the_configuration_and_the_metrics() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("promtool"));
    let promtool = requirement::program("promtool").expect("it is required");
    process::run(
        std::process::Command::new(&promtool).args(["check", "config"]).arg(configuration()),
    )
    .success();

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
    std::fs::write(&file, text).expect("the test's folder is writable");
    let script = "exec \"$0\" check metrics < \"$1\"";
    let outcome = process::run(
        std::process::Command::new("sh").args(["-c", script]).arg(promtool).arg(&file),
    );
    let complaints: Vec<_> = outcome.stderr.lines().chain(outcome.stdout.lines()).collect();
    assert_eq!((outcome.code, complaints.len()), (0, 0), "{complaints:#?}");
}
