//! Names of images: `busybox`, `docker.io/library/busybox:1.36`, `localhost:5000/tool@sha256:…`.

use crate::error::{Error, Result};
use oci_spec::distribution::Reference;
use std::fmt;

/// A name in full: registry, repository, and tag or digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    reference: Reference,
}

impl ImageName {
    /// Reads a name, completing what people leave out as docker does: the registry docker.io, its `library/`, the
    /// tag `latest`.
    pub fn parse(text: &str) -> Result<Self> {
        let reference: Reference = text
            .parse()
            .map_err(|error| Error::Name { name: text.to_owned(), reason: format!("{error}") })?;
        Ok(Self { reference })
    }

    /// The name of an image that no registry has: without a registry in it, `localhost` is put before it.
    pub fn parse_local(text: &str) -> Result<Self> {
        let named = Self::parse(text)?;
        let registry = text.split_once('/').map_or("", |(first, _)| first);
        if registry == named.reference.registry() {
            return Ok(named);
        }
        Self::parse(&format!("localhost/{text}"))
    }

    /// The names that `text` may mean, most likely first.
    pub fn candidates(text: &str) -> Result<Vec<Self>> {
        let full = Self::parse(text)?;
        let local = Self::parse_local(text)?;
        Ok(if full == local { vec![full] } else { vec![local, full] })
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_leave_out_is_completed_as_docker_does() {
        for (text, expected) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("quay.io/a/b", "quay.io/a/b:latest"),
            ("localhost:5000/tool:1", "localhost:5000/tool:1"),
        ] {
            assert_eq!(ImageName::parse(text).unwrap().to_string(), expected);
        }
        for bad in ["", "UPPER", "a b", "/srv/rootfs", "-x"] {
            assert!(ImageName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_imported_image_is_local_unless_its_name_has_a_registry() {
        for (text, expected) in [
            ("mine", "localhost/mine:latest"),
            ("team/mine:2", "localhost/team/mine:2"),
            ("docker.io/library/busybox:1", "docker.io/library/busybox:1"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
        ] {
            assert_eq!(ImageName::parse_local(text).unwrap().to_string(), expected);
        }
        let names = ImageName::candidates("mine").unwrap();
        assert_eq!(
            names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["localhost/mine:latest", "docker.io/library/mine:latest"]
        );
    }
}
