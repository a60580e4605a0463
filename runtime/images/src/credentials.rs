//! Who pulls: `--creds USER:PASSWORD`, else what `docker login` and `podman login` have written.

use crate::error::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;
use serde_json::Value;
use std::env;
use std::fs;
use std::path::PathBuf;

/// The credentials for `registry`; anonymous where nobody gave any.
pub(crate) fn find(registry: &str, given: Option<&str>) -> Result<RegistryAuth> {
    if let Some(text) = given {
        return pair(text).ok_or_else(|| Error::Registry {
            image: registry.to_owned(),
            reason: "the credentials have the form USER:PASSWORD".to_owned(),
        });
    }
    let found = files().into_iter().find_map(|path| {
        let config: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        // Docker Hub's entry carries its old address.
        let entry = config["auths"].as_object()?.iter().find(|(key, _)| {
            let host = key.trim_start_matches("https://").trim_start_matches("http://");
            let host = host.split('/').next().unwrap_or_default();
            host == registry || (registry == "docker.io" && host == "index.docker.io")
        })?;
        let decoded = STANDARD.decode(entry.1["auth"].as_str()?).ok()?;
        pair(&String::from_utf8(decoded).ok()?)
    });
    Ok(found.unwrap_or(RegistryAuth::Anonymous))
}

fn pair(text: &str) -> Option<RegistryAuth> {
    let (user, password) = text.split_once(':')?;
    Some(RegistryAuth::Basic(user.to_owned(), password.to_owned()))
}

fn files() -> Vec<PathBuf> {
    let from =
        |variable: &str, file: &str| env::var_os(variable).map(|dir| PathBuf::from(dir).join(file));
    [
        from("REGISTRY_AUTH_FILE", ""),
        from("XDG_RUNTIME_DIR", "containers/auth.json"),
        from("DOCKER_CONFIG", "config.json"),
        from("HOME", ".docker/config.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
