//! A real terminal of a given size, by tmux with a server of its own.

use crate::deadline::eventually;
use crate::process;
use crate::requirement::program;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A terminal with a shell in it; it is closed when this goes.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Opens one; its socket lies below `folder`.
    pub fn open(folder: &Path, columns: u16, lines: u16, variables: &[(&str, &str)]) -> Self {
        let terminal = Self { socket: folder.join("tmux") };
        let mut command = terminal.command();
        command.args(["new-session", "-d", "-x", &columns.to_string(), "-y", &lines.to_string()]);
        for (name, value) in variables {
            command.arg("-e").arg(format!("{name}={value}"));
        }
        // A prompt that says nothing of the machine.
        process::run(command.args(["env", "PS1=$ ", "ENV=", "sh"])).success();
        terminal
    }

    /// Writes a line as if it were typed.
    pub fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.keys(&["Enter"]);
    }

    /// Presses keys, as tmux names them.
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Gives its window another size.
    pub fn resize(&self, columns: u16, lines: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]);
    }

    /// What the screen shows.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with the sequences that set colours.
    pub fn styled(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen shows all of `words`, and gives it.
    pub fn wait(&self, words: &[&str]) -> String {
        eventually("the screen shows what it should", || {
            let screen = self.screen();
            match words.iter().find(|word| !screen.contains(**word)) {
                None => Ok(screen),
                Some(word) => Err(format!("{word:?} is not in\n{screen}")),
            }
        })
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        process::run(self.command().args(arguments)).success()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program("tmux").expect("the test requires tmux"));
        // Without anybody's settings, and not inside of a terminal that is tmux itself.
        command.arg("-S").arg(&self.socket).args(["-u", "-f", "/dev/null"]).env_remove("TMUX");
        command
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its shell and what runs in it end with it.
        let _ = process::run(self.command().arg("kill-server"));
    }
}
