//! `terrarium top`: containers, events and findings of a running observatory, in a terminal.
//!
//! One thread asks for the containers, one follows the events; the main thread draws what they send and what keys say.

mod app;
mod draw;
mod feed;

use super::ask::{Endpoint, Guard};
use crate::exit::WithCode;
use anyhow::{Context, anyhow};
use app::{App, Wanted};
use feed::Feed;
use ratatui::crossterm::event::{
    self, DisableMouseCapture, EnableMouseCapture, Event, KeyEventKind, MouseEventKind,
};
use ratatui::crossterm::execute;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the keyboard and what came are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Show containers, events and findings live, full screen
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  terrarium observe &                    the observatory that is asked
  terrarium top
  terrarium top --observatory 10.0.0.7:9750 --mouse")]
pub struct Args {
    /// Where the observatory listens
    #[arg(long, visible_alias = "url", value_name = "ADDRESS", default_value = "127.0.0.1:9750")]
    observatory: String,
    #[command(flatten)]
    guard: Guard,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
    /// Take clicks and the wheel; the terminal's own selection then needs Shift
    #[arg(long)]
    mouse: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let url = match args.observatory.split_once("://") {
        Some(_) => args.observatory.clone(),
        None => format!("http://{}", args.observatory),
    };
    let observatory = Endpoint::new("--observatory", &url, &args.guard)
        .map_err(|error| WithCode::error(2, error))?;
    let address = observatory.address().to_owned();
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(anyhow!(
            "top: standard output is no terminal (for programs: terrarium stats --format json, terrarium events --format json)"
        ));
    }
    // Before the screen changes: that nobody answers is told in one line.
    let feed = Feed::start(observatory, Duration::from_secs(args.interval))?;
    let told = Arc::new(AtomicBool::new(false));
    for signal in signal_hook::consts::TERM_SIGNALS.iter().chain(&[signal_hook::consts::SIGHUP]) {
        signal_hook::flag::register(*signal, Arc::clone(&told)).context("watch for signals")?;
    }
    leave_with_the_terminal(Arc::clone(&told));
    // From here on a panic gives the terminal back before it is told.
    let mut terminal = ratatui::try_init().context("prepare the terminal")?;
    let mouse = args.mouse && execute!(std::io::stdout(), EnableMouseCapture).is_ok();
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let done = show(&mut terminal, App::new(address, colour), feed, &told);
    if mouse {
        // The terminal is given back right below, whatever comes of this.
        let _ = execute!(std::io::stdout(), DisableMouseCapture);
    }
    ratatui::restore();
    done?;
    Ok(ExitCode::SUCCESS)
}

/// Ends the program when its terminal has gone, or when it was told to and does not.
///
/// crossterm's `poll` does not return when the terminal hangs up: it reads the end of the input for ever, and what the
/// signals have told is never looked at.
fn leave_with_the_terminal(told: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let stdin = std::io::stdin();
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        loop {
            let was_told = told.load(Ordering::Relaxed);
            let mut terminal = [PollFd::new(&stdin, PollFlags::empty())];
            // EINTR: a signal, which the next round sees.
            let _ = poll(&mut terminal, Some(&second));
            if was_told || terminal[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
                ratatui::restore();
                std::process::exit(0);
            }
        }
    });
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut app: App,
    mut feed: Feed,
    told: &AtomicBool,
) -> anyhow::Result<()> {
    let mut drawn = false;
    loop {
        let mut changed = !drawn;
        while let Some(news) = feed.next() {
            app.take(news);
            changed = true;
        }
        if event::poll(TICK).context("read the terminal")? {
            match event::read().context("read the terminal")? {
                Event::Key(key) if key.kind != KeyEventKind::Release => app.key(key),
                Event::Mouse(mouse) => match mouse.kind {
                    MouseEventKind::ScrollUp => app.step(-3),
                    MouseEventKind::ScrollDown => app.step(3),
                    MouseEventKind::Down(_) => app.click(mouse.row),
                    _ => {}
                },
                _ => {}
            }
            changed = true;
        }
        if app.quit || told.load(Ordering::Relaxed) {
            return Ok(());
        }
        match app.wanted.take() {
            Some(Wanted::All) => feed.follow(None),
            Some(Wanted::Of(container)) => feed.follow(Some(&container)),
            None => {}
        }
        if changed {
            terminal.draw(|frame| draw::draw(frame, &mut app)).context("draw")?;
            drawn = true;
        }
    }
}
