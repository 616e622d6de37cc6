//! The model as a picture of any size. A pure function; the terminal is `screen`'s.
//!
//! The picture is a list of sections. Where they do not all fit, those of the highest rank are left out; where
//! there is room to spare, the events get it.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::children::Condition;
use crate::model::Model;
use crate::ports::SERVERS;
use crate::table::{bar, grouped, table};
use crate::theme::Theme;

/// The server that `d` drains.
pub const DRAINED: usize = 1;

/// The column in which everything begins that has a label.
const INDENT: usize = 9;
/// Between two items of a line.
const BETWEEN: usize = 3;
/// Fewer events than these, and empty lines are not worth their room.
const EVENTS_MIN: usize = 4;
/// As many events are worth more than any section above the rank.
const EVENTS_WORTH: (usize, u8) = (3, 4);
/// From here on there is room to say what a key does.
const WORDY: usize = 60;

/// Some lines that are shown together or not at all.
struct Section {
    lines: Vec<Line<'static>>,
    /// The highest is left out first.
    rank: u8,
    /// An empty line comes before it, where there is room.
    has_gap: bool,
}

/// Draws the model over the whole of `area`.
pub fn draw(model: &Model, now: Duration, theme: Theme, area: Rect, buffer: &mut Buffer) {
    // One column stays free on both sides.
    let width = usize::from(area.width).saturating_sub(2);
    let lines = fit(
        sections(model, now, width, theme),
        model,
        usize::from(area.height),
        theme,
    );
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        let room = area.width.saturating_sub(2);
        let x = area.x + 1.min(area.width);
        if room > 0 {
            buffer.set_line(x, y, &line, room);
        }
    }
}

/// The lines that fit, with as many events as there is room for.
fn fit(
    mut sections: Vec<Section>,
    model: &Model,
    height: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let lines = |sections: &[Section]| sections.iter().map(|one| one.lines.len()).sum::<usize>();
    loop {
        let ranks = sections.iter().enumerate();
        let last = ranks.max_by_key(|(_, section)| section.rank);
        let Some((index, section)) = last else { break };
        let (events, rank) = EVENTS_WORTH;
        let events = if section.rank > rank { events } else { 0 };
        if lines(&sections) + events <= height || section.rank == 0 {
            break;
        }
        sections.remove(index);
    }
    let left = height.saturating_sub(lines(&sections));
    let gaps = sections.iter().filter(|section| section.has_gap).count();
    let has_gaps = left >= gaps + EVENTS_MIN;
    let mut room = left - if has_gaps { gaps } else { 0 };
    let mut picture = Vec::new();
    for section in sections {
        if section.has_gap && has_gaps {
            picture.push(Line::default());
        }
        let is_events = section.lines.is_empty();
        picture.extend(section.lines);
        if is_events {
            picture.extend(events(model, std::mem::take(&mut room), theme));
        }
    }
    picture
}

fn sections(model: &Model, now: Duration, width: usize, theme: Theme) -> Vec<Section> {
    let section = |rank, lines, has_gap| Section {
        lines,
        rank,
        has_gap,
    };
    vec![
        section(3, vec![title(now, width, theme)], false),
        section(0, table(model, width, theme), true),
        section(4, vec![queue(model, width, theme)], true),
        section(5, load(model, now, width, theme), false),
        section(1, answers(model, width, theme), false),
        section(6, file(model, width, theme), false),
        // Empty: the events come here.
        section(0, Vec::new(), true),
        section(2, keys(model, width, theme), true),
        section(7, by_hand(model, width, theme), false),
    ]
}

fn title(now: Duration, width: usize, theme: Theme) -> Line<'static> {
    let name = " maitred ";
    let time = clock(now);
    let room = width.saturating_sub(name.len() + time.len());
    let what = " three servers that serve one request at a time";
    let what = if what.len() < room { what } else { "" };
    let gap = room - what.len();
    Line::from(vec![
        Span::styled(name, theme.title()),
        Span::raw(what),
        Span::styled(" ".repeat(gap) + &time, theme.faint()),
    ])
}

fn queue(model: &Model, width: usize, theme: Theme) -> Line<'static> {
    let waiting = model.status.as_ref().map_or(0, |one| one.upstream.waiting);
    let text = format!("{waiting} waiting ");
    let text = format!("{text:13}");
    let room = width.saturating_sub(INDENT + text.len());
    // Full when everybody waits.
    let share = waiting as f64 / model.clients.max(1) as f64;
    Line::from(vec![
        Span::styled(format!("{:INDENT$}", "queue"), theme.faint()),
        Span::raw(text),
        Span::styled(bar(share, room), theme.bar()),
    ])
}

fn load(model: &Model, now: Duration, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let (half, most) = model.quantiles().unwrap_or_default();
    let items = [
        format!("{} clients", model.clients),
        format!("{:.1} requests/s", model.rate(now)),
        format!("p50 {} ms", half.as_millis()),
        format!("p99 {} ms", most.as_millis()),
    ];
    flow("load", items.map(|item| (item, Style::new())), width, theme)
}

