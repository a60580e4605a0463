//! Labels of the kernel's security modules: the `AppArmor` profile and the `SELinux` label of the program, which the kernel
//! takes for the next execve of whoever writes them (`proc_pid_attr(5)`).

use crate::error::{Error, Result};
use crate::init::{Failure, Step};
use oci_spec::runtime::Process;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// The labels of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    apparmor: Option<String>,
    selinux: Option<String>,
}

/// The files that take them, opened while the host's /proc is in reach.
#[derive(Debug, Default)]
pub(crate) struct OpenLabels(Vec<(File, String)>);

/// Whether this kernel has `AppArmor`, and it is on.
pub fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

/// Whether this kernel has `SELinux`, and it is on.
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

impl Labels {
    /// Reads the spec; refuses what this host does not have.
    pub(crate) fn from_spec(process: &Process) -> Result<Self> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        // Where nothing confines, nothing has to be done to be unconfined.
        let apparmor = given(process.apparmor_profile())
            .filter(|profile| profile != "unconfined" || has_apparmor());
        let selinux = given(process.selinux_label());
        if apparmor.is_some() && !has_apparmor() {
            let reason = "AppArmor is not enabled on this host; remove it";
            return Err(Error::unsupported("process.apparmorProfile", reason));
        }
        if selinux.is_some() && !has_selinux() {
            let reason = "SELinux is not enabled on this host; remove it";
            return Err(Error::unsupported("process.selinuxLabel", reason));
        }
        Ok(Self { apparmor, selinux })
    }

    /// Opens the files.
    pub(crate) fn open(&self) -> std::result::Result<OpenLabels, Failure> {
        let mut opened = Vec::new();
        let mut open = |paths: &[&str], text: String| {
            let path = paths.iter().copied().find(|path| Path::new(path).exists());
            let path = path.unwrap_or("/proc/self/attr/exec");
            let file = File::options().write(true).open(path).step("open", path)?;
            opened.push((file, text));
            Ok(())
        };
        if let Some(profile) = &self.apparmor {
            // The folder of its own came with Linux 5.1, so that both modules can be there.
            open(&["/proc/self/attr/apparmor/exec"], format!("exec {profile}"))?;
        }
        if let Some(label) = &self.selinux {
            open(&["/proc/self/attr/exec"], label.clone())?;
        }
        Ok(OpenLabels(opened))
    }
}

impl OpenLabels {
    /// Takes the labels for the execve that comes.
    pub(crate) fn take(&self) -> std::result::Result<(), Failure> {
        for (mut file, text) in self.0.iter().map(|(file, text)| (file, text)) {
            file.write_all(text.as_bytes()).step_hint(
                "take label",
                text,
                "is the profile or policy loaded on this host?",
            )?;
        }
        Ok(())
    }
}
