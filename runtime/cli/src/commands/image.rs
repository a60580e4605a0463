//! `terrarium image`: the images of this machine, and what `run` needs of one.

use super::Format;
use super::pull::Bar;
use crate::exit::WithCode;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use terrarium_container::{ContainerId, Layers, Store};
use terrarium_images::{DeviceNodes, Image, ImageStore, Import, Listed, Pruned, Use, import};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Import, list, inspect and remove images.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Where images lie.
#[derive(Debug, Clone, clap::Args)]
pub struct Location {
    /// Folder of the images [default: /var/lib/terrarium; without root `$XDG_DATA_HOME/terrarium`]
    #[arg(
        long,
        value_name = "DIR",
        env = "TERRARIUM_IMAGES",
        default_value_os_t = default_folder(),
        hide_default_value = true
    )]
    images: PathBuf,
}

/// What becomes of the device nodes that an image holds.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Nodes {
    /// Make the device nodes that it holds, too; without this they are left out
    #[arg(long)]
    device_nodes: bool,
}

impl Nodes {
    /// The choice.
    pub fn choice(self) -> DeviceNodes {
        if self.device_nodes { DeviceNodes::Create } else { DeviceNodes::Skip }
    }
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Import an OCI layout, a docker-archive, or the tar archive of a root filesystem
    #[command(
        after_help = "Examples:\n  docker save busybox | terrarium image import -\n  terrarium image import rootfs.tar.gz mine:1\n  terrarium image import ./oci-layout"
    )]
    Import {
        /// The file, compressed or not; `-` for standard input
        #[arg(value_name = "FILE")]
        path: PathBuf,
        /// Name for the image; a root filesystem needs one, other files have theirs
        name: Option<String>,
        /// Show no progress
        #[arg(long, short)]
        quiet: bool,
        #[command(flatten)]
        nodes: Nodes,
        #[command(flatten)]
        location: Location,
    },
    /// List images
    #[command(visible_alias = "ls")]
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// Print names only
        #[arg(long, short)]
        quiet: bool,
        #[command(flatten)]
        location: Location,
    },
    /// Show an image's manifest and configuration as JSON
    Inspect {
        /// Name of the image
        image: String,
        #[command(flatten)]
        location: Location,
    },
    /// Remove images, and the layers that no other needs
    #[command(visible_alias = "rm")]
    Remove {
        /// Names of images
        #[arg(required = true, value_name = "IMAGE")]
        names: Vec<String>,
        /// Also if a container uses it; the container then sees its files go
        #[arg(long, short)]
        force: bool,
        #[command(flatten)]
        location: Location,
    },
    /// Remove what no image and no container needs
    Prune {
        /// Also remove the images that no container uses
        #[arg(long, short)]
        all: bool,
        #[command(flatten)]
        location: Location,
    },
}

fn default_folder() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/terrarium");
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|folder| !folder.is_empty());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    data.map(PathBuf::from).or_else(home).unwrap_or_else(std::env::temp_dir).join("terrarium")
}

