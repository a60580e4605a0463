//! What is done with bytes that somebody else may have written, without side effects: for the fuzz targets
//! (`tests/fuzz`) and for the short run of the unit tests. Nothing here may panic, whatever the bytes are.

use crate::cgroup::{Cgroups, Hierarchies};
use crate::container::{add_default_devices, cgroup_path, oci_state_of, requested_network};
use crate::id::ContainerId;
use crate::id_maps;
use crate::network::{self, Details, NetworkOptions, NetworkRequest, Subnet};
use crate::option_forms;
use crate::plan::{self, PlanContext};
use crate::state::State;
use crate::store::Journal;
use crate::units;
use oci_spec::runtime::{LinuxResources, Spec};
use std::path::Path;

/// `config.json`: all that happens before the first thing is made. `bundle` has a folder `rootfs`.
pub fn config(bytes: &[u8], bundle: &Path) {
    let Ok(mut spec) = serde_json::from_slice::<Spec>(bytes) else { return };
    add_default_devices(&mut spec);
    let id = ContainerId::new("fuzz").expect("it is a name");
    let network = requested_network(&spec);
    let _ = Details::of(&spec);
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    // Both kinds of host, whatever this one is.
    for mountinfo in [HYBRID, UNIFIED] {
        let hierarchies = Hierarchies::parse(mountinfo);
        let cgroups = cgroup_path(&spec, &id)
            .and_then(|path| Cgroups::plan(&hierarchies, &path, resources))
            .unwrap_or_default();
        let _ = plan::plan(
            &spec,
            &PlanContext {
                bundle,
                cgroups: &cgroups,
                dies_with_runtime: true,
                oci_state: oci_state_of(&spec, &id, bundle),
                preserve_fds: 0,
                listen_fds: 0,
                keeps_keyring: false,
                layers: None,
                wants_netlink: matches!(network, Ok(NetworkRequest::Bridge { .. })),
                extra_mounts: Vec::new(),
            },
        );
    }
    // What is written into the container's folder can be read by whoever comes later.
    let written = serde_json::to_vec(&spec).expect("a spec has no map with non-string keys");
    let _: Spec = serde_json::from_slice(&written).expect("its own text is read again");
}

/// The argument of `update --resources`.
pub fn resources(bytes: &[u8]) {
    let Ok(resources) = serde_json::from_slice::<LinuxResources>(bytes) else { return };
    let _ = Cgroups::plan(&Hierarchies::parse(HYBRID), "/fuzz", Some(&resources));
}

/// `state.json` and `journal.json`.
pub fn state(bytes: &[u8]) {
    if let Ok(state) = serde_json::from_slice::<State>(bytes) {
        let _ = state.observed_status();
        let _ = crate::container::oci_state(&state);
        let written = serde_json::to_vec(&state).expect("a state is plain data");
        let again: State = serde_json::from_slice(&written).expect("its own text is read again");
        assert!(again == state, "state.json means something else when it is read again");
    }
    let _ = serde_json::from_slice::<Journal>(bytes);
}

/// Lease files of a network whose folder is `folder`; they are removed again.
pub fn leases(bytes: &[u8], folder: &Path) {
    network::fuzz_leases(bytes, folder);
}

/// `network.json`, and the file that holds a container's published ports.
pub fn network(bytes: &[u8]) {
    network::fuzz_network(bytes);
}

/// Options, annotations, `/etc/subuid`, `/etc/hosts` and environment files: lines of text.
pub fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Subnet::parse(text);
    let _ = NetworkRequest::parse(Some(text), None);
    let _ = ContainerId::new(text);
    let _ = NetworkOptions {
        ip: Some(text.to_owned()),
        ip6: Some(text.to_owned()),
        mac: Some(text.to_owned()),
        dns: vec![text.to_owned()],
        hosts: vec![text.to_owned()],
        publish: Vec::new(),
        files_of: None,
    }
    .details();
    network::fuzz_text(text);
    let _ = id_maps::find_range(text, &["root", "1000"]);
    let _ = option_forms::env_lines(text);
    let _ = option_forms::mount_option(text);
    let _ = option_forms::ulimit(text);
    let _ = option_forms::tmpfs(text);
    let _ = units::parse_bytes("--memory", text);
    let _ = units::parse_memory("--memory", text);
    let _ = units::parse_cpus(text);
    let _ = units::parse_pids(text);
    let _ = Hierarchies::parse(text);
}

const HYBRID: &str = "\
31 23 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
32 23 0:27 / /sys/fs/cgroup/pids rw shared:10 - cgroup cgroup rw,pids
33 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct
34 23 0:29 / /sys/fs/cgroup/devices rw shared:12 - cgroup cgroup rw,devices
35 23 0:30 / /sys/fs/cgroup/blkio rw shared:13 - cgroup cgroup rw,blkio
36 23 0:31 / /sys/fs/cgroup/unified rw shared:14 - cgroup2 cgroup2 rw,nsdelegate
";

const UNIFIED: &str = "36 23 0:31 / /sys/fs/cgroup rw shared:14 - cgroup2 cgroup2 rw,nsdelegate\n";

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The seeds of the fuzz targets, and what they were chosen for.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds").join(target);
        let mut paths: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{} has seeds", folder.display());
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    /// Marsaglia's `xorshift`: the same changes in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % u64::try_from(limit.max(1)).unwrap()).unwrap()
        }

        /// `bytes` with a few of them changed, dropped, doubled or replaced by what means something.
        fn change(&mut self, bytes: &[u8]) -> Vec<u8> {
            const WORDS: [&str; 16] = [
                "null", "-1", "0", "18446744073709551615", "4294967295", "9223372036854775807",
                "-9223372036854775808", "[]", "{}", "\"\"", "true", "1e999", "/", ":", "\\u0000",
                "::ffff:1.2.3.4/128",
            ];
            let mut bytes = bytes.to_vec();
            for _ in 0..=self.below(3) {
                let at = self.below(bytes.len());
                let end = (at + self.below(12)).min(bytes.len());
                let word = WORDS[self.below(WORDS.len())].as_bytes();
                match self.below(5) {
                    0 if at < bytes.len() => {
                        bytes[at] = u8::try_from(self.below(256)).unwrap();
                    }
                    1 => drop(bytes.drain(at..end)),
                    2 => {
                        let copy = bytes[at..end].to_vec();
                        drop(bytes.splice(at..at, copy));
                    }
                    3 => drop(bytes.splice(at..end, word.iter().copied())),
                    _ => {
                        // A whole number or word of JSON.
                        let stop = |b: &u8| b",:]}\n\" /-".contains(b);
                        let end = bytes[at..].iter().position(stop).map_or(bytes.len(), |n| at + n);
                        drop(bytes.splice(at..end, word.iter().copied()));
                    }
                }
            }
            bytes
        }
    }

    fn replay(target: &str, rounds: usize, run: impl Fn(&[u8])) {
        let mut random = Random(0x7e44_a41c);
        for seed in seeds(target) {
            run(&seed);
            for _ in 0..rounds {
                run(&random.change(&seed));
            }
        }
    }

    #[test]
    fn changed_files_and_options_are_refused_without_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("rootfs")).unwrap();
        replay("config", 300, |bytes| config(bytes, folder.path()));
        replay("config", 100, resources);
        replay("state", 500, state);
        replay("network", 500, network);
        replay("text", 200, text);
        replay("lease", 200, |bytes| leases(bytes, folder.path()));
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["rootfs"], "nothing is made");
    }
}
