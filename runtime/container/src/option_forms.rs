//! The forms of those options of `terrarium run` that people know from `docker run`: `--volume`, `--tmpfs`, `--mount`,
//! `--device`, `--ulimit`, `--env-file`.

use crate::error::{Error, Result, Tried};
use crate::units::parse_bytes;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};
use rustix::fs::{FileType, major, minor};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A mount of the spec.
pub(crate) fn mount(destination: &str, typ: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
    mount
}

/// `--tmpfs PATH[:OPTIONS]`
pub(crate) fn tmpfs(text: &str) -> Result<Mount> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err(Error::invalid("--tmpfs", text, "the form is /PATH[:OPTIONS]"));
    }
    let mut all = vec!["nosuid", "nodev", "noexec"];
    all.extend(options.split(',').filter(|option| !option.is_empty()));
    Ok(mount(path, "tmpfs", "tmpfs", &all))
}

/// `--volume HOST:CONTAINER[:OPTIONS]`
pub(crate) fn volume(text: &str) -> Result<Mount> {
    let invalid = |reason: &'static str| Error::invalid("--volume", text, reason);
    let mut parts = text.splitn(3, ':');
    let (Some(host), Some(container)) = (parts.next(), parts.next()) else {
        return Err(invalid("the form is HOST:CONTAINER[:ro]"));
    };
    if host.is_empty() || !container.starts_with('/') {
        return Err(invalid("the form is HOST:/CONTAINER[:ro]"));
    }
    let source = existing(host).ok_or_else(|| invalid(NO_SOURCE))?;
    let mut options = vec!["rbind"];
    for option in parts.next().unwrap_or_default().split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => options.push("rro"),
            // SELinux relabelling: nothing to do on a host without SELinux.
            "rw" | "z" | "Z" => {}
            _ if PROPAGATION.contains(&option) => options.push(option),
            "nosuid" | "nodev" | "noexec" => options.push(option),
            "bind" => options[0] = "bind",
            "rbind" => options[0] = "rbind",
            _ => {
                return Err(invalid(
                    "known options are ro, rw, bind, rbind, [r]private, [r]slave, [r]shared, nosuid, nodev, noexec",
                ));
            }
        }
    }
    check_propagation(&source, &options).map_err(invalid)?;
    let source = source.to_str().ok_or_else(|| invalid("it is not UTF-8"))?;
    Ok(mount(container, "bind", source, &options))
}

const NO_SOURCE: &str = "the host's side does not exist; make it first";
const PROPAGATION: [&str; 6] = ["rprivate", "private", "rslave", "slave", "rshared", "shared"];

/// The full path of what exists on the host.
fn existing(path: &str) -> Option<PathBuf> {
    std::path::absolute(path).ok().filter(|path| path.exists())
}

/// Refuses to share mounts with the host where the host shares none: nothing would ever appear.
fn check_propagation(source: &Path, options: &[&str]) -> std::result::Result<(), &'static str> {
    let asks = |words: [&str; 2]| options.iter().any(|option| words.contains(option));
    let (shared, slave) = (asks(["shared", "rshared"]), asks(["slave", "rslave"]));
    if !shared && !slave {
        return Ok(());
    }
    // A kernel before 5.8 does not tell which mount it is.
    let Some(line) = mount_of(source) else { return Ok(()) };
    // proc_pid_mountinfo(5): optional fields end with a hyphen.
    let mut fields = line.split(' ').skip(6).take_while(|field| *field != "-");
    if fields.any(|field| field.starts_with("shared:") || !shared && field.starts_with("master:")) {
        Ok(())
    } else if shared {
        Err(
            "the host's side is on no shared mount; share it first: mount --bind PATH PATH; mount --make-shared PATH",
        )
    } else {
        Err(
            "the host's side is on no shared or slave mount; share it first: mount --bind PATH PATH; mount --make-shared PATH",
        )
    }
}

/// Whether a mount of a spec's is to be shared with the host.
pub(crate) fn is_shared(mount: &Mount) -> bool {
    mount.options().iter().flatten().any(|option| option == "shared" || option == "rshared")
}

/// The line of `/proc/self/mountinfo` about the mount that `path` is on.
fn mount_of(path: &Path) -> Option<String> {
    let flags = rustix::fs::StatxFlags::MNT_ID;
    let stat =
        rustix::fs::statx(rustix::fs::CWD, path, rustix::fs::AtFlags::empty(), flags).ok()?;
    let known = stat.stx_mask & flags.bits() != 0;
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok().filter(|_| known)?;
    let id = format!("{} ", stat.stx_mnt_id);
    table.lines().find(|line| line.starts_with(&id)).map(str::to_owned)
}

