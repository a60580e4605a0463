//! The screen.

use super::super::events;
use super::super::stats::human;
use super::super::terminal::harmless;
use super::app::{App, Row as Line, SORTS, View};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as TextLine, Span, Text};
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Sparkline, Table, TableState, Wrap};
use serde_json::Value;

/// The styles, which are plain without colours.
struct Theme {
    accent: Style,
    soft: Style,
    warn: Style,
    bad: Style,
    selected: Style,
}

impl Theme {
    fn new(colour: bool) -> Self {
        let of = |color| if colour { Style::new().fg(color) } else { Style::new() };
        Self {
            accent: of(Color::Green),
            soft: if colour { Style::new().fg(Color::DarkGray) } else { Style::new() },
            warn: of(Color::Yellow),
            bad: of(Color::Red).add_modifier(Modifier::BOLD),
            selected: Style::new().add_modifier(Modifier::REVERSED),
        }
    }
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let theme = Theme::new(app.colour);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)])
            .areas(frame.area());
    heading(frame, head, app, &theme);
    match app.view.clone() {
        View::Containers => containers(frame, body, app, &theme),
        View::Container(_) => container(frame, body, app, &theme),
        View::Events => {
            event_list(frame, body, app, &theme, "events of all containers and the host");
        }
        View::Findings => findings(frame, body, app, &theme),
        View::Help => help(frame, body),
    }
    footer(frame, foot, app, &theme);
}

fn heading(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let tab = |label: &'static str, here: bool| {
        let style = if here {
            theme.accent.add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
        } else {
            Style::new()
        };
        Span::styled(label, style)
    };
    let serious = app
        .findings
        .iter()
        .flatten()
        .filter(|finding| finding["severity"] == "critical" || finding["severity"] == "high")
        .count();
    let mut parts = vec![
        Span::styled("terrarium top  ", Style::new().add_modifier(Modifier::BOLD)),
        tab("1 Containers", matches!(app.view, View::Containers | View::Container(_))),
        Span::raw("  "),
        tab("2 Events", app.view == View::Events),
        Span::raw("  "),
        tab("3 Findings", app.view == View::Findings),
    ];
    if serious > 0 {
        parts.push(Span::styled(format!(" ({serious})"), theme.bad));
    }
    frame.render_widget(TextLine::from(parts), area);
    let address = TextLine::from(Span::styled(app.address.as_str(), theme.soft)).right_aligned();
    frame.render_widget(address, area);
}

fn footer(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let line = if app.typing {
        TextLine::from(format!(
            "find: {}▏ (Enter keeps it, Esc gives it up)",
            harmless(&app.filter)
        ))
    } else if let Some(trouble) = &app.trouble {
        TextLine::from(Span::styled(trouble.as_str(), theme.bad))
    } else {
        let keys = match app.view {
            View::Containers => "↑↓ select  Enter open  s sort  r reverse  / find  ? help  q quit",
            View::Container(_) => "Esc back  p pause  e events  f findings  ? help  q quit",
            View::Events => "p pause  c containers  f findings  ? help  q quit",
            View::Findings | View::Help => "c containers  e events  q quit",
        };
        TextLine::from(Span::styled(keys, theme.soft))
    };
    frame.render_widget(line, area);
}

fn containers(frame: &mut Frame<'_>, area: Rect, app: &mut App, theme: &Theme) {
    let wide = area.width >= 100;
    let mut widths = vec![Constraint::Min(14)];
    if wide {
        widths.extend([Constraint::Length(10), Constraint::Length(8)]);
    }
    widths.extend([6, 8, 8, 5, 7, 4, 5, 7, 4].map(Constraint::Length));
    let title = |n: usize| {
        let mark = if app.sort != n {
            ""
        } else if app.ascending {
            "↑"
        } else {
            "↓"
        };
        let label = format!("{}{mark}", SORTS[n]);
        let style = if app.sort == n { theme.accent } else { Style::new() };
        let text = Text::from(Span::styled(label, style.add_modifier(Modifier::BOLD)));
        Cell::from(if n == 0 { text } else { text.right_aligned() })
    };
    let mut head = vec![title(0)];
    if wide {
        let plain =
            |label| Cell::from(Span::styled(label, Style::new().add_modifier(Modifier::BOLD)));
        head.extend([plain("RUNTIME"), plain("STATE")]);
    }
    head.extend((1..SORTS.len()).map(title));
    let rows = app.rows.iter().map(|line| table_row(line, wide, theme));
    let table = Table::new(rows, widths)
        .header(Row::new(head))
        .row_highlight_style(theme.selected)
        .column_spacing(1);
    let [table_area, note] =
        Layout::vertical([Constraint::Min(2), Constraint::Length(1)]).areas(area);
    let mut state = TableState::new().with_offset(app.offset).with_selected(app.selected);
    frame.render_stateful_widget(table, table_area, &mut state);
    app.offset = state.offset();
    app.first_row = table_area.y + 1;
    let chosen = if app.rows.len() == app.known {
        format!("{} containers", app.known)
    } else {
        format!("{} of {} containers", app.rows.len(), app.known)
    };
    let lost = if app.lost > 0 { format!(", {} events lost", app.lost) } else { String::new() };
    frame.render_widget(
        Span::styled(format!("{chosen}, {} events seen{lost}", app.seen), theme.soft),
        note,
    );
}

