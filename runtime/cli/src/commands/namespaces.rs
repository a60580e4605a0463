//! `terrarium namespaces`: who holds each namespace of the host.

use super::Format;
use super::terminal::harmless;
use crate::Global;
use anyhow::Context;
use std::process::ExitCode;
use terrarium_observatory::leaks::namespaces::{self, NamespaceInfo};
use terrarium_observatory::leaks::{Kind, Places, json_line};

/// How many processes of a namespace the tree names.
const MOST_NAMED: usize = 20;

/// Show every namespace of the host, and which processes, containers, descriptors and mounts hold it alive
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name the processes and holders below each namespace
    #[arg(long)]
    tree: bool,
    /// How to print; as JSON a namespace a line
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Only namespaces of this kind: mnt, net, pid, ipc, uts, user or cgroup
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<&'static str>,
    /// Only the namespace with this inode
    #[arg(value_name = "INODE")]
    inode: Option<u64>,
}

fn kind(text: &str) -> Result<&'static str, String> {
    let known = Kind::ALL.into_iter().map(Kind::name).find(|name| *name == text);
    known.ok_or_else(|| "one of mnt, net, pid, ipc, uts, user, cgroup".to_owned())
}

/// Runs the command: exit code 1 where the namespace that was asked for is not there.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let root = std::path::absolute(&global.root).context("find state folder")?;
    let mut all = namespaces::all(&Places::of_host(&root))?;
    all.retain(|namespace| {
        args.kind.is_none_or(|kind| kind == namespace.kind)
            && args.inode.is_none_or(|inode| inode == namespace.inode)
    });
    if all.is_empty()
        && let Some(inode) = args.inode
    {
        anyhow::bail!("look for namespace {inode}: nothing is in it and nothing holds it");
    }
    let lines: Vec<String> = match args.format {
        Format::Json => all.iter().map(json_line).collect(),
        Format::Table if args.tree => all.iter().map(tree).collect(),
        Format::Table => table(&all),
    };
    super::print(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn whose(namespace: &NamespaceInfo) -> String {
    let mut names: Vec<String> = namespace.containers.iter().map(|name| harmless(name)).collect();
    if namespace.host {
        names.insert(0, "(host)".to_owned());
    }
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

fn table(all: &[NamespaceInfo]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<7} {:<12} {:>9} {:>5} {:>6}  {}",
        "KIND", "INODE", "PROCESSES", "FDS", "MOUNTS", "CONTAINERS"
    )];
    lines.extend(all.iter().map(|namespace| {
        let count = |kind: &str| namespace.held_by.iter().filter(|h| h.kind == kind).count();
        format!(
            "{:<7} {:<12} {:>9} {:>5} {:>6}  {}",
            namespace.kind,
            namespace.inode,
            namespace.processes.len(),
            count("fd"),
            count("mount"),
            whose(namespace)
        )
    }));
    lines
}

fn tree(namespace: &NamespaceInfo) -> String {
    let mut lines = vec![format!("{}:[{}] {}", namespace.kind, namespace.inode, whose(namespace))];
    let members = namespace.processes.iter();
    let mut below: Vec<String> = members
        .take(MOST_NAMED)
        .map(|member| format!("process {} {}", member.pid, harmless(&member.name)))
        .collect();
    if namespace.processes.len() > MOST_NAMED {
        below.push(format!("{} more processes", namespace.processes.len() - MOST_NAMED));
    }
    below.extend(namespace.held_by.iter().map(|holder| {
        let seen = match (holder.kind, holder.pid) {
            ("mount", Some(pid)) => format!(" (seen by process {pid})"),
            _ => String::new(),
        };
        format!("{} {}{seen}", holder.kind, harmless(&holder.path))
    }));
    let last = below.len();
    lines.extend(below.iter().enumerate().map(|(at, text)| {
        let branch = if at + 1 == last { "└─" } else { "├─" };
        format!("{branch} {text}")
    }));
    lines.join("\n")
}