/// `--mount type=bind|tmpfs,source=HOST,target=CONTAINER,…`
pub(crate) fn mount_option(text: &str) -> Result<Mount> {
    let invalid = |reason: &'static str| Error::invalid("--mount", text, reason);
    let (mut kind, mut source, mut target) = ("", None, None);
    let mut options: Vec<String> = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match (key, value) {
            ("type", "bind" | "tmpfs") => kind = value,
            ("source" | "src", _) => source = Some(value),
            ("target" | "destination" | "dst", _) => target = Some(value),
            ("readonly" | "ro", "" | "true" | "1") => options.push("ro".into()),
            ("readonly" | "ro", "false" | "0") | ("bind-recursive", "enabled") => {}
            ("bind-recursive", "disabled") => options.push("bind".into()),
            ("bind-propagation", _) if PROPAGATION.contains(&value) => options.push(value.into()),
            ("tmpfs-size", _) => {
                options.push(format!("size={}", parse_bytes("--mount tmpfs-size", value)?));
            }
            ("tmpfs-mode", _) if u32::from_str_radix(value, 8).is_ok() => {
                options.push(format!("mode={value}"));
            }
            _ => {
                return Err(invalid(
                    "known fields are type=bind|tmpfs, source, target, readonly, bind-propagation, bind-recursive, \
                     tmpfs-size, tmpfs-mode",
                ));
            }
        }
    }
    let target = target
        .filter(|path| path.starts_with('/'))
        .ok_or_else(|| invalid("target=/PATH in the container is needed"))?;
    if kind == "tmpfs" {
        if source.is_some() {
            return Err(invalid("a tmpfs has no source"));
        }
        let mut all = vec!["nosuid", "nodev", "noexec"];
        all.extend(options.iter().map(String::as_str));
        return Ok(mount(target, "tmpfs", "tmpfs", &all));
    }
    if kind != "bind" {
        return Err(invalid("type=bind or type=tmpfs is needed"));
    }
    let source = source.ok_or_else(|| invalid("source=PATH on the host is needed"))?;
    let source = existing(source).ok_or_else(|| invalid(NO_SOURCE))?;
    let mut all = vec!["rbind"];
    for option in &options {
        match option.as_str() {
            "bind" => all[0] = "bind",
            "ro" => all.push("rro"),
            other if PROPAGATION.contains(&other) => all.push(other),
            _ => return Err(invalid("tmpfs-size and tmpfs-mode are for type=tmpfs")),
        }
    }
    check_propagation(&source, &all).map_err(invalid)?;
    Ok(mount(target, "bind", source.to_str().ok_or_else(|| invalid("it is not UTF-8"))?, &all))
}

/// The host's device nodes directly in `/dev`, for `--privileged`; those that every container has anyway are left out.
pub(crate) fn host_devices() -> Vec<LinuxDevice> {
    const OWN: [&str; 8] = ["console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"];
    let mut names: Vec<_> = std::fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !OWN.contains(&name.as_str()))
        .collect();
    names.sort();
    let nodes = names.iter().filter_map(|name| device(&format!("/dev/{name}")).ok());
    nodes.map(|(node, _)| node).collect()
}

/// `--device HOST[:CONTAINER][:rwm]`: the node, and the rule that lets the container use it.
pub(crate) fn device(text: &str) -> Result<(LinuxDevice, LinuxDeviceCgroup)> {
    let invalid = |reason: &'static str| Error::invalid("--device", text, reason);
    let mut parts = text.split(':');
    let host = parts.next().unwrap_or_default();
    let (mut container, mut access) = (host, "rwm");
    for part in parts {
        if part.starts_with('/') {
            container = part;
        } else if !part.is_empty() && part.chars().all(|c| "rwm".contains(c)) {
            access = part;
        } else {
            return Err(invalid("the form is /dev/HOST[:/dev/CONTAINER][:rwm]"));
        }
    }
    if !host.starts_with('/') {
        return Err(invalid("the form is /dev/HOST[:/dev/CONTAINER][:rwm]"));
    }
    let file = std::fs::metadata(host).tried("find device", host)?;
    let kind = match FileType::from_raw_mode(file.mode()) {
        FileType::CharacterDevice => LinuxDeviceType::C,
        FileType::BlockDevice => LinuxDeviceType::B,
        _ => return Err(invalid("it is neither a character nor a block device")),
    };
    let (major, minor) = (i64::from(major(file.rdev())), i64::from(minor(file.rdev())));
    let node = LinuxDeviceBuilder::default()
        .path(container)
        .typ(kind)
        .major(major)
        .minor(minor)
        .file_mode(file.mode() & 0o7777)
        .uid(file.uid())
        .gid(file.gid());
    let rule = LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(kind)
        .major(major)
        .minor(minor)
        .access(access);
    Ok((
        node.build().expect("every required field was given"),
        rule.build().expect("every required field was given"),
    ))
}

