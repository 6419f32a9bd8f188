//! Line plots in braille, four dots high and two wide a character.

use std::fmt::Write as _;

use super::{LinePlot, line::range};

/// The bit of a dot, by row and column.
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

/// `lines` are those of `plot`, scaled and not empty.
pub(super) fn plot(plot: &LinePlot, lines: &[Vec<(f64, f64)>], width: usize, height: usize) -> String {
    let (width, height) = (width.max(2), height.max(2));
    let x = range(lines.iter().flatten().map(|&(x, _)| x)).unwrap_or([0.0, 1.0]);
    let y = range(lines.iter().flatten().map(|&(_, y)| y)).unwrap_or([0.0, 1.0]);
    let mut cells = vec![vec![0u8; width]; height];
    let mut set = |column: usize, row: usize| cells[row / 4][column / 2] |= DOTS[row % 4][column % 2];
    for line in lines {
        let mut last = None;
        for column in 0..2 * width {
            let at = x[0] + (x[1] - x[0]) * column as f64 / (2 * width - 1) as f64;
            if let Some(value) = at_x(line, at) {
                let share = (y[1] - value) / (y[1] - y[0]);
                let row = (share * (4 * height - 1) as f64).round() as usize;
                // Where the line is steep, up or down to where it was.
                let from = last.replace(row).unwrap_or(row);
                (row.min(from)..=row.max(from)).for_each(|row| set(column, row));
            }
        }
    }
    let marks = [plot.written(y[1]), plot.written(y[0])];
    let margin = marks.iter().map(String::len).max().unwrap_or(0);
    let names: Vec<&str> = plot.lines.iter().map(|line| line.name.as_str()).collect();
    let mut text = format!("{} ({})\n", plot.title, names.join(", "));
    for (row, cells) in cells.iter().enumerate() {
        let mark = if row == 0 {
            marks[0].as_str()
        } else if row + 1 == height {
            marks[1].as_str()
        } else {
            ""
        };
        let dots: String =
            cells.iter().map(|&bits| char::from_u32(0x2800 + u32::from(bits)).unwrap_or(' ')).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{mark:>margin$} │{dots}");
    }
    let _ = writeln!(text, "{:>margin$} └{}", "", "─".repeat(width));
    let ends = [x[0], x[1]].map(|x| format!("{x}"));
    let gap = width.saturating_sub(ends[0].len() + ends[1].len()).max(1);
    let _ = writeln!(text, "{:>margin$}  {}{}{} {}", "", ends[0], " ".repeat(gap), ends[1], plot.x_label);
    text
}

/// The line's height at `x`, between its points; `None` beside it.
fn at_x(line: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = line.iter().position(|&(right, _)| right >= x)?;
    let (right, high) = line[after];
    if after == 0 {
        return (right == x || line.len() == 1).then_some(high);
    }
    let (left, low) = line[after - 1];
    if right == left { Some(high) } else { Some(low + (high - low) * (x - left) / (right - left)) }
}
