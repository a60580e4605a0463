//! What people install works where nothing else is installed: the tarball, the Debian package, the image.

use std::fs;
use std::path::Path;
use terrarium_tests::process::Outcome;
use terrarium_tests::requirement::made;
use terrarium_tests::{TestBed, require};

/// Runs `script` in a Debian that has nothing but the essential packages; what it writes is forgotten.
fn in_debian(bed: &TestBed, product: &Path, script: &str) -> Outcome {
    let folder = product.parent().expect("it is an absolute path");
    let volume = format!("{}:/dist:ro", folder.display());
    // An image of it, so that the test changes nothing of it.
    let archive = bed.folder().join("debian.tar");
    let packed = bed.finish(
        std::process::Command::new("tar")
            .args(["--create", "--exclude=./var/cache", "--exclude=./var/lib/apt", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(made("TERRARIUM_DIST_DEBIAN"))
            .arg("."),
    );
    packed.success();
    let archive = archive.display().to_string();
    bed.run(["image", "import", &archive, "debian"]).success();
    bed.container("debian")
        .with(["--volume", &volume])
        .rootfs("debian")
        .run(["/bin/sh", "-e", "-c", script])
}

fn name_of(product: &Path) -> String {
    product.file_name().expect("it is a file").to_string_lossy().into_owned()
}

#[test]
fn the_debian_package_installs_and_goes_without_a_trace() {
    require!(Root, Made("TERRARIUM_DIST_DEB"), Made("TERRARIUM_DIST_DEBIAN"));
    let bed = TestBed::new();
    let deb = made("TERRARIUM_DIST_DEB");
    let script = format!(
        "dpkg -i /dist/{} >/dev/null 2>&1
         terrarium --version | head -1
         terrarium spec --help | head -1
         terrarium-runtime --version | head -1
         ls /usr/share/man/man1/terrarium.1.gz /usr/share/bash-completion/completions/terrarium
         ls /lib/systemd/system/terrarium-observe.service
         ls /usr/share/terrarium/dashboards/grafana | head -1 | wc -l
         dpkg -P terrarium >/dev/null 2>&1
         test ! -e /usr/bin/terrarium && test ! -e /usr/bin/terrarium-runtime && test ! -e /usr/share/terrarium && echo gone",
        name_of(&deb)
    );
    let said = in_debian(&bed, &deb, &script).success();
    let version = format!("terrarium version {}\n", env!("CARGO_PKG_VERSION"));
    assert!(said.starts_with(&version), "{said}");
    // The program for engines has found the whole one.
    assert_eq!(said.matches(&version).count(), 2, "{said}");
    assert!(said.contains("terrarium-observe.service\n1\ngone\n"), "{said}");
}

#[test]
fn the_tarball_runs_from_where_it_was_unpacked() {
    require!(Root, Made("TERRARIUM_DIST_TARBALL"), Made("TERRARIUM_DIST_DEBIAN"));
    let bed = TestBed::new();
    let tarball = made("TERRARIUM_DIST_TARBALL");
    let script = format!(
        "tar -C /usr/local --strip-components=1 -xzf /dist/{}
         terrarium --version | head -1
         terrarium completions bash | grep -c terrarium >/dev/null && echo completes
         terrarium image list",
        name_of(&tarball)
    );
    let said = in_debian(&bed, &tarball, &script).success();
    assert!(said.contains("completes\n"), "{said}");
}

#[test]
fn the_image_of_terrarium_runs_under_terrarium() {
    require!(Root, Made("TERRARIUM_DIST_IMAGE"));
    let bed = TestBed::new();
    let file = made("TERRARIUM_DIST_IMAGE").display().to_string();
    let name = bed.run(["image", "import", &file]).success();
    assert_eq!(name, format!("localhost/terrarium:{}\n", env!("CARGO_PKG_VERSION")));
    let said = bed.container("self").rootfs(name.trim()).run(["--version"]).success();
    assert!(said.starts_with("terrarium version "), "{said}");
}

#[test]
fn the_unit_is_what_systemd_understands() {
    require!(Sources, Program("systemd-analyze"));
    let unit = terrarium_tests::binaries::repository().join("xtask/dist/terrarium-observe.service");
    let text = fs::read_to_string(unit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("terrarium-observe.service");
    // Here it is not installed; what the unit says besides is what is checked.
    fs::write(&file, text.replace("ExecStart=terrarium", "ExecStart=/bin/true")).unwrap();
    let mut analyze = std::process::Command::new("systemd-analyze");
    let outcome = terrarium_tests::process::run(analyze.args(["verify", "--man=no"]).arg(&file));
    let complaints: Vec<&str> =
        outcome.stderr.lines().filter(|line| line.contains("terrarium-observe")).collect();
    assert_eq!(complaints, Vec::<&str>::new());
}
