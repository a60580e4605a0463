//! Makes the pictures of the documentation from a live system: `terrarium-screenshots FOLDER`.
//!
//! An observatory, a few containers that do what containers do, a Chromium without a window. `cargo xtask screenshots`
//! builds what it needs and calls it.

mod scene;

use base64::Engine;
use scene::Scene;
use std::path::Path;
use std::process::ExitCode;
use terrarium_tests::{Browser, Requirement, TestBed};

/// What is shown: file, what follows `/` in the address, and a condition that must hold before the picture is taken.
const PAGES: &[(&str, &str, &str)] = &[
    (
        "page-containers",
        "#/containers?sort=name&order=up",
        "document.querySelectorAll('.containers .row').length > 4",
    ),
    (
        "page-container",
        "#/container/worker",
        "document.querySelectorAll('.events .row').length > 5",
    ),
    (
        "page-events",
        "#/events?container=worker",
        "document.querySelectorAll('.events .row').length > 9",
    ),
    ("page-namespaces", "#/namespaces", "document.querySelectorAll('.namespaces .row').length > 4"),
];

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: terrarium-screenshots FOLDER");
        return ExitCode::from(2);
    };
    let needs = [
        Requirement::Root,
        Requirement::Btf,
        Requirement::Program("busybox"),
        Requirement::Program("chromium"),
        Requirement::Program("chromedriver"),
    ];
    if let Some(reason) = needs.into_iter().find_map(Requirement::unmet) {
        eprintln!("terrarium-screenshots: {reason}");
        return ExitCode::FAILURE;
    }
    let bed = TestBed::new();
    let mut scene = Scene::set(&bed);
    pages(&mut scene, Path::new(&folder));
    ExitCode::SUCCESS
}

fn pages(scene: &mut Scene<'_>, folder: &Path) {
    for dark in [false, true] {
        let browser = Browser::start(1280, 760, dark);
        browser.open(&scene.observatory.url("/"));
        // Sparklines and charts need a past.
        for _ in 0..12 {
            scene.play();
        }
        for (name, address, condition) in PAGES {
            browser.run(&format!("location.hash = '{}'", address.trim_start_matches('#')));
            browser.wait(name, condition);
            scene.play();
            let name = if dark { format!("{name}-dark") } else { (*name).to_owned() };
            save(&folder.join(format!("{name}.png")), &browser.screenshot());
        }
        for line in browser.console() {
            println!("console: {line}");
        }
    }
}

fn save(file: &Path, base64: &str) {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(base64)
        .expect("chromedriver gives base64");
    std::fs::write(file, bytes).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    println!("{}", file.display());
}
