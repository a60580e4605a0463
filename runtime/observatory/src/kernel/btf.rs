//! Types of the kernel, from its BTF: offsets of fields, prototypes of tracepoints, which functions exist.

use btf_rs::{Backend, Btf, BtfType, Type};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Where the kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's types cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error(
        "read the kernel's types from {path}: {error} (the kernel needs CONFIG_DEBUG_INFO_BTF)"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The file is not BTF.
    #[error("parse the kernel's types in {path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl BtfError {
    /// Whether the kernel was built without.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// One argument of a function or tracepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A pointer.
    Pointer,
    /// Anything else.
    Value,
}

/// The kernel's types, indexed once by the names that anybody here asks for.
pub struct KernelTypes {
    btf: Btf,
    /// First type of each name that has members, is an enum or a typedef.
    named: HashMap<String, Type>,
    functions: HashSet<String>,
}

impl KernelTypes {
    /// Reads `path`, which is [`VMLINUX`] but for tests.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let btf = map(path)?;
        let mut named = HashMap::new();
        let mut functions = HashSet::new();
        let (first, last) = btf.base().type_id_range();
        for kind in (first..=last).filter_map(|id| btf.resolve_type_by_id(id).ok()) {
            let Ok(name) = kind.as_btf_type().map_or(Ok(String::new()), |t| btf.resolve_name(t))
            else {
                continue;
            };
            if name.is_empty() {
                continue;
            }
            match kind {
                Type::Func(_) => {
                    functions.insert(name);
                }
                Type::Struct(_) | Type::Union(_) => {
                    named.entry(name).or_insert(kind);
                }
                Type::Enum(_)
                    if [
                        "cgroup_subsys_id", "memcg_memory_event", "psi_states", "cpu_usage_stat",
                    ]
                    .contains(&name.as_str()) =>
                {
                    named.entry(name).or_insert(kind);
                }
                Type::Typedef(_) if name.starts_with("btf_trace_") => {
                    named.entry(name).or_insert(kind);
                }
                _ => {}
            }
        }
        Ok(Self { btf, named, functions })
    }

    /// Whether the kernel has a function of this name that is not inlined everywhere.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains(name)
    }

    /// Whether the kernel has this tracepoint.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.named.contains_key(&format!("btf_trace_{name}"))
    }

    /// Size of a struct, bytes.
    pub fn size_of(&self, name: &str) -> Option<u32> {
        match self.named.get(name)? {
            Type::Struct(s) | Type::Union(s) => u32::try_from(s.size()).ok(),
            _ => None,
        }
    }

    /// Offset of a field, bytes. `path` is `struct.field`, or `struct.field.field` for a field of an embedded
    /// struct. Members of anonymous structs and unions count as members of what they stand in. Bit fields have
    /// no offset.
    pub fn offset_of(&self, path: &str) -> Option<u32> {
        let mut parts = path.split('.');
        let mut holder = self.named.get(parts.next()?)?.clone();
        let mut bits = 0;
        for field in parts {
            let (offset, member) = self.member(&holder, field)?;
            bits += offset;
            holder = self.strip(member)?;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// The value of an enum's constant.
    pub fn constant(&self, enumeration: &str, name: &str) -> Option<u32> {
        let Type::Enum(e) = self.named.get(enumeration)? else { return None };
        e.members
            .iter()
            .find(|member| self.btf.resolve_name(*member).is_ok_and(|n| n == name))
            .map(btf_rs::EnumMember::val)
    }

    /// The arguments of a tracepoint, without the first, which belongs to the registration.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<Vec<Argument>> {
        let typedef = self.named.get(&format!("btf_trace_{name}"))?.as_btf_type()?;
        let mut kind = self.btf.resolve_chained_type(typedef).ok()?;
        // typedef → pointer → prototype
        while !matches!(kind, Type::FuncProto(_)) {
            kind = self.btf.resolve_chained_type(kind.as_btf_type()?).ok()?;
        }
        let Type::FuncProto(prototype) = kind else { return None };
        prototype
            .parameters
            .iter()
            .skip(1)
            .map(|parameter| {
                let id = parameter.get_type_id()?;
                let kind = self.strip(self.btf.resolve_type_by_id(id).ok()?)?;
                Some(if matches!(kind, Type::Ptr(_)) { Argument::Pointer } else { Argument::Value })
            })
            .collect()
    }

    /// The bit offset and the type of a member, also inside anonymous members.
    fn member(&self, holder: &Type, field: &str) -> Option<(u32, Type)> {
        let (Type::Struct(holder) | Type::Union(holder)) = holder else { return None };
        for member in &holder.members {
            let name = self.btf.resolve_name(member).ok()?;
            let kind = || self.btf.resolve_type_by_id(member.get_type_id()?).ok();
            if name == field {
                if member.bitfield_size().is_some_and(|size| size != 0) {
                    return None;
                }
                return Some((member.bit_offset(), kind()?));
            }
            if name.is_empty()
                && let Some((offset, found)) = self.member(&self.strip(kind()?)?, field)
            {
                return Some((member.bit_offset() + offset, found));
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn strip(&self, mut kind: Type) -> Option<Type> {
        loop {
            kind = match &kind {
                Type::Typedef(_)
                | Type::Const(_)
                | Type::Volatile(_)
                | Type::Restrict(_)
                | Type::TypeTag(_) => self.btf.resolve_chained_type(kind.as_btf_type()?).ok()?,
                _ => return Some(kind),
            };
        }
    }
}

/// Maps the file, so that of its megabytes only a few pages count as this process's own. Kernels before 6.16
/// refuse to map it; then a copy in memory is mapped instead, and given back as soon as it is dropped.
fn map(path: &Path) -> Result<Btf, BtfError> {
    if let Ok(btf) = Btf::from_file_with_backend(path, Backend::Mmap) {
        return Ok(btf);
    }
    let read = |error| BtfError::Read { path: path.to_owned(), error };
    let bytes = std::fs::read(path).map_err(read)?;
    let memory = memfd_create(c"btf", MFdFlags::MFD_CLOEXEC).map_err(|e| read(e.into()))?;
    let link = format!("/proc/self/fd/{}", memory.as_raw_fd());
    std::fs::File::from(memory.try_clone().map_err(read)?).write_all(&bytes).map_err(read)?;
    drop(bytes);
    Btf::from_file_with_backend(link, Backend::Mmap)
        .map_err(|e| BtfError::Parse { path: path.to_owned(), reason: e.to_string() })
}
