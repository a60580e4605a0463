//! `terrarium top`, in a real terminal.

use terrarium_tests::{
    Observatory, Terminal, TestBed, binaries, eventually, kernel_state, process, require,
};

/// `terrarium top`, followed by a word that tells its exit code.
fn command(observatory: &str) -> String {
    format!(
        "clear; {} top --interval 1 --observatory {observatory}; echo code=$?",
        binaries::terrarium().display()
    )
}

#[test]
fn containers_are_listed_opened_and_left_again() {
    require!(Root, CgroupV2, Btf, MemoryController, Program("busybox"), Program("tmux"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let mut container = bed.container("top").with(["--memory", "32m"]).follow();
    observatory.wait_for(container.name());
    container.call("fork 40");
    container.call("touch-in-child 64000000");
    let name = container.name();

    let terminal = Terminal::open(bed.folder(), 80, 24, &[]);
    terminal.line(&command(observatory.address()));
    terminal.wait(&["1 Containers  2 Events  3 Findings", "CPU%↓"]);
    // Other tests' containers may be there as well, more than there are lines: only this one.
    terminal.keys(&["/"]);
    terminal.line(name);
    let screen = eventually("it alone is listed", || {
        let screen = terminal.screen();
        let rows: Vec<&str> = screen.lines().skip(2).take(2).collect();
        let cut = rows[0].split_whitespace().next().unwrap_or_default();
        let alone = !cut.is_empty() && name.starts_with(cut) && rows[1].trim().is_empty();
        if alone { Ok(screen) } else { Err(screen) }
    });
    let lines: Vec<&str> = screen.lines().collect();
    assert_eq!(lines.len(), 24, "{screen}");
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    let titles = ["NAME", "CPU%↓", "MEM", "LIMIT", "TASKS", "CLONES", "NS", "HITS", "STALL", "OOM"];
    assert_eq!(words, titles, "{screen}");
    let words: Vec<&str> = lines[2].split_whitespace().collect();
    // The name may be cut; processes made: 40, the child and the one that is the container itself.
    assert!(name.starts_with(words[0]) && words[3] == "32.0MiB", "{screen}");
    assert!(words[5].parse::<u32>().is_ok_and(|clones| clones >= 41), "{screen}");
    assert!(words[9].parse::<u32>().is_ok_and(|kills| kills >= 1), "{screen}");

    terminal.keys(&["Enter"]);
    terminal.wait(&[name, "limit hits", "OOM kills 1", "TIME", "process.exit", "Esc back"]);
    terminal.keys(&["Escape"]);
    terminal.wait(&["s sort", "NAME"]);
    terminal.keys(&["e"]);
    terminal.wait(&["events of all containers", "TYPE"]);
    terminal.keys(&["f"]);
    terminal.wait(&["findings: "]);
    terminal.keys(&["q"]);
    // The screen is the shell's again.
    let screen = terminal.wait(&["code=0"]);
    assert!(!screen.contains("3 Findings"), "{screen}");
    container.finish();
}

#[test]
fn a_signal_gives_the_terminal_back() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("tmux"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let terminal = Terminal::open(bed.folder(), 100, 30, &[]);
    for signal in ["TERM", "HUP", "INT"] {
        terminal.line(&command(observatory.address()));
        terminal.wait(&["RUNTIME", "q quit"]);
        let own = eventually("top runs", || {
            let all = kernel_state::processes_with(observatory.address());
            let top = all.iter().find(|process| process.command.contains(" top "));
            top.map(|process| process.pid.to_string()).ok_or_else(|| format!("{all:?}"))
        });
        process::run(std::process::Command::new("kill").args(["-s", signal, &own])).success();
        let screen = terminal.wait(&["code=0"]);
        assert!(!screen.contains("q quit"), "{screen}");
        // Line by line and with echo, as it was before.
        terminal.line("stty -a | tr ' ' '\\n' | grep -c -e ^icanon -e ^echo$");
        terminal.wait(&["\n2\n"]);
    }
}

#[test]
fn no_color_means_none() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("tmux"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    for (variables, coloured) in [(&[("NO_COLOR", "1")][..], false), (&[], true)] {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let terminal = Terminal::open(folder.path(), 80, 24, variables);
        terminal.line(&command(observatory.address()));
        terminal.wait(&["q quit"]);
        // Sequences that set a colour: 30 to 38 and 90 to 97; 39 takes it back.
        let styled = terminal.styled();
        let found = styled.split('\u{1b}').any(|part| {
            part.strip_prefix('[').and_then(|rest| rest.split_once('m')).is_some_and(
                |(codes, _)| {
                    codes
                        .split(';')
                        .any(|code| code.len() == 2 && code != "39" && code.starts_with(['3', '9']))
                },
            )
        });
        assert_eq!(found, coloured, "{styled:?}");
        terminal.keys(&["q"]);
        terminal.wait(&["code=0"]);
    }
}

#[test]
fn without_an_observatory_or_a_terminal_it_says_so() {
    require!(Program("tmux"));
    let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
    let terminal = Terminal::open(folder.path(), 160, 24, &[]);
    // Nobody listens on the port of discard.
    terminal.line(&command("127.0.0.1:9"));
    let screen = terminal.wait(&["code=1"]);
    assert!(screen.contains("is `terrarium observe` running? see --observatory"), "{screen}");
    let mut top = std::process::Command::new(binaries::terrarium());
    let outcome = process::run(top.args(["top", "--observatory", "127.0.0.1:9"]));
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("is no terminal"), "{}", outcome.stderr);
    let mut top = std::process::Command::new(binaries::terrarium());
    let outcome = process::run(top.args(["top", "--observatory", "ftp://x"]));
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
}

#[test]
fn it_ends_with_its_terminal() {
    require!(Root, CgroupV2, Btf, Program("busybox"), Program("tmux"));
    let bed = TestBed::new();
    let observatory = Observatory::start(&bed, &[]);
    let top = || {
        let all = kernel_state::processes_with(observatory.address());
        all.into_iter().find(|process| process.command.contains(" top "))
    };
    let terminal = Terminal::open(bed.folder(), 100, 30, &[]);
    terminal.line(&command(observatory.address()));
    terminal.wait(&["RUNTIME", "q quit"]);
    assert!(top().is_some());
    drop(terminal);
    eventually("top has ended", || top().map_or(Ok(()), |top| Err(format!("{top:?}"))));
}
