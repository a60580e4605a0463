//! Container images: a name becomes a stack of folders that any number of containers share.
//!
//! An image comes from a registry ([`pull()`]), or from a file ([`import()`]): an OCI layout, a docker-archive, or the tar archive of a
//! root filesystem. Each layer is unpacked once, into a folder of its own, for overlayfs to stack (`layer`); what a
//! layer deletes is a whiteout in it. Everything is checked against its digest before it is given a name, so that no
//! half image is ever used.
//!
//! Format: OCI image specification 1.1, <https://github.com/opencontainers/image-spec/blob/v1.1.0/spec.md>.

mod archive;
mod credentials;
mod digest;
mod error;
mod import;
mod layer;
mod name;
mod pull;
mod store;

pub use error::{Error, Result};
pub use import::{Import, import};
pub use layer::DeviceNodes;
pub use name::ImageName;
pub use pull::{Progress, Pull, pull};
pub use store::{Image, ImageStore, Listed, Pruned, Use};
