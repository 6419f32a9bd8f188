//! A matrix over tokens in characters, for terminals and logs.

use std::fmt::Write as _;

use crate::{VizError, error::finite, label::right_aligned, visible};

/// How a cell shows its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Palette {
    /// Four shades of the block character; needs no colour.
    #[default]
    Shades,
    /// Twelve steps of the 256-colour palette, as backgrounds.
    Ansi256,
}

/// A matrix with labelled rows and columns, such as an attention pattern: rows attend
/// (destinations), columns are attended to (sources).
///
/// ```
/// # use burn_lens_viz::{HeatMap, Palette};
/// let tokens = ["the", " cat"].map(str::to_owned);
/// let text = HeatMap::square(&tokens, &[1.0, 0.0, 0.2, 0.8]).to_text(Palette::Shades)?;
/// assert!(text.contains("·cat"));
/// # Ok::<(), burn_lens_viz::VizError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeatMap<'a> {
    /// Labels of the rows.
    pub rows: &'a [String],
    /// Labels of the columns; they are numbered and not written out.
    pub columns: &'a [String],
    /// `[rows, columns]`, row-major. The scale runs from 0 to `max`.
    pub values: &'a [f64],
    /// The value shown darkest.
    pub max: f64,
}

const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];

/// From near black to yellow, through blue, violet and red: readable on both backgrounds.
const COLOURS: [u8; 12] = [16, 17, 18, 19, 55, 91, 126, 161, 197, 203, 215, 228];

/// A row label takes at most this many characters.
const LABEL: usize = 14;

impl<'a> HeatMap<'a> {
    /// A pattern of `tokens` over themselves, scaled from 0 to 1.
    #[must_use]
    pub fn square(tokens: &'a [String], values: &'a [f64]) -> Self {
        Self { rows: tokens, columns: tokens, values, max: 1.0 }
    }

    /// The picture, a line for each row, with numbered columns above and the scale below.
    ///
    /// # Errors
    ///
    /// If the number of values is not rows times columns, a value is not finite, or there is
    /// nothing to draw.
    pub fn to_text(&self, palette: Palette) -> Result<String, VizError> {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        if rows == 0 || columns == 0 {
            return Err(VizError::Empty { what: "the heat map".to_owned() });
        }
        if self.values.len() != rows * columns {
            let what = "the heat map".to_owned();
            return Err(VizError::MatrixSize { what, rows, columns, found: self.values.len() });
        }
        finite(|| "the heat map".to_owned(), self.values)?;
        let labels: Vec<String> = self.rows.iter().map(|token| visible(token)).collect();
        let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).min(LABEL);
        let digits = (rows.max(columns) - 1).to_string().len();

        let margin = " ".repeat(width + 1 + digits + 1);
        let mut text = header(columns, &margin);
        for (row, (label, values)) in labels.iter().zip(self.values.chunks(columns)).enumerate() {
            // Writing to a string does not fail.
            let _ = write!(text, "{} {row:>digits$} ", right_aligned(label, width));
            for &value in values {
                text.push_str(&self.cell(value, palette));
            }
            while text.ends_with(' ') {
                text.pop();
            }
            text.push('\n');
        }
        let _ = writeln!(text, "{margin}{}", self.scale(palette));
        Ok(text)
    }

    fn cell(&self, value: f64, palette: Palette) -> String {
        let share = if self.max > 0.0 { (value / self.max).clamp(0.0, 1.0) } else { 0.0 };
        match palette {
            Palette::Shades => SHADES[step(share, SHADES.len())].to_owned(),
            Palette::Ansi256 => {
                let colour = COLOURS[step(share, COLOURS.len())];
                format!("\u{1b}[48;5;{colour}m  \u{1b}[0m")
            }
        }
    }

    fn scale(&self, palette: Palette) -> String {
        let steps = match palette {
            Palette::Shades => SHADES.len(),
            Palette::Ansi256 => COLOURS.len(),
        };
        let cells: String =
            (0..steps).map(|at| self.cell(self.max * (at as f64 + 0.5) / steps as f64, palette)).collect();
        format!("0 {cells} {}   rows attend to columns", self.max)
    }
}

fn step(share: f64, steps: usize) -> usize {
    ((share * steps as f64) as usize).min(steps - 1)
}

/// Column numbers, every second one, each over its two-character cell.
fn header(columns: usize, margin: &str) -> String {
    let mut line = margin.to_owned();
    for column in (0..columns).step_by(2) {
        // Writing to a string does not fail.
        let _ = write!(line, "{column:<4}");
    }
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_pattern_in_shades() {
        let tokens = tokens(&["<s>", " a", " bc"]);
        let values = [1.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.1, 0.3, 0.7];
        let text = HeatMap::square(&tokens, &values).to_text(Palette::Shades).unwrap();
        let expected = "      0   2\n<s> 0 ██\n ·a 1 ▒▒▒▒\n·bc 2   ░░▓▓\n      0   ░░▒▒▓▓██ 1   rows attend to columns\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn colour_is_one_cell_per_value() {
        let tokens = tokens(&["a", "b"]);
        let text = HeatMap::square(&tokens, &[1.0, 0.0, 0.5, 0.5]).to_text(Palette::Ansi256).unwrap();
        assert_eq!(text.lines().nth(1).unwrap().matches("\u{1b}[48;5;").count(), 2);
    }

    #[test]
    fn a_hostile_label_stays_on_its_line() {
        let tokens = tokens(&["\n\u{1b}[2J", "a very long token indeed"]);
        let text = HeatMap::square(&tokens, &[0.0; 4]).to_text(Palette::Shades).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let tokens = tokens(&["a", "b"]);
        let drawn = |values: &[f64]| HeatMap::square(&tokens, values).to_text(Palette::Shades);
        assert!(matches!(drawn(&[0.0; 3]), Err(VizError::MatrixSize { found: 3, .. })));
        assert!(matches!(drawn(&[0.0, f64::NAN, 0.0, 0.0]), Err(VizError::NotFinite { index: 1, .. })));
        assert!(matches!(HeatMap::square(&[], &[]).to_text(Palette::Shades), Err(VizError::Empty { .. })));
    }
}
