//! What this kernel lets the observatory see: each hook is loaded and attached for real, then taken back.

use crate::kernel::btf::VMLINUX;
use crate::kernel::cgroup_mounts::CgroupMounts;
use crate::kernel::permission;
use crate::probe::plan::{Mechanism, probe_name};
use crate::probe::{Attempt, HookReport, Probes, Settings};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;
use terrarium_abi::Probe;

/// The findings.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// The kernel.
    pub kernel: Kernel,
    /// Whether the kernel shows its types.
    pub btf: bool,
    /// How cgroups are set up.
    pub cgroup: Cgroup,
    /// The kernel's lockdown state.
    pub lockdown: String,
    /// Capabilities that this process lacks.
    pub missing_capabilities: Vec<MissingCapability>,
    /// Why nothing could be loaded at all.
    pub error: Option<String>,
    /// The probes.
    pub probes: Vec<ProbeDiagnosis>,
    /// Kernel fields that this kernel lacks.
    pub missing_fields: Vec<MissingFieldView>,
    /// What a cheap system call costs on this machine, as measured just now.
    pub system_call_ns: Option<SystemCallCost>,
    /// What the choices cost.
    pub costs: Vec<String>,
    /// Whether every probe is attached with all that it needs.
    pub ok: bool,
}

/// Nanoseconds that `getppid` takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SystemCallCost {
    /// Without the probes of this diagnosis; what others have attached is in it.
    pub without: f64,
    /// With them.
    pub with: f64,
}

/// The kernel.
#[derive(Debug, Serialize)]
pub struct Kernel {
    /// As `uname -r`.
    pub release: String,
    /// As `uname -m`.
    pub machine: String,
}

/// How cgroups are set up.
#[derive(Debug, Serialize)]
pub struct Cgroup {
    /// `v2`, `hybrid`, `v1` or `none`.
    pub mode: &'static str,
    /// Where the unified hierarchy is mounted.
    pub unified: Option<String>,
    /// Where the v1 memory hierarchy is mounted.
    pub memory: Option<String>,
    /// Whether a walk of the kernel's cgroups tells what containers use; else files tell all of it, which costs more.
    pub walked: bool,
    /// Why not.
    pub no_walk: Option<String>,
}

/// A capability that is missing.
#[derive(Debug, Serialize)]
pub struct MissingCapability {
    /// Its name.
    pub name: &'static str,
    /// What it is needed for.
    pub needed_to: &'static str,
}

/// A kernel field that is missing.
#[derive(Debug, Serialize)]
pub struct MissingFieldView {
    /// Its name.
    pub field: &'static str,
    /// What is lost without it.
    pub loss: &'static str,
}

/// One probe.
#[derive(Debug, Serialize)]
pub struct ProbeDiagnosis {
    /// Its name.
    pub name: &'static str,
    /// Whether all that it needs is attached.
    pub attached: bool,
    /// Its hooks.
    pub hooks: Vec<HookDiagnosis>,
}

/// One hook.
#[derive(Debug, Serialize)]
pub struct HookDiagnosis {
    /// Its name.
    pub name: &'static str,
    /// How it is attached.
    pub mechanism: Option<Mechanism>,
    /// Whether the probe counts as attached without it.
    pub optional: bool,
    /// What is lost where it is not attached.
    pub loss: Option<&'static str>,
    /// The ways that did not work.
    pub attempts: Vec<Attempt>,
}

/// Finds out. Nothing stays attached.
pub fn diagnose(settings: &Settings) -> Diagnosis {
    let proc = &settings.proc;
    let mounts = CgroupMounts::read(proc).unwrap_or_default();
    let mount = |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| p.display().to_string());
    let missing_capabilities: Vec<_> = permission::missing_capabilities(proc)
        .into_iter()
        .map(|(name, needed_to)| MissingCapability { name, needed_to })
        .collect();
    let before = getppid_ns();
    let mut no_walk = None;
    let (reports, missing_fields, error, system_call_ns) = match Probes::load(settings) {
        Ok(probes) => {
            no_walk = probes.no_walks().map(str::to_owned);
            let with = getppid_ns();
            let cost = SystemCallCost { without: before, with };
            (probes.reports().to_vec(), probes.missing_fields().to_vec(), None, Some(cost))
        }
        Err(error) => (Vec::new(), Vec::new(), Some(error.to_string()), None),
    };
    let wanted = Probe::ALL
        .into_iter()
        .filter(|probe| settings.probes.iter().any(|choice| choice.probe == *probe));
    let wanted: Vec<Probe> = wanted.collect();
    let probes: Vec<_> = wanted.iter().map(|probe| probe_diagnosis(*probe, &reports)).collect();
    let ok = error.is_none() && probes.iter().all(|probe| probe.attached);
    let (release, machine) = nix::sys::utsname::uname().map_or_else(
        |_| Default::default(),
        |name| {
            let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
            (text(name.release()), text(name.machine()))
        },
    );
    Diagnosis {
        kernel: Kernel { release, machine },
        btf: Path::new(VMLINUX).exists(),
        cgroup: Cgroup {
            mode: mounts.mode().name(),
            unified: mount(&mounts.unified),
            memory: mount(&mounts.memory),
            walked: error.is_none() && no_walk.is_none(),
            no_walk,
        },
        lockdown: permission::lockdown(Path::new("/sys")),
        missing_capabilities,
        error,
        probes,
        missing_fields: missing_fields
            .into_iter()
            .map(|field| MissingFieldView { field: field.field, loss: field.loss })
            .collect(),
        costs: costs(&reports, system_call_ns),
        system_call_ns,
        ok,
    }
}

fn probe_diagnosis(probe: Probe, reports: &[HookReport]) -> ProbeDiagnosis {
    let hooks: Vec<HookDiagnosis> = reports
        .iter()
        .filter(|report| report.probe() == probe)
        .map(|report| HookDiagnosis {
            name: report.hook.name,
            mechanism: report.mechanism,
            optional: report.hook.optional.is_some(),
            loss: report.hook.optional.filter(|_| report.mechanism.is_none()),
            attempts: report.attempts.clone(),
        })
        .collect();
    let attached =
        !hooks.is_empty() && hooks.iter().all(|hook| hook.mechanism.is_some() || hook.optional);
    ProbeDiagnosis { name: probe_name(probe), attached, hooks }
}

/// What the ways in use cost, beyond the time of the probes themselves.
fn costs(reports: &[HookReport], measured: Option<SystemCallCost>) -> Vec<String> {
    let mut probes: Vec<&str> = reports
        .iter()
        .filter(|report| report.mechanism == Some(Mechanism::Tracepoint))
        .map(|report| probe_name(report.probe()))
        .collect();
    probes.sort_unstable();
    probes.dedup();
    if probes.is_empty() {
        return Vec::new();
    }
    let measured = measured.map_or_else(String::new, |SystemCallCost { without, with }| {
        format!("; measured now with getppid: {without:.0} ns without them, {with:.0} ns with them")
    });
    vec![format!(
        "system call tracepoints put every system call of every process on the slow path, however many are attached; used by \
         the probes {}; to avoid it leave them out with --probes{measured}",
        probes.join(", ")
    )]
}

/// Nanoseconds that a `getppid` takes: the best of several loops, which what else runs disturbs least.
fn getppid_ns() -> f64 {
    const CALLS: u32 = 20_000;
    const LOOPS: u32 = 15;
    let one = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            // Not kept by the C library, so each is a system call.
            std::hint::black_box(nix::unistd::getppid());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..LOOPS).map(|_| one()).fold(f64::INFINITY, f64::min)
}
