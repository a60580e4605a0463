//! The commands that stand in blocks of README and docs/ are run, as they stand there: only what they name is put in. Those of
//! docs/FAQ.md have a test of their own.

use std::fs;
use std::process::Command;
use terrarium_tests::image::{Image, Registry, base};
use terrarium_tests::{TestBed, binaries, eventually, require};

/// What needs more than a machine of its own, and where it is tried instead.
const ELSEWHERE: [(&str, &str); 1] = [("--http-config", "web_config.rs")];

/// The commands of a page's blocks, without what explains them.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if !fenced && !line.starts_with("    ") {
            continue;
        }
        let line = line.trim();
        let line = line.strip_prefix("$ ").unwrap_or(line);
        // Two spaces, or a `#`, begin what is said of it.
        let line = line.split("  ").next().unwrap_or(line);
        let line = line.split(" #").next().unwrap_or(line).trim();
        if line.starts_with("terrarium ") && line.len() > "terrarium ".len() {
            found.push(line.to_owned());
        }
    }
    found
}

#[test]
fn every_command_of_the_pages_blocks_runs() {
    require!(
        Root,
        Sources,
        Btf,
        MemoryController,
        Program("busybox"),
        Program("nft"),
        Program("script"),
        Program("docker-registry")
    );
    let bed = TestBed::new();
    let registry = Registry::start(&bed);
    let image = Image::new(
        vec![base()],
        &serde_json::json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]}}),
    );
    registry.push(&image, "team/tool", "1");
    let image = format!("{}/team/tool:1", Registry::ADDRESS);
    let web = bed.unique("web");
    let rootfs = bed.rootfs().display().to_string();
    bed.run(["run", "--detach", "--name", &web, &rootfs, "sleep", "1000"]).success();
    let state: serde_json::Value =
        serde_json::from_str(&bed.run(["state", &web]).success()).expect("it is JSON");
    let pid = state["pid"].to_string();

    let root = binaries::repository();
    let pages = fs::read_dir(root.join("docs")).expect("the pages are there").flatten();
    let pages = pages.map(|entry| entry.path()).filter(|path| !path.ends_with("FAQ.md"));
    let mut pages: Vec<_> = pages.filter(|path| path.is_file()).collect();
    pages.push(root.join("README.md"));
    pages.sort();

    // `terrarium` in a folder of its own, since the page says no path.
    let bin = bed.folder().join("programs");
    fs::create_dir(&bin).expect("the test's folder is writable");
    std::os::unix::fs::symlink(binaries::terrarium(), bin.join("terrarium")).expect("it is new");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PATH", &path).env("TERRARIUM_ROOT", bed.root());
        command.env("TERRARIUM_IMAGES", bed.images()).current_dir(bed.folder());
        command
    };
    // The history of the page's own observatory is the host's; this one has none.
    let mut observatory = bed.spawn(&mut shell("exec terrarium observe --no-history"));
    eventually("the observatory answers", || {
        let said = bed.finish(&mut shell("terrarium events --until 1s"));
        if said.code == 0 { Ok(()) } else { Err(said.stderr) }
    });

    let (mut tried, mut faults) = (0, Vec::new());
    for page in pages {
        let text = fs::read_to_string(&page).expect("it is a page");
        for (number, written) in commands(&text).into_iter().enumerate() {
            if ELSEWHERE.iter().any(|(word, _)| written.contains(word)) {
                continue;
            }
            tried += 1;
            let own = bed.unique(&format!("page{number}"));
            let words = written.split(' ').map(|word| match word {
                "ROOTFS" => rootfs.clone(),
                "IMAGE" => image.clone(),
                // What is to be made has a name of its own.
                "web" if written.contains("--name web") => own.clone(),
                "web" | "NAME" => web.clone(),
                "4711" => pid.clone(),
                "ID" => "no-seccomp".to_owned(),
                word => word.to_owned(),
            });
            let line = words.collect::<Vec<_>>().join(" ");
            let is_endless = ["observe", "--follow", "top"]
                .iter()
                .any(|word| line.split(' ').any(|w| w == *word));
            let line = if line.contains(" observe") {
                // The port is taken by the other; nor may it leave its history here.
                format!("timeout -s INT 3 {line} --listen 127.0.0.1:9751 --no-history")
            } else if line.contains(" -it ") {
                format!("echo exit | timeout 10 script -qefc '{line}' /dev/null")
            } else if line.ends_with(" top") {
                format!("echo q | timeout 5 script -qefc '{line}' /dev/null")
            } else if is_endless {
                format!("timeout -s INT 2 {line}")
            } else {
                line
            };
            let outcome = bed.finish(&mut shell(&line));
            let fine = outcome.code == 0
                || is_endless && outcome.code == 124
                // A finding: of the container here, or of any other that runs on the host meanwhile.
                || line.contains("terrarium leaks") && outcome.code == 3;
            if !fine || outcome.stderr.contains("panicked") {
                faults.push(format!("{}: {written}\n  {line}\n  {outcome:?}", page.display()));
            }
        }
    }
    observatory.signal(nix::sys::signal::Signal::SIGTERM);
    observatory.wait();
    bed.run(["delete", "--force", &web]).success();
    // Without --rm a container stays to be looked at.
    bed.run(["prune", "--force"]).success();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(tried >= 20, "{tried} commands");
}
