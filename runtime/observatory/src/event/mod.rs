//! Records from the kernel become events: decoded, attributed, kept for a while, and written as JSON lines.

pub mod decode;
pub mod flag_names;
pub(crate) mod guard;
pub mod history;
pub mod json;
pub(crate) mod mount;
pub mod notice;
pub mod select;
pub mod store;

pub use decode::{DecodeError, Record};
pub use history::{Event, Filter, History, Reader};
