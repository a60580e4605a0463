//! Which mounts of a volume's the host and the container see of each other (`mount_namespaces(7)`, "Shared subtrees").

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use terrarium_tests::leak_case::{LeakCase, Runtime};
use terrarium_tests::{TestBed, require};

const NONE: Option<&str> = None;

/// A folder of the host's with a shared mount on it, gone with everything on it when this goes.
struct Shared(PathBuf);

impl Shared {
    fn make(bed: &TestBed) -> Self {
        let folder = bed.folder().join("shared");
        fs::create_dir(&folder).expect("the test's folder is writable");
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), NONE).expect("root mounts");
        mount(NONE, &folder, NONE, MsFlags::MS_SHARED, NONE).expect("root mounts");
        for name in ["from-host", "from-inside", "below"] {
            fs::create_dir(folder.join(name)).expect("it is writable");
        }
        // Lost, if a container unmounted the host's root for the host as well.
        let below = folder.join("below");
        mount(Some("tmpfs"), &below, Some("tmpfs"), MsFlags::empty(), NONE).expect("root mounts");
        Self(folder)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is mounted there, as this process' namespace, the host's, shows it.
    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4).map(PathBuf::from));
        points.filter(|point| point.starts_with(&self.0)).collect()
    }

    fn has(&self, point: &Path) -> bool {
        self.mounts().iter().any(|one| one == point)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn mounts_go_both_ways_one_way_or_no_way() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let shared = Shared::make(&bed);
    let (from_host, from_inside) = (shared.folder("from-host"), shared.folder("from-inside"));
    // What a volume asks for, what the root has to be for it, whether the container gets the host's mounts, and whether
    // the host gets the container's. Engines set the root's propagation so (Docker's -v VOLUME:PATH:rshared).
    for (volume, root, inwards, outwards) in [
        ("rprivate", "rprivate", false, false),
        ("rprivate", "rshared", false, false),
        ("rslave", "rslave", true, false),
        ("slave", "rslave", true, false),
        ("rshared", "rshared", true, true),
        ("shared", "shared", true, true),
    ] {
        for runtime in Runtime::available() {
            let all = ["CAP_SYS_ADMIN"];
            let fragment = json!({
                "process": { "capabilities": { "bounding+": all, "effective+": all, "permitted+": all } },
                "linux": { "rootfsPropagation": root, "seccomp-": ["mount"] },
                "mounts+": [{
                    "destination": "/shared", "type": "bind", "source": shared.0,
                    "options": ["rbind", volume]
                }]
            });
            let before = shared.mounts();
            let case = LeakCase::start(&bed, runtime, "propagation", &fragment);
            let after = shared.mounts();
            assert_eq!(before, after, "{runtime:?} {volume}: what sets it up does not show here");
            mount(Some("tmpfs"), &from_host, Some("tmpfs"), MsFlags::empty(), NONE).expect("root");
            let seen = case.exec(&["grep", "-c", " /shared/from-host ", "/proc/self/mountinfo"]);
            case.exec(&["mount", "-t", "tmpfs", "tmpfs", "/shared/from-inside"]).success();
            let told = shared.has(&from_inside);
            drop(case);
            umount2(&from_host, MntFlags::MNT_DETACH).expect("it is mounted");
            if shared.has(&from_inside) {
                umount2(&from_inside, MntFlags::MNT_DETACH).expect("it is mounted");
            }
            let found = (seen.stdout.trim() == "1", told);
            assert_eq!(found, (inwards, outwards), "{runtime:?} {volume} of a root {root}");
            assert_eq!(
                before,
                shared.mounts(),
                "{runtime:?} {volume}: its end hides nothing of the host's"
            );
        }
    }
}

#[test]
fn run_shares_a_volume_with_the_host_where_the_host_shares() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let shared = Shared::make(&bed);
    let from_inside = shared.folder("from-inside");
    let admin = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"];
    let volume = format!("{}:/shared:rshared", shared.0.display());
    let mount_field = format!("type=bind,src={},dst=/shared", shared.0.display());
    for options in
        [["--volume", &volume], ["--mount", &format!("{mount_field},bind-propagation=rshared")]]
    {
        let container = bed.container("shares").with(admin).with(options);
        container.run(["mount", "-t", "tmpfs", "tmpfs", "/shared/from-inside"]).success();
        assert!(shared.has(&from_inside), "{options:?}");
        umount2(&from_inside, MntFlags::MNT_DETACH).expect("it is mounted");
    }
    mount(NONE, &shared.0, NONE, MsFlags::MS_PRIVATE, NONE).expect("root mounts");
    let slave = format!("{mount_field},bind-propagation=slave");
    for (options, what) in [
        (["--volume", &volume], "no shared mount"),
        (["--mount", &slave], "no shared or slave mount"),
    ] {
        let outcome = bed.container("private").with(options).run(["true"]);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        assert!(outcome.stderr.contains(what), "{outcome:?}");
    }
}
