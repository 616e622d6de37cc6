//! The table of servers: a line each, with as many columns as the width allows.

use ratatui::text::{Line, Span};

use crate::children::Condition;
use crate::model::Model;
use crate::ports::SERVERS;
use crate::theme::Theme;

/// From here on there is room for every column.
const WIDE: usize = 72;

/// Enough for bars, and for the word that takes their place.
const BAR: usize = 14;

/// The widths of the columns; those of width 0 are left out.
struct Columns {
    name: usize,
    process: usize,
    state: usize,
    in_hand: usize,
    served: usize,
    share: usize,
    bar: usize,
}

impl Columns {
    fn of(width: usize) -> Self {
        let (name, served, share) = (8, 7, 6);
        if width >= WIDE {
            let (process, state, in_hand) = (8, 27, 8);
            let fixed = name + process + state + in_hand + served + share + 1;
            let rest = width.saturating_sub(fixed);
            // Reasons can be longer than the usual ones (a poller's), so a wide screen gives them more.
            let extra = rest.saturating_sub(BAR) / 3;
            return Self {
                name,
                process,
                state: state + extra,
                in_hand,
                served,
                share,
                bar: rest - extra,
            };
        }
        let in_hand = 4;
        Self {
            name,
            process: 0,
            state: width.saturating_sub(name + in_hand + served + share),
            in_hand,
            served,
            share,
            bar: 0,
        }
    }
}

/// The table, its heading first.
pub fn table(model: &Model, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let columns = Columns::of(width);
    let servers = (0..SERVERS.len()).map(|index| row(model, index, &columns, theme));
    [heading(&columns, theme)]
        .into_iter()
        .chain(servers)
        .collect()
}

fn heading(columns: &Columns, theme: Theme) -> Line<'static> {
    let is_wide = columns.process > 0;
    let cells = [
        left("server", columns.name),
        left("process", columns.process),
        left("state", columns.state),
        left(if is_wide { "in hand" } else { "" }, columns.in_hand),
        right("served", columns.served),
        right("share", columns.share),
        // There is room to say more where the bars are long.
        if columns.bar > " of the last 5 s".len() {
            " of the last 5 s".to_owned()
        } else {
            String::new()
        },
    ];
    Line::styled(cells.concat(), theme.faint())
}

fn row(model: &Model, index: usize, columns: &Columns, theme: Theme) -> Line<'static> {
    let is_wide = columns.process > 0;
    let backend = model.backend(index);
    let (process, process_style) = match model.servers[index] {
        Condition::Runs(id) => (id.to_string(), theme.faint()),
        Condition::Hangs => ("hangs".to_owned(), theme.warning()),
        Condition::Ended => ("killed".to_owned(), theme.bad()),
    };
    let (state, state_style) = match backend.map(|backend| &backend.why_not) {
        None => ("unknown".to_owned(), theme.faint()),
        Some(None) => ("eligible".to_owned(), theme.good()),
        Some(Some(why)) => (why.clone(), theme.warning()),
    };
    let state = match model.servers[index] {
        Condition::Hangs | Condition::Ended if !is_wide => format!("{process}: {state}"),
        _ => state,
    };
    let in_hand = backend.map_or_else(String::new, |backend| {
        format!("{}/{}", backend.in_flight, backend.max_in_flight)
    });
    let served = backend.map_or_else(String::new, |backend| grouped(backend.served));
    let share = model.recent_shares().map(|shares| shares[index]);
    let percent = share.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0));
    // A server that holds on to a request serves little, so its bar can be spared.
    let last = match backend.map_or(0, |backend| backend.abandoned) {
        0 => Span::styled(bar(share.unwrap_or(0.0), columns.bar), theme.bar()),
        abandoned => Span::styled(format!("{abandoned} abandoned"), theme.warning()),
    };
    Line::from(vec![
        Span::styled(left(SERVERS[index], columns.name), theme.strong()),
        Span::styled(left(&process, columns.process), process_style),
        Span::styled(left(&state, columns.state), state_style),
        Span::raw(left(&in_hand, columns.in_hand)),
        Span::raw(right(&served, columns.served)),
        Span::raw(right(&percent, columns.share)),
        Span::raw(" "),
        last,
    ])
}

/// A bar of at most `width` cells; the last one is cut to an eighth.
pub fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// A number with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Cut to leave a space before the next column, and filled up.
fn left(text: &str, width: usize) -> String {
    let room = width.saturating_sub(1);
    let mut cut: String = text.chars().take(room).collect();
    if text.chars().count() > room && cut.pop().is_some() {
        cut.push('…');
    }
    format!("{cut:width$}")
}

fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(1.0 / 3.0, 4), "█▍");
        assert_eq!(bar(7.0, 2), "██");
        assert_eq!(bar(f64::NAN, 2), "");
        assert_eq!(bar(1.0, 0), "");
    }

    #[test]
    fn thousands_are_set_apart() {
        let written = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(written, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn what_is_too_long_is_cut_visibly() {
        assert_eq!(left("abcdef", 5), "abc… ");
        assert_eq!(left("abcd", 5), "abcd ");
        assert_eq!(
            (left("abc", 1), left("abc", 0)),
            (" ".to_owned(), String::new())
        );
    }
}
