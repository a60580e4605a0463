//! `cp`: files go where docker would put them, and nowhere else.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use terrarium_tests::process::run;
use terrarium_tests::{Outcome, TestBed, require};

/// A container that sleeps, deleted when this goes.
struct Sleeper<'a> {
    bed: &'a TestBed,
    name: String,
}

impl<'a> Sleeper<'a> {
    fn start(bed: &'a TestBed, options: &[&str]) -> Self {
        let name = bed.unique("cp");
        let mut words = vec!["run", "-d", "--name", &name];
        words.extend(options);
        let rootfs = bed.rootfs().display().to_string();
        words.extend([rootfs.as_str(), "--", "sleep", "600"]);
        bed.run(words).success();
        Self { bed, name }
    }

    fn at(&self, path: &str) -> String {
        format!("{}:{path}", self.name)
    }

    fn sh(&self, script: &str) -> String {
        self.bed.run(["exec", &self.name, "sh", "-c", script]).success()
    }

    fn copy(&self, from: &str, to: &str) -> Outcome {
        let mut command = self.bed.terrarium();
        self.bed.finish(command.args(["cp", from, to]).current_dir(self.bed.folder()))
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.bed.run(["delete", "--force", &self.name]);
    }
}

#[test]
fn files_and_folders_go_both_ways() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let sleeper = Sleeper::start(&bed, &[]);
    let site = bed.folder().join("site");
    fs::create_dir_all(site.join("sub")).unwrap();
    fs::write(site.join("page"), "hello\n").unwrap();
    fs::write(site.join("sub/tool"), "#!/bin/sh\necho run\n").unwrap();
    fs::set_permissions(site.join("sub/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("page", site.join("link")).unwrap();
    // Into a folder, under another name, and what is in it.
    sleeper.copy("site", &sleeper.at("/tmp")).success();
    sleeper.copy("./site", &sleeper.at("/tmp/other")).success();
    sleeper.sh("mkdir -p /srv");
    sleeper.copy("site/.", &sleeper.at("/srv")).success();
    assert_eq!(sleeper.sh("cat /srv/page"), "hello\n");
    let listed =
        sleeper.sh("cd /tmp/site; cat page link; readlink link; sub/tool; cat /tmp/other/page");
    assert_eq!(listed, "hello\nhello\npage\nrun\nhello\n");
    // And back, with what happened to it.
    sleeper.sh("cd /tmp/site; echo more >> page; ln -s /etc/passwd out; mkfifo pipe");
    sleeper.copy(&sleeper.at("/tmp/site"), "back").success();
    let back = bed.folder().join("back");
    assert_eq!(fs::read_to_string(back.join("page")).unwrap(), "hello\nmore\n");
    assert_eq!(fs::read_link(back.join("out")).unwrap(), PathBuf::from("/etc/passwd"));
    assert_eq!(back.join("sub/tool").metadata().unwrap().mode() & 0o777, 0o755);
    sleeper.copy(&sleeper.at("tmp/site/page"), "one").success();
    assert_eq!(fs::read_to_string(bed.folder().join("one")).unwrap(), "hello\nmore\n");
    // As an archive: one made from another.
    let mut command = bed.terrarium();
    let archive = bed.finish(command.args(["cp", &sleeper.at("/tmp/site"), "-"])).stdout;
    assert!(archive.starts_with("site\0"), "{archive:.100}");
    assert!(archive.contains("site/pipe\0") && !back.join("pipe").exists());
}

#[test]
fn links_of_the_container_do_not_lead_out() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let sleeper = Sleeper::start(&bed, &[]);
    let outside = bed.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "of the host").unwrap();
    fs::write(bed.folder().join("new"), "new").unwrap();
    let (path, up) = (outside.display(), "../".repeat(20));
    sleeper.sh(&format!("ln -s {path} /tmp/direct; ln -s {up}{path} /tmp/round; mkdir -p /tmp/d; ln -s {path} /tmp/d/x"));
    for link in ["direct", "round", "d/x"] {
        // The link is followed in the container, where nothing is there.
        let outcome = sleeper.copy("new", &sleeper.at(&format!("/tmp/{link}/new")));
        assert_eq!(outcome.code, 1, "{link}: {outcome:?}");
        let outcome = sleeper.copy(&sleeper.at(&format!("/tmp/{link}/secret")), "got");
        assert_eq!(outcome.code, 1, "{link}: {outcome:?}");
    }
    assert!(!outside.join("new").exists() && !bed.folder().join("got").exists());
    // An archive that wants to write through a link which it brought itself.
    let evil = bed.folder().join("evil.tar");
    let mut archive = tar::Builder::new(fs::File::create(&evil).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, "way", &outside).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    archive.append_data(&mut header, "way/new", &b"bad"[..]).unwrap();
    archive.finish().unwrap();
    let mut command = bed.terrarium();
    command.args(["cp", "-", &sleeper.at("/tmp")]).stdin(fs::File::open(&evil).unwrap());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    bed.spawn(&mut command).wait();
    assert!(!outside.join("new").exists());
}

#[test]
fn what_is_copied_belongs_to_the_containers_root() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let sleeper = Sleeper::start(&bed, &["--userns=300000:65536", "--tmpfs", "/tmp"]);
    fs::write(bed.folder().join("mine"), "x").unwrap();
    sleeper.copy("mine", &sleeper.at("/tmp/mine")).success();
    assert_eq!(sleeper.sh("stat -c %u:%g /tmp/mine"), "0:0\n");
    sleeper.copy(&sleeper.at("/tmp/mine"), "yours").success();
    assert_eq!(bed.folder().join("yours").metadata().unwrap().uid(), 0);
}

#[test]
fn errors_of_cp_say_what_is_missing() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let sleeper = Sleeper::start(&bed, &[]);
    fs::create_dir(bed.folder().join("folder")).unwrap();
    fs::write(bed.folder().join("file"), "x").unwrap();
    for (from, to, code, part) in [
        ("a", "b", 2, "one of the two must be in a container"),
        ("nosuch", &*sleeper.at("/tmp"), 1, "there is no such file"),
        (&*sleeper.at("/nosuch"), "x", 1, "there is no such file"),
        ("file", &*sleeper.at("/nosuch/x"), 1, "there is no folder /nosuch"),
        ("file", &*sleeper.at("/nosuch/"), 1, "there is no such folder"),
        ("folder", &*sleeper.at("/etc/passwd"), 1, "a folder cannot take its place"),
        ("file", "nosuchcontainer:/x", 1, "does not exist"),
    ] {
        let outcome = sleeper.copy(from, to);
        assert_eq!(outcome.code, code, "{from} {to}: {outcome:?}");
        assert!(outcome.stderr.contains(part), "{from} {to}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
    bed.run(["kill", &sleeper.name, "KILL"]).success();
    run(bed.terrarium().args(["wait", &sleeper.name]));
    let outcome = sleeper.copy("file", &sleeper.at("/tmp"));
    assert!(outcome.code == 1 && outcome.stderr.contains("not running"), "{outcome:?}");
}
