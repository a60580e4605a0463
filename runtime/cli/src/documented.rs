//! The commands of README and docs/ are ones that the program takes.

use crate::Cli;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use std::fs;
use std::path::{Path, PathBuf};

/// The pages with commands. Those of docs/FAQ.md fail, and are run by an end-to-end test.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    let pages = pages.filter(|path| !path.ends_with("FAQ.md"));
    pages
        .chain(["README.md", "CHANGELOG.md"].map(|name| root.join(name)))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// A command as it stands in a page.
struct Command<'a> {
    text: &'a str,
    /// It stands in a line of a sentence, where it may be named without its arguments.
    is_named: bool,
}

/// What stands between backquotes, or by itself in a block, and begins with the program's name.
fn commands(page: &str) -> Vec<Command<'_>> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced || line.starts_with("    ") {
            let line = line.trim();
            let line = line.strip_prefix("$ ").unwrap_or(line);
            let parts = line.split(" && ").flat_map(|part| part.split(" | "));
            found.extend(
                parts
                    .filter(|part| part.starts_with("terrarium "))
                    .map(|text| Command { text, is_named: false }),
            );
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(
                spans
                    .filter(|span| span.starts_with("terrarium "))
                    .map(|text| Command { text, is_named: true }),
            );
        }
    }
    found
}

/// The words of a command, without what explains it: two spaces or more, a comment, a pipe, a redirection. Of alternatives the
/// first, and what may be left out is there.
fn words(text: &str) -> Vec<String> {
    let end = ["  ", " #", " & ", " | ", " > ", " 2>", "; "]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min();
    let mut words = Vec::new();
    let mut quote = None;
    let mut word = String::new();
    let mut begun = false;
    for letter in text[..end.unwrap_or(text.len())].chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => (quote, begun) = (Some(letter), true),
            (None, ' ') => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (None, '[' | ']') => {}
            _ => word.push(letter),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    for word in &mut words {
        if let Some((first, _)) = word.split_once('|') {
            *word = first.to_owned();
        }
    }
    words
}

#[test]
fn every_command_of_the_pages_is_one_that_is_taken() {
    let mut tried = 0;
    let mut faults = Vec::new();
    for (page, text) in pages() {
        for Command { text, is_named } in commands(&text) {
            let words = words(text);
            if words.iter().any(|word| word.contains('…')) {
                continue;
            }
            tried += 1;
            let Err(error) = Cli::try_parse_from(&words) else { continue };
            let is_help =
                matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let is_unfinished = matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::InvalidValue
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
            // A word in capitals stands for a number, say.
            let is_placeholder = error.kind() == ErrorKind::ValueValidation
                && words.iter().any(|word| {
                    word.bytes().all(|byte| byte.is_ascii_uppercase())
                        && error.to_string().contains(&format!("'{word}'"))
                });
            if !(is_help || is_placeholder || is_named && is_unfinished) {
                faults.push(format!("{}: {text}\n  {words:?}\n  {error}", page.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(tried > 60, "{tried} commands");
}

#[test]
fn the_help_of_every_command_has_examples_that_are_taken() {
    let mut faults = Vec::new();
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let mut lines = text.lines();
        if lines.next() != Some("Examples:") {
            faults.push(format!("{name} has none"));
        }
        for part in lines.flat_map(|line| line.trim().split(" | ")) {
            // What other programs do in it is theirs.
            if !part.starts_with("terrarium ") {
                continue;
            }
            if let Err(error) = Cli::try_parse_from(words(part)) {
                faults.push(format!("{name}: {part}\n  {error}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn commands_are_found_and_their_words_told_apart() {
    let page = "Text with `terrarium ps` and `cargo test`.\n\n    $ terrarium run --x 'a b' R -- sh   # why\n\
                ```\nterrarium pull I && terrarium run I\n```\n";
    let found: Vec<_> = commands(page).iter().map(|command| command.text).collect();
    let expected = [
        "terrarium ps",
        "terrarium run --x 'a b' R -- sh   # why",
        "terrarium pull I",
        "terrarium run I",
    ];
    assert_eq!(found, expected);
    assert_eq!(words(found[1]), ["terrarium", "run", "--x", "a b", "R", "--", "sh"]);
    assert_eq!(
        words("terrarium leaks [--graph dot|json] > x"),
        ["terrarium", "leaks", "--graph", "dot"]
    );
}
