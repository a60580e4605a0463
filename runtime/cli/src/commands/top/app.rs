//! What is shown, and what keys do to it; no terminal here.

use super::feed::News;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Events that are kept.
const EVENTS: usize = 2000;

/// Samples of a container that are kept.
const SAMPLES: usize = 120;

/// What fills the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    Containers,
    /// The one with this cgroup path.
    Container(String),
    Events,
    Findings,
    Help,
}

/// Whose events are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Everybody's.
    All,
    /// Those of the container with this cgroup path.
    Of(String),
}

/// What rows can be sorted by, in the order of the columns.
pub const SORTS: [&str; 10] =
    ["NAME", "CPU%", "MEM", "LIMIT", "TASKS", "CLONES", "NS", "HITS", "STALL", "OOM"];

/// A container, as far as a row needs it.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub key: String,
    pub name: String,
    pub state: String,
    pub runtime: String,
    /// Percent of one CPU.
    pub cpu: f64,
    pub memory: Option<u64>,
    pub limit: Option<u64>,
    /// By the order of [`SORTS`] from TASKS on.
    pub tasks: u64,
    pub clones: u64,
    pub namespaces: u64,
    pub hits: u64,
    pub stall_ns: u64,
    pub kills: u64,
    /// Everything that is told.
    pub all: Value,
}

/// The state of the program.
pub struct App {
    pub address: String,
    pub colour: bool,
    pub view: View,
    /// Sorted and chosen.
    pub rows: Vec<Row>,
    /// How many there are, chosen or not.
    pub known: usize,
    pub selected: usize,
    pub sort: usize,
    pub ascending: bool,
    /// Only names that contain it.
    pub filter: String,
    /// Whether keys write into the filter.
    pub typing: bool,
    pub events: VecDeque<Value>,
    pub paused: bool,
    pub seen: u64,
    pub lost: u64,
    /// `None`: the observatory does not look for them.
    pub findings: Option<Vec<Value>>,
    /// Percent of one CPU of the last looks, by cgroup path.
    pub cpu: HashMap<String, VecDeque<u64>>,
    /// Why the last look failed.
    pub trouble: Option<String>,
    pub quit: bool,
    /// Set when other events are wanted.
    pub wanted: Option<Wanted>,
    /// The row of the screen on which the first container stands, as last drawn.
    pub first_row: u16,
    /// How far the list is scrolled, as last drawn.
    pub offset: usize,
    all: Vec<Row>,
    before: HashMap<String, (Instant, u64)>,
}

impl App {
    pub fn new(address: String, colour: bool) -> Self {
        Self {
            address,
            colour,
            view: View::Containers,
            rows: Vec::new(),
            known: 0,
            selected: 0,
            sort: 1,
            ascending: false,
            filter: String::new(),
            typing: false,
            events: VecDeque::new(),
            paused: false,
            seen: 0,
            lost: 0,
            findings: None,
            cpu: HashMap::new(),
            trouble: None,
            quit: false,
            wanted: None,
            first_row: 0,
            offset: 0,
            all: Vec::new(),
            before: HashMap::new(),
        }
    }

    /// Takes in what came.
    pub fn take(&mut self, news: News) {
        match news {
            News::Containers(Ok(containers)) => {
                self.trouble = None;
                self.containers(containers, Instant::now());
            }
            News::Containers(Err(error)) => self.trouble = Some(error),
            News::Findings(findings) => self.findings = findings,
            News::Event(_, event) => {
                self.seen += 1;
                self.lost += event["lost_before"].as_u64().unwrap_or(0);
                if !self.paused {
                    self.events.push_back(*event);
                    if self.events.len() > EVENTS {
                        self.events.pop_front();
                    }
                }
            }
        }
    }

    fn containers(&mut self, containers: Vec<Value>, now: Instant) {
        let mut before = std::mem::take(&mut self.before);
        self.all.clear();
        for container in containers.into_iter().filter(|c| c["kind"] != "service") {
            let mut row = row(container);
            let used = row.all["cpu"]["usage_ns"].as_u64();
            if let Some(used) = used {
                if let Some((then, earlier)) = before.remove(&row.key) {
                    row.cpu = percent(
                        used.saturating_sub(earlier),
                        now.saturating_duration_since(then).as_nanos(),
                    );
                }
                self.before.insert(row.key.clone(), (now, used));
            }
            let past = self.cpu.entry(row.key.clone()).or_default();
            past.push_back(rounded(row.cpu));
            if past.len() > SAMPLES {
                past.pop_front();
            }
            self.all.push(row);
        }
        let known: std::collections::HashSet<&str> =
            self.all.iter().map(|row| row.key.as_str()).collect();
        self.cpu.retain(|key, _| known.contains(key.as_str()));
        self.known = self.all.len();
        self.choose();
    }