fn table_row<'a>(line: &'a Line, wide: bool, theme: &Theme) -> Row<'a> {
    let right = |text: String| Cell::from(Text::from(text).right_aligned());
    let marked = |text: String, style| Cell::from(Text::styled(text, style).right_aligned());
    let name = if line.state == "running" { Style::new() } else { theme.soft };
    let mut cells = vec![Cell::from(Span::styled(line.name.as_str(), name))];
    if wide {
        cells.extend([Cell::from(line.runtime.as_str()), Cell::from(line.state.as_str())]);
    }
    let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), human);
    let full = line.memory.zip(line.limit).is_some_and(|(used, limit)| used > limit / 10 * 9);
    cells.extend([
        right(format!("{:.1}", line.cpu)),
        marked(size(line.memory), if full { theme.warn } else { Style::new() }),
        right(size(line.limit)),
        right(line.tasks.to_string()),
        right(short(line.clones)),
        right(short(line.namespaces)),
        right(short(line.hits)),
        right(duration(line.stall_ns)),
        marked(short(line.kills), if line.kills > 0 { theme.bad } else { Style::new() }),
    ]);
    Row::new(cells)
}

fn container(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let Some(line) = app.container() else {
        frame.render_widget("The observatory knows this container no more (Esc goes back).", area);
        return;
    };
    let [facts, meters, list] =
        Layout::vertical([Constraint::Length(6), Constraint::Length(3), Constraint::Min(3)])
            .areas(area);
    let text = |pointer: &str| match line.all.pointer(pointer) {
        Some(Value::String(text)) => harmless(text),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let count = |name: &str| short(line.all["counters"][name].as_u64().unwrap_or(0));
    let lines = vec![
        TextLine::from(format!(
            "{}  {}  pid {}  {}  generation {}",
            line.state,
            line.runtime,
            text("/pid"),
            text("/cgroup"),
            text("/generation")
        )),
        TextLine::from(format!(
            "tasks {}   processes made {}   threads made {}   programs {}   exits {}   refused {}",
            line.tasks,
            count("processes"),
            count("threads"),
            count("execs"),
            count("exits"),
            count("clone_failures")
        )),
        TextLine::from(format!(
            "namespaces made {}   entered {}   mounts {}   refused {}",
            count("namespaces_created"),
            count("namespaces_entered"),
            count("mount_operations"),
            count("mount_operation_failures")
        )),
        TextLine::from(vec![
            Span::raw(format!(
                "limit hits {}   stalled {}   reclaimed {}   ",
                short(line.hits),
                duration(line.stall_ns),
                human(line.all["counters"]["memory_reclaimed_bytes"].as_u64().unwrap_or(0))
            )),
            Span::styled(
                format!("OOM kills {}", line.kills),
                if line.kills > 0 { theme.bad } else { Style::new() },
            ),
        ]),
    ];
    let title = Span::styled(format!(" {} ", line.name), theme.accent.add_modifier(Modifier::BOLD));
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), facts);

    let [memory, cpu] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(meters);
    let share = line.memory.zip(line.limit).map_or(0.0, |(used, limit)| ratio(used, limit));
    let label = format!(
        "{} of {}",
        line.memory.map_or("-".to_owned(), human),
        line.limit.map_or("no limit".to_owned(), human)
    );
    let gauge = Gauge::default()
        .block(Block::bordered().title(" memory "))
        .gauge_style(if share > 0.9 { theme.bad } else { theme.accent })
        .ratio(share)
        .label(label);
    frame.render_widget(gauge, memory);
    let title = format!(" CPU {:.1}% ", line.cpu);
    let block = Block::bordered().title(title);
    let width = usize::from(block.inner(cpu).width);
    let past: Vec<u64> = app
        .cpu
        .get(&line.key)
        .map(|past| past.iter().skip(past.len().saturating_sub(width)).copied().collect())
        .unwrap_or_default();
    frame.render_widget(Sparkline::default().block(block).style(theme.accent).data(&past), cpu);

    let found = app.shown_findings().len();
    let title =
        if found == 0 { "events".to_owned() } else { format!("events; {found} findings (f)") };
    event_list(frame, list, app, theme, &title);
}