fn answers(model: &Model, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let tally = model.tally;
    let failed_style = match tally.failed {
        0 => theme.good().patch(theme.strong()),
        _ => theme.bad().patch(theme.title()),
    };
    let mut items = vec![
        (format!("{} ok", grouped(tally.served)), theme.good()),
        (format!("{} failed", grouped(tally.failed)), failed_style),
    ];
    if tally.timed_out > 0 {
        let text = format!("{} timed out (504)", grouped(tally.timed_out));
        items.push((text, theme.warning()));
    }
    if tally.refused > 0 {
        let text = format!("{} refused (503)", grouped(tally.refused));
        items.push((text, theme.warning()));
    }
    flow("answers", items, width, theme)
}

fn file(model: &Model, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut items = Vec::new();
    if let Some(status) = &model.status {
        let report = &status.report;
        let style = match report.state.as_str() {
            "ok" => theme.good(),
            _ => theme.warning(),
        };
        let age = report.age_seconds.unwrap_or(0.0);
        items.push((format!("{}, {age:.0} s old", report.state), style));
        if let Some(problem) = &report.problem {
            items.push((problem.clone(), theme.warning()));
        }
    }
    items.push(match model.poller {
        Condition::Runs(_) => ("poller runs".to_owned(), Style::new()),
        Condition::Hangs => ("poller is paused".to_owned(), theme.warning()),
        Condition::Ended => ("poller has ended".to_owned(), theme.bad()),
    });
    flow("health", items, width, theme)
}

/// The newest last, as a log is read.
fn events(model: &Model, room: usize, theme: Theme) -> Vec<Line<'static>> {
    let newest: Vec<_> = model.events().take(room).collect();
    let lines = newest.into_iter().rev().map(|event| {
        let time = format!("{:<INDENT$}", clock(event.at));
        Line::from(vec![
            Span::styled(time, theme.faint()),
            Span::raw(event.what.clone()),
        ])
    });
    let mut lines: Vec<_> = lines.collect();
    lines.resize(room, Line::default());
    lines
}

fn keys(model: &Model, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let items = if width < WORDY {
        let few = [
            "1 2 3 kill",
            "s hang",
            "d drain",
            "p poller",
            "+ -",
            "q quit",
        ];
        few.map(str::to_owned).to_vec()
    } else {
        explained_keys(model)
    };
    let items = items.into_iter().map(|item| (item, theme.strong()));
    flow("keys", items, width, theme)
}

fn explained_keys(model: &Model) -> Vec<String> {
    let hang = match model.hangs_or_would() {
        Some(index) if model.servers[index] == Condition::Hangs => {
            format!("s wakes {}", SERVERS[index])
        }
        Some(index) => format!("s hangs {}", SERVERS[index]),
        None => "s hangs nobody".to_owned(),
    };
    let drain = match model.is_drained(DRAINED) {
        false => format!("d drains {}", SERVERS[DRAINED]),
        true => format!("d undrains {}", SERVERS[DRAINED]),
    };
    let poller = match model.poller {
        Condition::Runs(_) => "p pauses the poller",
        Condition::Hangs => "p continues the poller",
        Condition::Ended => "p starts the poller",
    };
    vec![
        "1 2 3 kill or revive a server".to_owned(),
        hang,
        drain,
        poller.to_owned(),
        "+ - clients".to_owned(),
        "q quits".to_owned(),
    ]
}

fn by_hand(model: &Model, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let items = [
        format!("curl localhost:{}/home", model.ports.proxy),
        format!("curl localhost:{}/api/v1/status", model.ports.admin),
    ];
    let path = model.health_file.display().to_string();
    let plain = |item| (item, Style::new());
    let mut lines = flow("try", items.map(plain), width, theme);
    lines.extend(flow("edit", [plain(path)], width, theme));
    lines
}

/// A label and items, on as many lines as they need. An item that is too long for a line begins further left.
fn flow(
    label: &str,
    items: impl IntoIterator<Item = (String, Style)>,
    width: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut spans = vec![Span::styled(format!("{label:INDENT$}"), theme.faint())];
    let mut used = INDENT;
    for (item, style) in items {
        let length = item.chars().count();
        let between = if used > INDENT { BETWEEN } else { 0 };
        if used + between + length <= width {
            spans.push(Span::raw(" ".repeat(between)));
            used += between;
        } else {
            if used > INDENT {
                lines.push(Line::from(std::mem::take(&mut spans)));
            }
            used = INDENT.min(width.saturating_sub(length));
            spans = vec![Span::raw(" ".repeat(used))];
        }
        used += length;
        spans.push(Span::styled(item, style));
    }
    lines.push(Line::from(spans));
    lines
}

/// Minutes and seconds.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests;
