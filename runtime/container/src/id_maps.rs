//! The ids of a user namespace: which the options of `run` ask for, and how they are written.
//!
//! A caller without privileges may map his own id alone (`user_namespaces(7)`). The ranges that /etc/subuid and
//! /etc/subgid give him are mapped by newuidmap(1) and newgidmap(1), which have the privilege.

use crate::error::{Error, Result, Tried};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Host ids of a `--userns auto` map where /etc/subuid has no line for root or `containers`.
const AUTO: (u32, u32) = (100_000, 65_536);

/// The two maps of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IdMaps {
    /// Lines of `uid_map`.
    pub uid: Vec<LinuxIdMapping>,
    /// Lines of `gid_map`.
    pub gid: Vec<LinuxIdMapping>,
}

impl IdMaps {
    /// What `run` makes: what `--userns` says; else none for root, and what is possible for others.
    pub(crate) fn for_run(option: Option<&str>) -> Result<Option<Self>> {
        let own = rustix::process::geteuid();
        match option {
            None if own.is_root() => Ok(None),
            None | Some("auto") if !own.is_root() => Ok(Some(Self::without_privileges())),
            Some("auto") | None => {
                let (start, count) =
                    subordinate("/etc/subuid", &["root", "0", "containers"]).unwrap_or(AUTO);
                Ok(Some(Self::of_range(start, count)))
            }
            Some(text) => {
                let invalid = || {
                    let reason = "the form is auto or HOSTID[:SIZE], such as 100000:65536";
                    Error::invalid("--userns", text, reason)
                };
                let (host, size) = text.split_once(':').unwrap_or((text, "1"));
                let host: u32 = host.parse().map_err(|_| invalid())?;
                let size: u32 = size.parse().map_err(|_| invalid())?;
                if size == 0 || host.checked_add(size).is_none() {
                    return Err(invalid());
                }
                Ok(Some(Self::of_range(host, size)))
            }
        }
    }

    /// The ids from 0 on are those of the host from `start` on.
    fn of_range(start: u32, count: u32) -> Self {
        let map = vec![line(0, start, count)];
        Self { uid: map.clone(), gid: map }
    }

    /// The caller is root inside. The other ids are those of his ranges, where there are some and programs that map them.
    fn without_privileges() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let mut maps = Self { uid: vec![line(0, uid, 1)], gid: vec![line(0, gid, 1)] };
        if program("newuidmap").is_none() || program("newgidmap").is_none() {
            return maps;
        }
        let number = uid.to_string();
        let name = user_name(uid);
        let names: Vec<&str> = name.as_deref().into_iter().chain([number.as_str()]).collect();
        if let (Some(uids), Some(gids)) =
            (subordinate("/etc/subuid", &names), subordinate("/etc/subgid", &names))
        {
            maps.uid.push(line(1, uids.0, uids.1));
            maps.gid.push(line(1, gids.0, gids.1));
        }
        maps
    }

    /// Whether the group `id` is there inside.
    pub(crate) fn has_group(&self, id: u32) -> bool {
        self.gid.iter().any(|m| (m.container_id()..m.container_id() + m.size()).contains(&id))
    }
}

/// Whether `maps` are what a caller without privileges may write himself: his own id, once.
pub(crate) fn are_own_ids(uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) -> bool {
    let is_own = |map: &[LinuxIdMapping], own: u32| matches!(map, [one] if one.size() == 1 && one.host_id() == own);
    is_own(uid, rustix::process::geteuid().as_raw())
        && is_own(gid, rustix::process::getegid().as_raw())
}

/// A map as the kernel reads it.
pub(crate) fn text(map: &[LinuxIdMapping]) -> String {
    map.iter().fold(String::new(), |mut text, m| {
        let _ = writeln!(text, "{} {} {}", m.container_id(), m.host_id(), m.size());
        text
    })
}

/// Has `map` written for the process `pid` by `newuidmap` or `newgidmap`.
pub(crate) fn write_by(helper: &'static str, pid: i32, map: &[LinuxIdMapping]) -> Result<()> {
    let hint = "ids besides your own are mapped by newuidmap and newgidmap (Debian's package uidmap), as far as \
                /etc/subuid and /etc/subgid give them to you";
    let path = program(helper)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .tried_hint("find", helper, hint)?;
    let mut command = Command::new(path);
    command.arg(pid.to_string());
    for m in map {
        command.args([m.container_id(), m.host_id(), m.size()].map(|number| number.to_string()));
    }
    let output = command.stdin(Stdio::null()).output().tried("execute", helper)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(said)).tried_hint("write id map by", helper, hint)
}

fn line(inside: u32, outside: u32, count: u32) -> LinuxIdMapping {
    LinuxIdMappingBuilder::default()
        .container_id(inside)
        .host_id(outside)
        .size(count)
        .build()
        .expect("every required field was given")
}

/// The first range that the file `path` gives one of `names` (subuid(5)).
fn subordinate(path: &str, names: &[&str]) -> Option<(u32, u32)> {
    find_range(&std::fs::read_to_string(path).ok()?, names)
}

pub(crate) fn find_range(text: &str, names: &[&str]) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let range: (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        (names.contains(&name) && range.1 > 0 && range.0.checked_add(range.1).is_some())
            .then_some(range)
    })
}

fn user_name(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()?;
    user.map(|user| user.name)
}

fn program(name: &str) -> Option<PathBuf> {
    in_path(name).or_else(|| Some(Path::new("/usr/bin").join(name)).filter(|file| file.is_file()))
}

/// The program `name` where PATH has it.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_the_kernels_form() {
        let map = [line(0, 1000, 1), line(1, 100_000, 65_536)];
        assert_eq!(text(&map), "0 1000 1\n1 100000 65536\n");
    }

    #[test]
    fn a_range_is_found_by_name_or_number() {
        let text =
            "other:1:2\nbroken\nann:300000:65536\n1001:400000:10\nzero:5:0\nbig:4294967295:9\n";
        assert_eq!(find_range(text, &["ann"]), Some((300_000, 65_536)));
        assert_eq!(find_range(text, &["bob", "1001"]), Some((400_000, 10)));
        assert_eq!(find_range(text, &["zero"]), None);
        assert_eq!(find_range(text, &["big"]), None);
    }

    #[test]
    fn an_option_names_a_range() {
        let maps = IdMaps::for_run(Some("100000:65536")).unwrap().unwrap();
        assert_eq!(text(&maps.uid), "0 100000 65536\n");
        assert!(maps.has_group(5) && !maps.has_group(65_536));
        for wrong in ["x", "1:0", "4294967295:2", "-1"] {
            assert!(IdMaps::for_run(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
