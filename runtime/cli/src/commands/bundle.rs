//! What `create` and `run` take of an engine: a bundle, and what goes with it.

use crate::Global;
use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use terrarium_container::{CreateOptions, OciSpec};

/// Options of `create` and `run` for a bundle.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Bundle")]
pub struct BundleArgs {
    /// Folder that holds config.json [default: the current folder]
    #[arg(long, short, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Write the host pid of the first process there
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket that gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Pass this many descriptors from 3 on to the program
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Taken for other runtimes' sake: chroot is used where the kernel cannot pivot
    #[arg(long)]
    pub no_pivot: bool,
    /// Let the container have the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
}

impl BundleArgs {
    /// Reads the bundle's spec.
    pub fn spec(&self) -> anyhow::Result<(PathBuf, Box<OciSpec>)> {
        let bundle = self.bundle.as_deref().unwrap_or(Path::new("."));
        let bundle =
            bundle.canonicalize().with_context(|| format!("find bundle: {}", bundle.display()))?;
        let path = bundle.join("config.json");
        let bytes = std::fs::read(&path)
            .with_context(|| format!("read {} (--bundle names its folder)", path.display()))?;
        let spec = parse(&bytes, "/process/capabilities")
            .with_context(|| format!("read {}: it is not an OCI spec", path.display()))?;
        Ok((bundle, spec))
    }

    /// What the runtime is told besides the spec.
    pub fn options(&self, bundle: PathBuf, global: &Global) -> anyhow::Result<CreateOptions> {
        Ok(CreateOptions {
            cgroups: global.cgroup_driver()?,
            bundle: Some(bundle),
            console_socket: self.console_socket.clone(),
            preserve_fds: self.preserve_fds.saturating_add(listening()),
            listen_fds: listening(),
            pid_file: self.pid_file.clone(),
            keeps_keyring: self.no_new_keyring,
            ..CreateOptions::default()
        })
    }
}

/// Reads a document of the specification. Capabilities that nobody here knows are left out with a warning: an engine may be
/// younger than this program.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], capabilities: &str) -> serde_json::Result<T> {
    let error = match serde_json::from_slice(bytes) {
        Ok(document) => return Ok(document),
        Err(error) => error,
    };
    let mut document: Value = serde_json::from_slice(bytes)?;
    let known = terrarium_container::capability_names();
    let mut unknown = BTreeSet::new();
    let sets = document.pointer_mut(capabilities).and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let name = name.as_str().unwrap_or_default();
            let keep = known.iter().any(|one| *one == name);
            if !keep {
                unknown.insert(name.to_owned());
            }
            keep
        });
    }
    if unknown.is_empty() {
        return Err(error);
    }
    let document = serde_json::from_value(document)?;
    let names = unknown.into_iter().collect::<Vec<_>>().join(", ");
    eprintln!("terrarium: warning: unknown capabilities are left out: {names}");
    Ok(document)
}

/// How many descriptors socket activation (`sd_listen_fds(3)`) passes, from 3 on; those of `--preserve-fds` are behind them.
pub fn listening() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let mine = number("LISTEN_PID").is_none_or(|pid| pid == std::process::id());
    number("LISTEN_FDS").filter(|_| mine).unwrap_or(0)
}
