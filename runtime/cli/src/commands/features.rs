//! `terrarium features`: what this runtime can do, as JSON (runtime-spec, "Features Structure").

use serde_json::json;
use std::process::ExitCode;

/// Print what this runtime can do, as JSON.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run() -> anyhow::Result<ExitCode> {
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": terrarium_container::HOOK_KINDS,
        "mountOptions": terrarium_container::mount_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": terrarium_container::capability_names(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false
            },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"
                ]
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false }
        }
    });
    super::print(&format!("{document:#}"))?;
    Ok(ExitCode::SUCCESS)
}
