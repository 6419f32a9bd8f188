//! What a command has to say, as text and as JSON.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

/// The result of a command.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// For people; colours are removed where they cannot be shown.
    pub(crate) text: String,
    /// For programs.
    pub(crate) json: Value,
}

impl Report {
    /// Adds a line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    /// Adds a heading, with an empty line before it unless it is the first thing.
    pub(crate) fn heading(&mut self, heading: impl fmt::Display) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(bold(heading));
    }
}

pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default().bold();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();

/// `text` in bold.
pub(crate) fn bold(text: impl fmt::Display) -> String {
    format!("{BOLD}{text}{BOLD:#}")
}

/// How a column is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table with a dimmed header and two spaces between columns.
pub(crate) fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([columns[column].0.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let header: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut text = format!("{DIM}{}{DIM:#}\n", set(&header, columns, &widths));
    for row in rows {
        text.push_str(&set(row, columns, &widths));
        text.push('\n');
    }
    text
}

fn set(cells: &[String], columns: &[(&str, Align)], widths: &[usize]) -> String {
    let cells = cells.iter().zip(columns).zip(widths).map(|((cell, (_, align)), &width)| match align {
        Align::Left => format!("{cell:<width$}"),
        Align::Right => format!("{cell:>width$}"),
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Names and values, the values aligned.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("  {DIM}{name:<width$}{DIM:#}  {value}\n");
    pairs.iter().map(line).collect()
}

/// A number of bytes in the unit that suits it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with its digits in groups of three.
pub(crate) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1024, 1 << 30].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.0 GiB"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "20".to_owned()]];
        let text = table(&[("name", Align::Left), ("n", Align::Right)], &rows);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["a      1", "bcd   20"]);
    }
}
