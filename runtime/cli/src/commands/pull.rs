//! `terrarium pull`: an image from a registry.

use super::image::{Location, Nodes};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::process::ExitCode;
use terrarium_images::{ImageStore, Progress, Pull, pull};

/// Pull an image from a registry.
///
/// A pull that was interrupted goes on where it stopped. Prints the image's name in full.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  terrarium pull busybox\n  terrarium pull localhost:5000/tool:1.2\n  terrarium run busybox -- echo hello"
)]
pub struct Args {
    /// Name, such as busybox, quay.io/team/tool:1.2, or one with @sha256:…
    image: String,
    /// Who pulls [default: what `docker login` or `podman login` has written]
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
    /// Without TLS; registries on this machine's loopback are reached so in any case
    #[arg(long)]
    plain_http: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    nodes: Nodes,
    #[command(flatten)]
    location: Location,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let what = Pull {
        name: args.image.clone(),
        credentials: args.creds.clone(),
        plain_http: args.plain_http,
        nodes: args.nodes.choice(),
    };
    super::print(&fetch(&args.location.store()?, &what, args.quiet)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Pulls `what` and gives its name in full; progress goes to standard error where that is a terminal.
pub fn fetch(store: &ImageStore, what: &Pull, quiet: bool) -> anyhow::Result<String> {
    let bar = Bar::new(quiet);
    let name = pull(store, what, &bar);
    bar.end();
    Ok(name?.to_string())
}

/// A bar on standard error, where that is a terminal.
pub struct Bar(ProgressBar);

impl Bar {
    /// One that is hidden where nobody wants it.
    pub fn new(quiet: bool) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self(ProgressBar::with_draw_target(Some(0), target))
    }

    /// Takes it away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn total(&self, layers: usize, bytes: u64, have: u64) {
        let style = if bytes == 0 {
            "{spinner} {msg} {bytes}, {bytes_per_sec}"
        } else {
            "{spinner} {msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}"
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.0.set_style(style);
        }
        let noun = if layers == 1 { "layer" } else { "layers" };
        self.0.set_message(format!("{layers} {noun}"));
        self.0.set_length(bytes);
        self.0.set_position(have);
        self.0.reset_eta();
    }

    fn received(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn unpacked(&self) {
        self.0.tick();
    }
}
