//! Users and groups of the container: numbers, or names from its own /etc/passwd and /etc/group.

use crate::error::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

/// More than this of a passwd file is not read: an image can hold anything.
const MAX_FILE: u64 = 1 << 20;

/// A user inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Groups besides.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
}

/// Finds `NAME|UID[:GROUP|GID]` in the root filesystem that `layers` make, the topmost first.
pub(crate) fn find<P: AsRef<Path>>(layers: &[P], wanted: &str) -> Result<User> {
    let read = |path| {
        let texts = layers.iter().map(|layer| read(layer.as_ref(), path));
        texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    };
    // A number is looked up, too: for its home and group.
    lookup(&read("etc/passwd"), &read("etc/group"), wanted)
}

/// The numbers of `--group-add`: numbers, or names of the root filesystem that `layers` make.
pub(crate) fn groups<P: AsRef<Path>>(layers: &[P], wanted: &[String]) -> Result<Vec<u32>> {
    let number = |name: &String| {
        let find = |text: &str| {
            let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
            lines.find(|fields| fields.len() >= 3 && fields[0] == name)?[2].parse().ok()
        };
        let named = || layers.iter().find_map(|layer| find(&read(layer.as_ref(), "etc/group")));
        name.parse().ok().or_else(named).ok_or_else(|| {
            let reason =
                "the root filesystem's /etc/group has no such group (a number works without it)";
            Error::invalid("--group-add", name, reason)
        })
    };
    wanted.iter().map(number).collect()
}

/// Reads a file of the root filesystem; empty where there is none. Symlinks stay inside.
fn read(rootfs: &Path, path: &str) -> String {
    let mut text = String::new();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, rootfs, flags, Mode::empty()).and_then(|root| {
        rustix::fs::openat2(
            root.as_fd(),
            path,
            // Not blocking: it could be a fifo.
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    });
    if let Ok(file) = file {
        let _ = File::from(file).take(MAX_FILE).read_to_string(&mut text);
    }
    text
}

/// The home folder of a user, by the `/etc/passwd` of this process' root; `/` where that knows none.
pub(crate) fn home_of(uid: u32) -> String {
    let passwd = read(Path::new("/"), "etc/passwd");
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.len() >= 6 && fields[2].parse() == Ok(uid));
    let home = line.map(|fields| fields[5]).filter(|home| !home.is_empty() && !home.contains('\0'));
    home.unwrap_or("/").to_owned()
}

fn lookup(passwd: &str, group: &str, wanted: &str) -> Result<User> {
    let (user, chosen_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let invalid = |reason: &'static str| Error::invalid("--user", wanted, reason);
    let number: Option<u32> = user.parse().ok();
    // name:password:uid:gid:gecos:home:shell
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 6
            && if number.is_some() {
                fields[2].parse() == Ok(number.unwrap_or(0))
            } else {
                fields[0] == user
            }
    });
    let (uid, gid, home) = match (&line, number) {
        (Some(fields), _) => (
            fields[2].parse().map_err(|_| invalid("its line in /etc/passwd is broken"))?,
            fields[3].parse().map_err(|_| invalid("its line in /etc/passwd is broken"))?,
            fields[5].to_owned(),
        ),
        (None, Some(uid)) => (uid, 0, if uid == 0 { "/root" } else { "/" }.to_owned()),
        (None, None) => {
            return Err(invalid(
                "the root filesystem's /etc/passwd has no such user (a number works without it)",
            ));
        }
    };
    // name:password:gid:members
    let groups =
        || group.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 4);
    if let Some(chosen) = chosen_group {
        let found = groups().find(|fields| fields[0] == chosen).and_then(|f| f[2].parse().ok());
        let gid = chosen.parse().ok().or(found).ok_or_else(|| {
            invalid(
                "the root filesystem's /etc/group has no such group (a number works without it)",
            )
        })?;
        return Ok(User { uid, gid, groups: Vec::new(), home });
    }
    let name = line.as_ref().map(|fields| fields[0]);
    let groups = groups()
        .filter(|fields| name.is_some_and(|name| fields[3].split(',').any(|member| member == name)))
        .filter_map(|fields| fields[2].parse().ok())
        .filter(|&other| other != gid)
        .collect();
    Ok(User { uid, gid, groups, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/srv:/bin/sh\nbad:x:y\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:web\nlog:x:40:root,web\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> User {
        User { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        for (wanted, expected) in [
            ("0", user(0, 0, &[40], "/root")),
            ("root", user(0, 0, &[40], "/root")),
            ("web", user(33, 34, &[40], "/srv")),
            ("33", user(33, 34, &[40], "/srv")),
            ("web:log", user(33, 40, &[], "/srv")),
            ("1000", user(1000, 0, &[], "/")),
            ("1000:1001", user(1000, 1001, &[], "/")),
        ] {
            assert_eq!(lookup(PASSWD, GROUP, wanted).unwrap(), expected, "{wanted}");
        }
        assert_eq!(lookup("", "", "0").unwrap(), user(0, 0, &[], "/root"));
        for wanted in ["nobody", "", "web:nogroup", "-1", "bad", ":0"] {
            assert!(lookup(PASSWD, GROUP, wanted).is_err(), "{wanted}");
        }
    }

    #[test]
    fn links_in_the_image_do_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink("/etc/hosts", etc.join("passwd")).unwrap();
        assert_eq!(read(folder.path(), "etc/passwd"), "");
        std::fs::write(etc.join("hosts"), "inside").unwrap();
        assert_eq!(read(folder.path(), "etc/passwd"), "inside");
    }
}
