//! A root filesystem made of a static busybox and the workload; nothing is fetched.

use crate::binaries;
use crate::requirement::program;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Where the workload lies inside.
pub const WORKLOAD: &str = "/bin/terrarium-workload";

/// Makes a root filesystem in `folder`, which must not exist.
pub fn make(folder: &Path) {
    let busybox = program("busybox").expect("busybox is installed (cargo xtask setup installs it)");
    populate(folder, &busybox)
        .unwrap_or_else(|error| panic!("make a root filesystem in {}: {error}", folder.display()));
}

fn populate(folder: &Path, busybox: &Path) -> io::Result<()> {
    for name in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"] {
        fs::create_dir_all(folder.join(name))?;
    }
    fs::write(folder.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(folder.join("etc/group"), "root:x:0:\n")?;
    let bin = folder.join("bin");
    fs::copy(busybox, bin.join("busybox"))?;
    let list = Command::new(busybox).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", bin.join(applet))?;
    }
    fs::copy(binaries::workload(), folder.join(&WORKLOAD[1..]))?;
    // A program that is there and cannot be executed.
    fs::write(bin.join("not-executable"), "#!/bin/sh\n")?;
    Ok(())
}
