//! Arrays of the programs in this process's memory.

use aya::maps::{Map, MapError};
use memmap2::{MmapOptions, MmapRaw};
use std::os::fd::{AsFd, AsRawFd};

/// The memory of the array `name`, whose values are a `Cell` each, and how many there are.
pub fn array<Cell>(map: &Map, name: &str) -> Result<(MmapRaw, usize), MapError> {
    let Map::Array(data) = map else {
        return Err(MapError::InvalidName { name: name.to_owned() });
    };
    let cells = usize::try_from(data.info()?.max_entries()).unwrap_or_default();
    let memory = MmapOptions::new()
        .len(cells * size_of::<Cell>())
        .map_raw(data.fd().as_fd().as_raw_fd())
        .map_err(MapError::IoError)?;
    Ok((memory, cells))
}
