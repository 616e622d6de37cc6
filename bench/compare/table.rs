//! Owns how tables look in Markdown, and how numbers are written for people.

use crate::stats::Spread;

/// Rows below a heading. The first column is text, the others are numbers.
pub struct Table {
    pub heading: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heading: &[&'static str]) -> Self {
        Self {
            heading: heading.into(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.heading.len());
        self.rows.push(cells);
    }

    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let heading: Vec<String> = self.heading.iter().map(|&cell| cell.to_owned()).collect();
        let rule = format!(
            "|---{}|\n",
            "|---:".repeat(self.heading.len().saturating_sub(1))
        );
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        line(&heading) + &rule + &rows
    }
}

/// Whole, with commas: `12,345`.
pub fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 {
        format!("-{grouped}")
    } else {
        grouped
    }
}

/// A count, with commas.
pub fn count(value: u64) -> String {
    whole(value as f64)
}

/// A median and how far the rounds lay apart: `52.1 (50.0–60.3)`.
pub fn spread(spread: Option<Spread>, write: impl Fn(f64) -> String) -> String {
    spread.map_or_else(
        || "–".into(),
        |s| format!("{} ({}–{})", write(s.median), write(s.min), write(s.max)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,568"],
            [0.4, 999.0, 1000.0, 1_234_567.9].map(whole)[..]
        );
        assert_eq!(whole(-1500.0), "-1,500");
    }

    #[test]
    fn a_table_has_a_rule_and_a_line_per_row() {
        let mut table = Table::new(&["who", "failed", "of"]);
        table.row(vec!["nginx".into(), "0".into(), count(1830)]);
        assert_eq!(
            table.markdown(),
            "| who | failed | of |\n|---|---:|---:|\n| nginx | 0 | 1,830 |\n"
        );
    }

    #[test]
    fn no_values_are_a_dash() {
        assert_eq!(spread(None, whole), "–");
        assert_eq!(spread(Spread::of(&[3.0, 1.0, 2.0]), whole), "2 (1–3)");
    }
}