/// The last events that fit, the newest below.
fn event_list(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme, title: &str) {
    let paused = if app.paused { ", paused" } else { "" };
    let lost = if app.lost > 0 { format!(", {} lost", app.lost) } else { String::new() };
    let block = Block::bordered().title(format!(" {title}: {}{lost}{paused} ", app.seen));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let many = usize::from(inner.height).saturating_sub(1);
    let mut lines = vec![TextLine::from(Span::styled(
        events::header(),
        Style::new().add_modifier(Modifier::BOLD),
    ))];
    for event in app.events.iter().skip(app.events.len().saturating_sub(many)) {
        let style = if event["result"]["ok"] == false {
            theme.bad
        } else if event["severity"] != "info" {
            theme.warn
        } else {
            Style::new()
        };
        // What was lost stands in the title.
        let row = events::row(event);
        let told = row.lines().next_back().unwrap_or_default().to_owned();
        lines.push(TextLine::from(Span::styled(told, style)));
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

fn findings(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let mut all = app.shown_findings();
    let rank = |finding: &Value| {
        let severities = ["critical", "high", "medium", "low", "info"];
        severities.iter().position(|severity| finding["severity"] == *severity)
    };
    all.sort_by_key(|finding| rank(finding));
    let text = match (&app.findings, all.as_slice()) {
        (None, _) => Text::from("This observatory does not look for leaks."),
        (_, []) => Text::from("No finding: no wall is missing that should be there."),
        (_, all) => {
            Text::from(all.iter().flat_map(|finding| lines_of(finding, theme)).collect::<Vec<_>>())
        }
    };
    let title = format!(" findings: {} ", all.len());
    let paragraph =
        Paragraph::new(text).wrap(Wrap { trim: false }).block(Block::bordered().title(title));
    frame.render_widget(paragraph, area);
}

fn lines_of(finding: &Value, theme: &Theme) -> Vec<TextLine<'static>> {
    let text = |pointer: &str| {
        harmless(finding.pointer(pointer).and_then(Value::as_str).unwrap_or_default())
    };
    let severity = text("/severity");
    let style = match severity.as_str() {
        "critical" | "high" => theme.bad,
        "medium" => theme.warn,
        _ => theme.soft,
    };
    let mut lines = vec![TextLine::from(vec![
        Span::styled(format!("{severity:<8} "), style),
        Span::styled(text("/check"), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(" in {}", text("/container/name"))),
    ])];
    for (label, pointer) in
        [("declared", "/declared"), ("observed", "/observed"), ("what to do", "/remedy")]
    {
        let value = text(pointer);
        if !value.is_empty() {
            lines.push(TextLine::from(format!("         {label}: {value}")));
        }
    }
    lines
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let text = "\
↑ ↓ j k PgUp PgDn Home End   select a container
Enter or →                   open it: its counters, memory, events
Esc or ←                     back; in the list: no filter
s > <                        sort by the next column, by the one before
r                            the other way round
/                            only containers whose name contains …
p or space                   stop and go on with events
1 2 3 or c e f               containers, events, findings
q or Ctrl-C                  quit

NS      namespaces made and entered
HITS    entries into reclaim at the memory limit
STALL   time that tasks stood there
OOM     tasks that the kernel killed for lack of memory";
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" help ")), area);
}

/// A count in at most four or five characters.
fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{}k", count / 1000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// A duration in at most seven characters.
fn duration(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        1..1_000_000 => format!("{}us", ns / 1000),
        1_000_000..1_000_000_000 => format!("{}ms", ns / 1_000_000),
        _ => format!("{}.{}s", ns / 1_000_000_000, ns / 100_000_000 % 10),
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is a bar of some dozen cells")]
fn ratio(used: u64, limit: u64) -> f64 {
    (used as f64 / limit.max(1) as f64).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::app::tests::app;
    use super::super::feed::News;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use serde_json::json;

    fn screen(app: &mut App, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, app)).expect("drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn the_smallest_screen_shows_all_columns() {
        let mut app = app();
        let text = screen(&mut app, 80, 24);
        for word in SORTS {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
        let busy = text.lines().find(|line| line.contains("busy")).expect("a row");
        let words: Vec<&str> = busy.trim_matches('"').split_whitespace().collect();
        assert_eq!(words, ["busy", "50.0", "10.0MiB", "64.0MiB", "3", "7", "0", "0", "2ms", "1"]);
        // Smaller still must not fail either.
        for (width, height) in [(20, 4), (1, 1), (300, 90)] {
            screen(&mut app, width, height);
        }
    }

    #[test]
    fn every_view_is_drawn_and_control_characters_are_not() {
        let mut app = app();
        app.take(News::Findings(Some(vec![
            json!({"check": "host-network-namespace", "severity": "high",
            "container": {"name": "a\u{1b}[2Jb"}, "observed": "net", "remedy": "--net bridge"}),
        ])));
        app.take(News::Event(
            1,
            Box::new(json!({"type": "process.exec", "time": "2026-11-24T02:20:02.4Z",
            "severity": "info", "process": {"comm": "a\u{1b}[31mb"}})),
        ));
        for (key, expected) in [
            ('e', "process.exec"),
            ('f', "host-network-namespace"),
            ('?', "quit"),
            ('c', "busy"),
            ('\n', "generation"),
        ] {
            let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
            app.key(KeyEvent::new(code, KeyModifiers::NONE));
            let text = screen(&mut app, 100, 30);
            assert!(text.contains(expected), "{expected} is not in\n{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (count, text) in [(9999, "9999"), (10_000, "10k"), (2_500_000, "2M")] {
            assert_eq!(short(count), text);
        }
        for (ns, text) in
            [(0, "0"), (42_000, "42us"), (7_900_000, "7ms"), (61_500_000_000, "61.5s")]
        {
            assert_eq!(duration(ns), text);
        }
    }
}