impl Location {
    /// The store there.
    pub fn store(&self) -> anyhow::Result<ImageStore> {
        Ok(ImageStore::open(&self.images)?)
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Import { path, name, quiet, nodes, location } => {
            let what = Import { path: path.clone(), name: name.clone(), nodes: nodes.choice() };
            let bar = Bar::new(*quiet);
            let names = import(&location.store()?, &what, &bar);
            bar.end();
            for name in names? {
                super::print(&name.to_string())?;
            }
        }
        Command::List { format, quiet, location } => {
            let images = location.store()?.list()?;
            let text = match format {
                _ if *quiet => lines(images.iter().map(|image| image.name.clone())),
                Format::Json => Some(serde_json::to_string_pretty(&images).context("write JSON")?),
                Format::Table => lines(table(&images).into_iter()),
            };
            text.map_or(Ok(()), |text| super::print(&text))?;
        }
        Command::Inspect { image, location } => {
            let shown = location.store()?.inspect(image)?;
            super::print(&serde_json::to_string_pretty(&shown).context("write JSON")?)?;
        }
        Command::Remove { names, force, location } => {
            let store = location.store()?;
            for name in names {
                told(&store.remove(name, *force)?)?;
            }
        }
        Command::Prune { all, location } => told(&location.store()?.prune(*all)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(lines: impl Iterator<Item = String>) -> Option<String> {
    let text = lines.collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then_some(text)
}

/// Says what was removed.
fn told(pruned: &Pruned) -> anyhow::Result<()> {
    for name in &pruned.images {
        super::print(name)?;
    }
    eprintln!("{} freed", size(pruned.bytes));
    Ok(())
}

fn table(images: &[Listed]) -> Vec<String> {
    let mut rows = vec![["NAME", "DIGEST", "ADDED", "SIZE", "CONTAINERS"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        let added = i64::try_from(image.added)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_default();
        [
            image.name.clone(),
            image.digest.chars().skip("sha256:".len()).take(12).collect(),
            added.trim_end_matches('Z').replace('T', " "),
            size(image.size_bytes),
            image.containers.len().to_string(),
        ]
    }));
    let widths: Vec<usize> = (0..5)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// Bytes for people, as `indicatif` shows them.
fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// An image that a container is being made of; while this lives, it is not removed.
pub struct ForRun {
    image: Image,
    layers: Layers,
    _use: Use,
}

impl ForRun {
    /// The image that `text` names, where it names no folder.
    pub fn find(
        text: &Path,
        location: &Location,
        store: &Store,
        id: &ContainerId,
    ) -> anyhow::Result<Option<Self>> {
        if is_folder(text) {
            return Ok(None);
        }
        let name = text.to_str().context("read the name of the image: it is not UTF-8")?;
        let images = location.store()?;
        let held = images.hold()?;
        let image = images.image(name).map_err(|error| {
            let error = anyhow::Error::new(error);
            WithCode::error(125, error.context(format!("no folder {name} is here either")))
        })?;
        let layers = Layers {
            lower: image.layers.clone(),
            // Two state folders may have containers of one id.
            place: images.containers().join(format!("{id}-{}", ContainerId::generate())),
            owner: images.owner_note(&image, &store.folder(id)),
        };
        Ok(Some(Self { image, layers, _use: held }))
    }

    /// Name of the image, in full.
    pub fn name(&self) -> &str {
        &self.image.name
    }

    /// What the root filesystem is made of.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The program: the image's entrypoint, before the command or what the image has for one.
    pub fn command(&self, given: &[String]) -> Vec<String> {
        let config = self.image.config();
        let entrypoint = config.and_then(|config| config.entrypoint().clone());
        let own = || config.and_then(|config| config.cmd().clone()).unwrap_or_default();
        let mut words = entrypoint.unwrap_or_default();
        words.extend(if given.is_empty() { own() } else { given.to_vec() });
        words
    }

    /// `NAME=VALUE` of the image.
    pub fn env(&self) -> Vec<String> {
        self.image.config().and_then(|config| config.env().clone()).unwrap_or_default()
    }

    /// The user, where the image names one.
    pub fn user(&self) -> Option<String> {
        given(self.image.config()?.user().as_deref())
    }

    /// The working folder, where the image names one.
    pub fn workdir(&self) -> Option<PathBuf> {
        given(self.image.config()?.working_dir().as_deref()).map(PathBuf::from)
    }

    /// The signal that asks the program to end, where the image names one.
    pub fn stop_signal(&self) -> Option<String> {
        given(self.image.config()?.stop_signal().as_deref())
    }

    /// Labels of the image.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.image.config().and_then(|config| config.labels().clone());
        labels.into_iter().flatten().collect()
    }
}

fn given(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Whether `text` means a folder: it is one, or is written as a path.
fn is_folder(text: &Path) -> bool {
    let written = text.as_os_str().to_string_lossy();
    text.is_dir() || written.starts_with(['/', '.']) || written.is_empty()
}
