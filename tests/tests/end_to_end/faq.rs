//! The errors of docs/FAQ.md are those that are printed.

use terrarium_tests::{TestBed, binaries, process, require};

#[test]
fn every_command_of_the_faq_prints_what_the_faq_says() {
    require!(Root, Sources, Program("busybox"));
    let file = binaries::repository().join("docs/FAQ.md");
    let text = std::fs::read_to_string(&file).expect("the page is there");
    let bed = TestBed::new();
    let rootfs = bed.rootfs().display().to_string();
    let mut lines = text.lines();
    let mut tried = 0;
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("    $ terrarium ") else { continue };
        let expected = lines.next().unwrap_or_default().trim();
        let words = command.split(' ').map(|word| word.replace("/srv/rootfs", &rootfs));
        let outcome = process::run(bed.terrarium().args(words));
        assert_ne!(outcome.code, 0, "{command}");
        // The list of probes grows.
        let (told, end) = expected.split_once("PROBES").unwrap_or((expected, ""));
        let printed = outcome.stderr.trim();
        assert!(
            printed.starts_with(told) && printed.ends_with(end),
            "{command}\nprints  {printed}\ninstead {expected}"
        );
        tried += 1;
    }
    assert!(tried >= 7, "{tried} commands are in {}", file.display());
}
