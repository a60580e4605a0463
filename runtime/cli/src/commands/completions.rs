//! `terrarium completions` and `man`: what shells and `man` know of the command line, made from its definition.

use anyhow::Context;
use clap::CommandFactory;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print a shell's completion script.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Write the man pages, one for each command.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Folder to write them into
    folder: PathBuf,
}

/// Positional arguments that are containers, by the names that they have in the definitions.
const CONTAINERS: [&str; 4] = ["id", "container", "one", "other"];

/// What a shell calls for the names of containers.
const NAMES: &str = "terrarium ps --quiet 2>/dev/null";

/// Runs `completions`.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "terrarium", &mut script);
    let script = String::from_utf8(script).context("read the script")?;
    super::terminal::print(&with_containers(args.shell, script))?;
    Ok(ExitCode::SUCCESS)
}

/// Commands that take containers which are there.
fn commands_on_containers() -> Vec<String> {
    let takes_one = |command: &clap::Command| {
        command.get_positionals().any(|arg| CONTAINERS.contains(&arg.get_id().as_str()))
    };
    let commands = crate::Cli::command();
    let on_containers = commands.get_subcommands().filter(|command| takes_one(command));
    // `create` takes the id of one that is not.
    let names = on_containers.map(|command| command.get_name().to_owned());
    names.filter(|name| name != "create").collect()
}

/// The script, with the containers that are there as what may stand for a container.
fn with_containers(shell: clap_complete::Shell, script: String) -> String {
    let commands = commands_on_containers();
    match shell {
        clap_complete::Shell::Bash => script
            .replace("complete -F _terrarium -o", "complete -F _terrarium_or_container -o")
            .replacen(
                "if [[ \"${BASH_VERSINFO[0]}\" -eq 4",
                &format!(
                    "_terrarium_or_container() {{\n    _terrarium \"$@\"\n    \
                     local cur=\"${{COMP_WORDS[COMP_CWORD]}}\" word\n    \
                     [[ $cur == -* ]] && return\n    \
                     for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do\n        \
                     case $word in\n            image|network) return ;;\n            {})\n                \
                     COMPREPLY+=( $(compgen -W \"$({NAMES})\" -- \"$cur\") )\n                \
                     return ;;\n        esac\n    done\n}}\n\nif [[ \"${{BASH_VERSINFO[0]}}\" -eq 4",
                    commands.join("|")
                ),
                1,
            ),
        clap_complete::Shell::Zsh => {
            let is_container = |line: &str| {
                CONTAINERS.iter().any(|id| line.contains(&format!(":{id} -- ")))
                    && !line.contains(" new ")
            };
            let lines = script.lines().map(|line| {
                if is_container(line) {
                    line.replace(":_default'", ":_terrarium_containers'")
                } else {
                    line.to_owned()
                }
            });
            let mut lines: Vec<String> = lines.collect();
            // Behind `#compdef`, which must be the first line.
            lines.insert(
                1,
                format!(
                    "\n_terrarium_containers() {{\n    local -a names\n    \
                     names=(${{(f)\"$({NAMES})\"}})\n    _describe container names\n}}"
                ),
            );
            lines.join("\n") + "\n"
        }
        clap_complete::Shell::Fish => commands.iter().fold(script, |script, command| {
            format!(
                "{script}complete -c terrarium -n \"__fish_seen_subcommand_from {command}\" -f -a \"({NAMES})\"\n"
            )
        }),
        _ => script,
    }
}

/// The page of the program for engines, which takes the same command lines.
const RUNTIME_PAGE: &str = concat!(
    ".TH terrarium-runtime 1 \"\" \"terrarium ",
    env!("CARGO_PKG_VERSION"),
    "\"\n",
    r".SH NAME
terrarium\-runtime \- the OCI runtime that container engines call
.SH SYNOPSIS
\fBterrarium\-runtime\fR [\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]
.SH DESCRIPTION
Podman, containerd and others start this program for each container, and for each thing that they do to one. It knows what they
call: \fBcreate\fR, \fBstart\fR, \fBstate\fR, \fBkill\fR, \fBdelete\fR, \fBrun \-\-bundle\fR and
\fBexec \-\-process\fR, as the runtime specification of the OCI has them, with the options that engines pass. Every other command
line it leaves to \fBterrarium\fR(1), which has to lie in the same folder or in \fBPATH\fR, and which takes these as well: what
differs is how long a start takes.
.SH OPTIONS
Those of \fBterrarium\fR(1).
.SH EXAMPLES
.nf
podman \-\-runtime /usr/bin/terrarium\-runtime run \-\-rm alpine echo hello
ctr run \-\-runc\-binary /usr/bin/terrarium\-runtime \-\-rm docker.io/library/alpine:latest hello echo hello
.fi
.SH SEE ALSO
\fBterrarium\fR(1), \fBterrarium\-create\fR(1), \fBterrarium\-run\fR(1)
"
);

/// Runs `man`.
pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(crate::Cli::command(), folder))
        .and_then(|()| std::fs::write(folder.join("terrarium-runtime.1"), RUNTIME_PAGE))
        .with_context(|| format!("write man pages into {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