    /// Filters and sorts; the selection stays with its container.
    fn choose(&mut self) {
        let selected = self.rows.get(self.selected).map(|row| row.key.clone());
        self.rows =
            self.all.iter().filter(|row| row.name.contains(&self.filter)).cloned().collect();
        let (sort, ascending) = (self.sort, self.ascending);
        self.rows.sort_by(|a, b| {
            let order = match SORTS[sort] {
                "NAME" => a.name.cmp(&b.name),
                "CPU%" => a.cpu.total_cmp(&b.cpu),
                "MEM" => a.memory.cmp(&b.memory),
                "LIMIT" => a.limit.cmp(&b.limit),
                "TASKS" => a.tasks.cmp(&b.tasks),
                "CLONES" => a.clones.cmp(&b.clones),
                "NS" => a.namespaces.cmp(&b.namespaces),
                "HITS" => a.hits.cmp(&b.hits),
                "STALL" => a.stall_ns.cmp(&b.stall_ns),
                _ => a.kills.cmp(&b.kills),
            };
            // What has ended stays for a while, below what goes on.
            let over = |row: &Row| row.state == "stopped";
            let order = if ascending { order } else { order.reverse() };
            over(a).cmp(&over(b)).then(order).then_with(|| a.key.cmp(&b.key))
        });
        let place = selected.and_then(|key| self.rows.iter().position(|row| row.key == key));
        self.selected = place.unwrap_or(self.selected).min(self.rows.len().saturating_sub(1));
    }

    /// The container of the view.
    pub fn container(&self) -> Option<&Row> {
        let View::Container(key) = &self.view else { return None };
        self.all.iter().find(|row| row.key == *key)
    }

    /// The findings that the view shows.
    pub fn shown_findings(&self) -> Vec<&Value> {
        let id = self.container().map(|row| row.all["id"].clone());
        let all = self.findings.iter().flatten();
        all.filter(|finding| id.as_ref().is_none_or(|id| finding["container"]["id"] == *id))
            .collect()
    }

    pub fn key(&mut self, key: KeyEvent) {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            if matches!(key.code, KeyCode::Char('c' | 'd')) {
                self.quit = true;
            }
            return;
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => {
                    self.filter.pop();
                }
                KeyCode::Char(c) => self.filter.push(c),
                _ => {}
            }
            self.choose();
            return;
        }
        match key.code {
            KeyCode::Char('q') => self.quit = true,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => {
                if self.view == View::Containers {
                    self.filter.clear();
                    self.choose();
                } else {
                    self.show(View::Containers);
                }
            }
            KeyCode::Char('c' | '1') => self.show(View::Containers),
            KeyCode::Char('e' | '2') => self.show(View::Events),
            KeyCode::Char('f' | '3') => self.show(View::Findings),
            KeyCode::Char('?' | 'h') => self.show(View::Help),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('/') if self.view == View::Containers => self.typing = true,
            KeyCode::Char('s' | '>') => self.sort_by((self.sort + 1) % SORTS.len()),
            KeyCode::Char('<') => self.sort_by((self.sort + SORTS.len() - 1) % SORTS.len()),
            KeyCode::Char('r') => {
                self.ascending = !self.ascending;
                self.choose();
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(15),
            KeyCode::PageUp => self.step(-15),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = self.rows.len().saturating_sub(1),
            KeyCode::Enter | KeyCode::Right if self.view == View::Containers => {
                if let Some(row) = self.rows.get(self.selected) {
                    self.show(View::Container(row.key.clone()));
                }
            }
            _ => {}
        }
    }

    fn sort_by(&mut self, sort: usize) {
        self.sort = sort;
        // Names from A, numbers from the largest.
        self.ascending = sort == 0;
        self.choose();
    }

    /// Moves the selection.
    pub fn step(&mut self, by: isize) {
        if self.view == View::Containers {
            let last = self.rows.len().saturating_sub(1);
            self.selected = self.selected.saturating_add_signed(by).min(last);
        }
    }

    /// Selects the container on this row of the screen; once more opens it.
    pub fn click(&mut self, row: u16) {
        let Some(below) = row.checked_sub(self.first_row) else { return };
        let place = self.offset + usize::from(below);
        if self.view != View::Containers || place >= self.rows.len() {
            return;
        }
        if place == self.selected {
            self.show(View::Container(self.rows[place].key.clone()));
        }
        self.selected = place;
    }

    fn show(&mut self, view: View) {
        let of = |view: &View| match view {
            View::Container(key) => Wanted::Of(key.clone()),
            _ => Wanted::All,
        };
        let (then, now) = (of(&self.view), of(&view));
        if then != now {
            self.wanted = Some(now);
            self.events.clear();
            (self.seen, self.lost) = (0, 0);
        }
        self.view = view;
    }
}

