//! From bytes of the ring buffer to records.

use super::notice::Notice;
use crate::kernel::cgroup_mounts::{CgroupMounts, Hierarchy};
use aya::Pod;
use terrarium_abi::{
    CgroupAttach, CgroupEvent, CloneFailed, Exec, Exit, Guard, Header, Mount, NewTask, NsChange,
    Oom, Probe, Reclaim, RecordType,
};

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a header, or than its type needs.
    #[error("a record of {len} bytes is too short")]
    Short {
        /// Bytes there are.
        len: usize,
    },
    /// The type is not known.
    #[error("a record has the unknown type {number}")]
    Type {
        /// Its number.
        number: u16,
    },
}

/// A record. The big ones are boxed, so that a history of small ones stays small.
#[derive(Debug, Clone)]
pub enum Record {
    /// A new process or thread.
    NewTask(NewTask),
    /// A clone that failed.
    CloneFailed(CloneFailed),
    /// A program was started.
    Exec(Box<Exec>),
    /// A process ended.
    Exit(Exit),
    /// An unshare or a setns.
    NsChange(Box<NsChange>),
    /// A mount operation.
    Mount(Box<Mount>),
    /// Reclaim at a memory limit.
    Reclaim(Reclaim),
    /// An OOM kill.
    Oom(Oom),
    /// A cgroup was made.
    CgroupMkdir(Box<CgroupEvent>),
    /// A cgroup was removed.
    CgroupRmdir(Box<CgroupEvent>),
    /// A task was moved to another cgroup.
    CgroupAttach(Box<CgroupAttach>),
    /// A guarded call.
    Guard(Box<Guard>),
    /// Not the kernel's, but the observatory's own.
    Notice(Box<Notice>),
}

impl Record {
    /// Decodes one record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let header: Header = read(bytes)?;
        let number = header.record_type;
        let record_type = RecordType::from_number(number).ok_or(DecodeError::Type { number })?;
        Ok(match record_type {
            RecordType::NewTask => Self::NewTask(read(bytes)?),
            RecordType::CloneFailed => Self::CloneFailed(read(bytes)?),
            RecordType::Exec => Self::Exec(Box::new(read(bytes)?)),
            RecordType::Exit => Self::Exit(read(bytes)?),
            RecordType::NsChange => Self::NsChange(Box::new(read(bytes)?)),
            RecordType::Mount => Self::Mount(Box::new(read(bytes)?)),
            RecordType::Reclaim => Self::Reclaim(read(bytes)?),
            RecordType::Oom => Self::Oom(read(bytes)?),
            RecordType::CgroupMkdir => Self::CgroupMkdir(Box::new(read(bytes)?)),
            RecordType::CgroupRmdir => Self::CgroupRmdir(Box::new(read(bytes)?)),
            RecordType::CgroupAttach => Self::CgroupAttach(Box::new(read(bytes)?)),
            RecordType::Guard => Self::Guard(Box::new(read(bytes)?)),
        })
    }

    /// What every record begins with.
    pub fn header(&self) -> &Header {
        match self {
            Self::NewTask(record) => &record.header,
            Self::CloneFailed(record) => &record.header,
            Self::Exec(record) => &record.header,
            Self::Exit(record) => &record.header,
            Self::NsChange(record) => &record.header,
            Self::Mount(record) => &record.header,
            Self::Reclaim(record) => &record.header,
            Self::Oom(record) => &record.header,
            Self::CgroupMkdir(record) | Self::CgroupRmdir(record) => &record.header,
            Self::CgroupAttach(record) => &record.header,
            Self::Guard(record) => &record.header,
            Self::Notice(notice) => &notice.header,
        }
    }

    /// The probe that wrote it; none where the observatory did.
    pub fn probe(&self) -> Option<Probe> {
        Some(match self {
            Self::NewTask(_) | Self::CloneFailed(_) | Self::Exec(_) | Self::Exit(_) => Probe::Task,
            Self::NsChange(_) => Probe::Namespace,
            Self::Mount(_) => Probe::Mount,
            Self::Reclaim(_) | Self::Oom(_) => Probe::Memory,
            Self::CgroupMkdir(_) | Self::CgroupRmdir(_) | Self::CgroupAttach(_) => Probe::Cgroup,
            Self::Guard(_) => Probe::Guard,
            Self::Notice(_) => return None,
        })
    }

    /// The ids, unified and memory, of the cgroup that the event is about: of a new or removed cgroup that one,
    /// else the task's.
    pub fn cgroup_ids(&self, mounts: &CgroupMounts) -> (u64, u64) {
        match self {
            Self::CgroupMkdir(record) | Self::CgroupRmdir(record) => {
                match mounts.hierarchy(record.hierarchy) {
                    Some(Hierarchy::Memory) => (0, record.id),
                    _ => (record.id, 0),
                }
            }
            _ => (self.header().cgroup_id, self.header().memory_cgroup_id),
        }
    }
}

/// A record's bytes as the struct.
fn read<T: Pod>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() < size_of::<T>() {
        return Err(DecodeError::Short { len: bytes.len() });
    }
    // SAFETY: as many bytes as a `T` has are there (checked above), any bytes are a valid `T` (it is `Pod`), and
    // the read does not rely on alignment.
    Ok(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// A NUL-padded string of a record.
pub fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        assert_eq!(Record::decode(&[0; 10]).err(), Some(DecodeError::Short { len: 10 }));
        let mut bytes = [0; 80];
        bytes[2..4].copy_from_slice(&999_u16.to_ne_bytes());
        assert_eq!(Record::decode(&bytes).err(), Some(DecodeError::Type { number: 999 }));
        bytes[2..4].copy_from_slice(&(RecordType::Exit as u16).to_ne_bytes());
        assert_eq!(Record::decode(&bytes).err(), Some(DecodeError::Short { len: 80 }));
    }

    #[test]
    fn text_ends_at_the_first_nul() {
        assert_eq!(text(b"proc\0rest"), "proc");
        assert_eq!(text(b"\xffx"), "\u{fffd}x");
        assert_eq!(text(b""), "");
    }
}
