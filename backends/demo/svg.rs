//! A picture of the view for documents: the cells of a terminal as SVG text.

use std::fmt::Write as _;
use std::time::Duration;

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use crate::model::Model;
use crate::theme::Theme;
use crate::view;

/// The size of the terminal that is pictured.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;
/// Of a cell, in pixels; a monospaced font of 14 pixels is about as wide.
const CELL_WIDTH: f64 = 8.5;
const CELL_HEIGHT: f64 = 18.0;
/// From a row's top to the line that its letters stand on.
const BASELINE: f64 = 13.5;
const MARGIN: f64 = 12.0;
const BACKGROUND: &str = "#1c2128";
const FOREGROUND: &str = "#d5dbe3";

/// The model as it would look in a terminal of 80 by 24.
pub fn picture(model: &Model, now: Duration) -> String {
    let area = Rect::new(0, 0, COLUMNS, ROWS);
    let mut buffer = Buffer::empty(area);
    view::draw(model, now, Theme::COLOURED, area, &mut buffer);
    let mut svg = String::new();
    let (width, height) = (
        f64::from(COLUMNS) * CELL_WIDTH,
        f64::from(ROWS) * CELL_HEIGHT,
    );
    let (width, height) = (width + 2.0 * MARGIN, height + 2.0 * MARGIN);
    // Writing into a string cannot fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"{BACKGROUND}\"/>"
    );
    for y in 0..ROWS {
        row(&buffer, y, &mut svg);
    }
    svg + "</svg>\n"
}

/// One element for each run of cells that look alike.
fn row(buffer: &Buffer, y: u16, svg: &mut String) {
    let cells: Vec<_> = (0..COLUMNS).map(|x| &buffer[(x, y)]).collect();
    let mut x = 0;
    for run in
        cells.chunk_by(|one, next| is_bar(one) == is_bar(next) && one.style() == next.style())
    {
        let text: String = run.iter().map(|cell| cell.symbol()).collect();
        let left = MARGIN + x as f64 * CELL_WIDTH;
        let top = MARGIN + f64::from(y) * CELL_HEIGHT;
        let is_reversed = run[0].modifier.contains(Modifier::REVERSED);
        if is_bar(run[0]) {
            let width = text.chars().map(filled).sum::<f64>() * CELL_WIDTH;
            rectangle(
                left,
                top + 2.0,
                width,
                CELL_HEIGHT - 4.0,
                colour(run[0].fg),
                svg,
            );
        } else if is_reversed {
            let width = run.len() as f64 * CELL_WIDTH;
            rectangle(left, top, width, CELL_HEIGHT, colour(run[0].fg), svg);
            letters(left, top, &text, run[0], BACKGROUND, svg);
        } else if !text.trim().is_empty() {
            letters(left, top, &text, run[0], colour(run[0].fg), svg);
        }
        x += run.len();
    }
}

fn rectangle(left: f64, top: f64, width: f64, height: f64, fill: &str, svg: &mut String) {
    let _ = writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
    );
}

/// `textLength` keeps the columns in line whatever font there is.
fn letters(left: f64, top: f64, text: &str, cell: &Cell, fill: &str, svg: &mut String) {
    let begin = text.chars().take_while(|letter| *letter == ' ').count();
    let text = text.trim();
    let length = text.chars().count() as f64 * CELL_WIDTH;
    let weight = match cell.modifier.contains(Modifier::BOLD) {
        true => " font-weight=\"bold\"",
        false => "",
    };
    let (x, y) = (left + begin as f64 * CELL_WIDTH, top + BASELINE);
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace(' ', "\u{a0}");
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" textLength=\"{length}\" fill=\"{fill}\"{weight}>{text}</text>"
    );
}

fn is_bar(cell: &Cell) -> bool {
    cell.symbol().chars().all(|letter| filled(letter) > 0.0)
}

/// How much of its cell a block fills, from the left: U+2588 all of it, U+258F an eighth.
fn filled(letter: char) -> f64 {
    match letter {
        '\u{2588}'..='\u{258f}' => (0x2590 - letter as u32) as f64 / 8.0,
        _ => 0.0,
    }
}

fn colour(colour: Color) -> &'static str {
    match colour {
        Color::Green => "#6fcf7c",
        Color::Red => "#ff7b72",
        Color::Yellow => "#e3b341",
        Color::Cyan => "#4fb3c8",
        Color::DarkGray => "#7d8792",
        _ => FOREGROUND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{look, model};

    #[test]
    fn the_picture_has_the_words_and_bars_of_the_view() {
        let mut model = model();
        model.note(Duration::ZERO, "<&>");
        model.observe(Duration::ZERO, Some(look([1, 1, 1])));
        model.observe(Duration::from_secs(1), Some(look([2, 2, 2])));
        let svg = picture(&model, Duration::from_secs(1));
        for part in ["server1", "eligible", "&lt;&amp;>", "#4fb3c8", "</svg>"] {
            assert!(svg.contains(part), "no {part} in {svg}");
        }
        assert!(!svg.contains('█'), "{svg}");
    }
}