fn row(all: Value) -> Row {
    let text = |pointer: &str| {
        super::super::terminal::harmless(
            all.pointer(pointer).and_then(Value::as_str).unwrap_or_default(),
        )
    };
    let number = |pointer: &str| all.pointer(pointer).and_then(Value::as_u64);
    let count = |name: &str| number(&format!("/counters/{name}")).unwrap_or(0);
    Row {
        key: all["cgroup"].as_str().unwrap_or_default().to_owned(),
        name: text("/name"),
        state: text("/state"),
        runtime: text("/runtime"),
        cpu: 0.0,
        memory: number("/memory/usage_bytes"),
        limit: number("/limits/memory_bytes"),
        tasks: number("/tasks/threads").or(number("/tasks/processes")).unwrap_or(0),
        clones: count("processes") + count("threads"),
        namespaces: count("namespaces_created") + count("namespaces_entered"),
        hits: count("memory_limit_hits"),
        stall_ns: count("memory_stall_ns"),
        kills: count("oom_kills"),
        all,
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit behind the point")]
fn percent(used_ns: u64, passed_ns: u128) -> f64 {
    if passed_ns == 0 { 0.0 } else { 100.0 * used_ns as f64 / passed_ns as f64 }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a percentage is small and not negative, and the cast saturates"
)]
fn rounded(percent: f64) -> u64 {
    percent.round() as u64
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    /// Two containers at two moments: `busy` uses half a CPU.
    pub fn app() -> App {
        let mut app = App::new("127.0.0.1:9750".into(), false);
        let start = Instant::now();
        let container = |name: &str, cpu: u64, memory: u64| {
            json!({"id": name, "name": name, "cgroup": format!("/terrarium/{name}"), "state": "running",
                   "runtime": "terrarium", "kind": "container", "cpu": {"usage_ns": cpu},
                   "memory": {"usage_bytes": memory}, "limits": {"memory_bytes": 64 << 20},
                   "tasks": {"processes": 2, "threads": 3},
                   "counters": {"processes": 7, "oom_kills": 1, "memory_stall_ns": 2_500_000}})
        };
        app.containers(vec![container("busy", 0, 10 << 20), container("idle", 0, 20 << 20)], start);
        let later = start + Duration::from_secs(2);
        let service =
            json!({"name": "cron", "cgroup": "/system.slice/cron.service", "kind": "service"});
        let second = vec![
            container("busy", 1_000_000_000, 10 << 20),
            container("idle", 0, 20 << 20),
            service,
        ];
        app.containers(second, later);
        app
    }

    fn press(app: &mut App, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '↓' => KeyCode::Down,
                key => KeyCode::Char(key),
            };
            app.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
    }

    fn names(app: &App) -> Vec<&str> {
        app.rows.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn rows_are_sorted_and_the_selection_stays_with_its_container() {
        let mut app = app();
        assert_eq!(names(&app), ["busy", "idle"]);
        assert!((app.rows[0].cpu - 50.0).abs() < 1e-9);
        press(&mut app, "↓");
        assert_eq!(app.selected, 1);
        press(&mut app, "s");
        assert_eq!((SORTS[app.sort], names(&app)), ("MEM", vec!["idle", "busy"]));
        assert_eq!(app.rows[app.selected].name, "idle");
        press(&mut app, "r");
        assert_eq!(names(&app), ["busy", "idle"]);
    }

    #[test]
    fn what_has_ended_comes_last_however_the_rows_are_sorted() {
        let mut app = app();
        for row in &mut app.all {
            if row.name == "busy" {
                row.state = "stopped".into();
            }
        }
        for _ in 0..SORTS.len() {
            press(&mut app, "s");
            assert_eq!(names(&app), ["idle", "busy"], "{}", SORTS[app.sort]);
        }
    }

    #[test]
    fn a_filter_chooses_by_name_and_escape_gives_it_up() {
        let mut app = app();
        press(&mut app, "/idq");
        assert_eq!((names(&app).len(), app.known), (0, 2));
        press(&mut app, "\u{1b}");
        assert_eq!(names(&app).len(), 2);
        assert!(!app.quit);
        press(&mut app, "q");
        assert!(app.quit);
    }

    #[test]
    fn one_container_has_its_own_events() {
        let mut app = app();
        app.take(News::Event(1, Box::new(json!({"lost_before": 3}))));
        assert_eq!((app.seen, app.lost), (1, 3));
        press(&mut app, "\n");
        assert_eq!(app.view, View::Container("/terrarium/busy".into()));
        assert_eq!(app.wanted.take(), Some(Wanted::Of("/terrarium/busy".into())));
        assert_eq!(app.seen, 0);
        press(&mut app, "\u{1b}");
        assert_eq!(app.wanted.take(), Some(Wanted::All));
    }

    #[test]
    fn events_are_bounded() {
        let mut app = app();
        for _ in 0..EVENTS + 5 {
            app.take(News::Event(1, Box::new(json!({}))));
        }
        assert_eq!(app.events.len(), EVENTS);
    }
}
