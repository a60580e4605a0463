//! The kernel modules that a guest loads, with those that they need, in loading order.
//!
//! The package has no `modules.dep` (depmod writes it where a kernel is installed), so each module
//! is asked itself: its `.modinfo` section says `depends=`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup::static_busybox;

/// What containers and their networks need. A name that a kernel has built in is left out.
pub const WANTED: &[&str] = &[
    "veth", "bridge", "dummy", "nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_ct",
    "nft_fib_ipv4", "nft_reject_ipv4", "nft_reject_inet", "overlay",
    // A disk with a Debian on it.
    "virtio_pci", "virtio_blk", "crc32c_generic", "ext4",
];

/// A module, uncompressed.
pub struct Module {
    pub name: String,
    pub image: Vec<u8>,
}

/// The wanted modules and what they depend on, each after its own needs.
pub fn in_order(folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    index(&folder.join("kernel"), &mut files)?;
    let mut order = Vec::new();
    for name in wanted {
        add(name, &files, &mut order, 0)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    files: &HashMap<String, PathBuf>,
    order: &mut Vec<Module>,
    depth: usize,
) -> Result<()> {
    let Some(file) = files.get(name) else { return Ok(()) };
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    if depth > 16 {
        bail!("module {name} depends on itself");
    }
    let image = read(file)?;
    for needed in depends(&image) {
        add(&needed, files, order, depth + 1)?;
    }
    order.push(Module { name: name.to_owned(), image });
    Ok(())
}

/// Every module below the folder by its name, in which `-` and `_` are one.
fn index(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            index(&path, files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// The module's bytes. From Debian 13 on modules are compressed, and busybox knows how.
fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).with_context(|| format!("read {}", file.display()));
    }
    let busybox = static_busybox().context("busybox is needed to unpack modules")?;
    let output = Command::new(busybox)
        .args(["xz", "-dc"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .context("start busybox")?;
    if !output.status.success() {
        bail!("unpack {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// The names in `depends=` of `.modinfo`, which is a list of NUL-terminated `key=value`.
fn depends(image: &[u8]) -> Vec<String> {
    image
        .split(|byte| *byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="))
        .map(|list| String::from_utf8_lossy(list).into_owned())
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let net = folder.path().join("kernel/net");
        fs::create_dir_all(&net).expect("it can hold folders");
        for (file, info) in [
            ("bridge.ko", "depends=stp,llc"),
            ("stp.ko", "depends=llc"),
            ("llc.ko", "depends="),
            ("nf-x.ko", "license=GPL"),
        ] {
            let image = format!("\x7fELF\0license=GPL\0{info}\0intree=Y\0");
            fs::write(net.join(file), image).expect("it can hold files");
        }
        let order = in_order(folder.path(), &["bridge", "nf_x", "built_in", "llc"])
            .expect("every module can be read");
        let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["llc", "stp", "bridge", "nf_x"]);
    }
}
