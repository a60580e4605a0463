//! `terrarium doctor`: what this kernel lets the observatory see, and why not more.

use super::Format;
use super::observe::probes;
use crate::Global;
use anyhow::Context;
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;
use terrarium_observatory::doctor::{self, Diagnosis, HookDiagnosis};
use terrarium_observatory::probe::Settings;

/// Say what this kernel lets the probes see, and why not more
#[derive(Debug, Args)]
pub struct Doctor {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Probes to try
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = super::observe::PROBES)]
    probes: Vec<String>,
    /// Ways to attach to try; else all, best first
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    attach: Vec<String>,
}

/// Runs the command: exit code 0 when every probe attaches, else 1.
pub fn run(args: &Doctor, _global: &Global) -> anyhow::Result<ExitCode> {
    super::logging::start();
    let settings = Settings {
        probes: probes(&args.probes)?,
        mechanisms: super::observe::mechanisms(&args.attach)?,
        ..Settings::default()
    };
    let diagnosis = doctor::diagnose(&settings);
    let text = match args.format {
        Format::Table => table(&diagnosis),
        Format::Json => {
            let mut text = serde_json::to_string_pretty(&diagnosis).context("write JSON")?;
            text.push('\n');
            text
        }
    };
    super::terminal::print(&text)?;
    Ok(if diagnosis.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", format!("{name:<22} {value}").trim_end());
    };
    line("kernel", &format!("{} {}", diagnosis.kernel.release, diagnosis.kernel.machine));
    line(
        "kernel types (BTF)",
        if diagnosis.btf { "yes" } else { "no: the kernel needs CONFIG_DEBUG_INFO_BTF" },
    );
    if !diagnosis.btf {
        line("what remains", super::observe::REMAINS);
    }
    line("cgroups", diagnosis.cgroup.mode);
    if let Some(unified) = &diagnosis.cgroup.unified {
        line("  unified at", unified);
    }
    if let Some(memory) = &diagnosis.cgroup.memory {
        line("  memory (v1) at", memory);
    }
    if diagnosis.cgroup.walked {
        line("  usage from", "a walk of the kernel's cgroups, and files");
    } else if let Some(reason) = &diagnosis.cgroup.no_walk {
        line("  usage from", &format!("files alone: {reason}"));
    }
    line("lockdown", &diagnosis.lockdown);
    if diagnosis.missing_capabilities.is_empty() {
        line("capabilities", "all that are needed");
    }
    for capability in &diagnosis.missing_capabilities {
        line("capability missing", &format!("{}, to {}", capability.name, capability.needed_to));
    }
    if let Some(error) = &diagnosis.error {
        line("error", error);
        if !diagnosis.missing_capabilities.is_empty() {
            line("", "run as root, or give the capabilities above");
        }
        return out;
    }
    for probe in &diagnosis.probes {
        line("", "");
        line(
            &format!("probe {}", probe.name),
            if probe.attached { "attached" } else { "NOT attached" },
        );
        for hooks in alike(&probe.hooks) {
            hook_lines(&mut line, &hooks);
        }
    }
    if !diagnosis.missing_fields.is_empty() {
        line("", "");
    }
    for field in &diagnosis.missing_fields {
        line("kernel lacks", &format!("{}: without it {}", field.field, field.loss));
    }
    for cost in &diagnosis.costs {
        line("", "");
        line("cost", cost);
    }
    out
}

/// Hooks that differ in their names only, together.
fn alike(hooks: &[HookDiagnosis]) -> Vec<Vec<&HookDiagnosis>> {
    let mut groups: Vec<Vec<&HookDiagnosis>> = Vec::new();
    for hook in hooks {
        let group = groups.iter_mut().find(|group| {
            group.first().is_some_and(|first| {
                (first.mechanism, first.loss, &first.attempts)
                    == (hook.mechanism, hook.loss, &hook.attempts)
            })
        });
        match group {
            Some(group) => group.push(hook),
            None => groups.push(vec![hook]),
        }
    }
    groups
}

fn hook_lines(line: &mut impl FnMut(&str, &str), hooks: &[&HookDiagnosis]) {
    let Some(first) = hooks.first() else { return };
    let how = match (first.mechanism, first.loss) {
        (Some(mechanism), _) => mechanism.name().to_owned(),
        (None, Some(loss)) => format!("not attached; lost: {loss}"),
        (None, None) => "NOT attached".to_owned(),
    };
    let names: Vec<&str> = hooks.iter().map(|hook| hook.name).collect();
    line(&format!("  {how}"), &names.join(" "));
    for attempt in &first.attempts {
        line("", &format!("not by {}: {}", attempt.mechanism, attempt.reason));
    }
}