const ULIMIT_FORM: &str =
    "the form is NAME=SOFT[:HARD], such as nofile=1024:4096, with -1 for no limit";

/// `--ulimit NAME=SOFT[:HARD]`, with -1 for no limit (getrlimit(2)).
pub(crate) fn ulimit(text: &str) -> Result<PosixRlimit> {
    let invalid = |reason: &'static str| Error::invalid("--ulimit", text, reason);
    let (name, values) = text.split_once('=').ok_or_else(|| invalid(ULIMIT_FORM))?;
    let kind = serde_json::Value::String(format!("RLIMIT_{}", name.to_ascii_uppercase()));
    let kind: PosixRlimitType = serde_json::from_value(kind)
        .map_err(|_| invalid("getrlimit(2) has the names, such as nofile, nproc, core, memlock"))?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(libc::RLIM_INFINITY),
        text => text.parse::<u64>().map_err(|_| invalid(ULIMIT_FORM)),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err(invalid("the soft limit is more than the hard one"));
    }
    let limit = PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard);
    Ok(limit.build().expect("every required field was given"))
}

/// The variables of a file for `--env-file`: a line each, `NAME=VALUE` or `NAME`; `#` begins a comment line.
pub(crate) fn env_file(path: &Path) -> Result<Vec<String>> {
    Ok(env_lines(&std::fs::read_to_string(path).tried("read --env-file", path)?))
}

/// The variables that its text holds.
pub(crate) fn env_lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{Kind, Mount as ParsedMount};

    #[test]
    fn volumes_are_recursive_and_read_only_to_the_bottom() {
        for mount in [
            volume("/tmp:/t:ro").unwrap(),
            mount_option("type=bind,source=/tmp,target=/t,readonly").unwrap(),
        ] {
            let mount = ParsedMount::from_spec(&mount, Path::new("/")).unwrap();
            assert_eq!(mount.kind, Kind::Bind { source: "/tmp".into(), recursive: true });
            assert_ne!(mount.tree_change.set, 0);
        }
    }

    #[test]
    fn limits_are_read_and_bad_ones_refused() {
        let limit = ulimit("nofile=1024:4096").unwrap();
        assert_eq!((limit.soft(), limit.hard()), (1024, 4096));
        assert_eq!(ulimit("core=-1").unwrap().soft(), u64::MAX);
        assert_eq!(ulimit("memlock=7").unwrap().hard(), 7);
        for bad in ["nofile", "nofile=", "nofile=2:1", "walks=1", "nofile=a:b", "nofile=-2"] {
            let error = ulimit(bad).unwrap_err();
            assert!(error.is_usage() && error.to_string().starts_with("--ulimit"), "{error}");
        }
    }

    #[test]
    fn devices_have_a_node_and_a_rule() {
        let (node, rule) = device("/dev/null:/dev/nothing:r").unwrap();
        assert_eq!((node.path().as_path(), node.major()), (Path::new("/dev/nothing"), 1));
        assert_eq!(rule.access().as_deref(), Some("r"));
        for bad in ["/dev/null:x", "null", "/tmp", "/dev/null::"] {
            assert!(device(bad).unwrap_err().is_usage(), "{bad}");
        }
        assert!(device("/no/such/device").is_err());
    }

    #[test]
    fn mounts_without_what_they_need_are_refused() {
        for bad in [
            "",
            "type=bind,source=/tmp",
            "type=bind,target=/t",
            "type=tmpfs,target=t",
            "type=tmpfs,source=/tmp,target=/t",
            "type=volume,target=/t",
            "type=bind,source=/no/such,target=/t",
            "type=bind,source=/tmp,target=/t,tmpfs-size=1m",
            "type=bind,source=/tmp,target=/t,colour=red",
        ] {
            let error = mount_option(bad).unwrap_err();
            assert!(error.is_usage() && error.to_string().starts_with("--mount"), "{error}");
        }
        let tmpfs = mount_option("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap();
        let options = tmpfs.options().clone().unwrap();
        assert!(options.contains(&"size=1048576".to_owned()), "{options:?}");
    }

    #[test]
    fn files_of_variables_have_comments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# first\n\nA=b c\n  D=#e\nF\n").unwrap();
        assert_eq!(env_file(file.path()).unwrap(), ["A=b c", "D=#e", "F"]);
    }
}
