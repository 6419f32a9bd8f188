//! A matrix of numbers of both signs in characters, for terminals and logs.

use std::fmt::Write as _;

use crate::{Palette, VizError, error::finite, label::right_aligned, visible};

/// A matrix of effects: rows and columns of any kind, values on both sides of zero.
///
/// ```
/// # use burn_lens_viz::{Palette, SignedMap};
/// let [rows, columns] = [["0", "1"], ["0", "1"]].map(|labels| labels.map(str::to_owned));
/// let map = SignedMap { axes: ["layer", "head"], rows: &rows, columns: &columns, values: &[0.0, 1.0, -0.5, 0.0] };
/// assert!(map.to_text(Palette::Shades)?.contains("██"));
/// # Ok::<(), burn_lens_viz::VizError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SignedMap<'a> {
    /// What rows and columns are.
    pub axes: [&'a str; 2],
    /// Labels of the rows.
    pub rows: &'a [String],
    /// Labels of the columns; written above where they are short, and numbered otherwise.
    pub columns: &'a [String],
    /// `[rows, columns]`, row-major. The scale runs to the largest magnitude.
    pub values: &'a [f64],
}

/// From nothing to the largest magnitude; negative values have a minus in front.
const SHADES: [&str; 5] = ["··", "░░", "▒▒", "▓▓", "██"];
const NEGATIVE: [&str; 5] = ["··", "-░", "-▒", "-▓", "-█"];

/// Backgrounds of the 256-color palette, from near black to red and to blue.
const REDS: [u8; 6] = [233, 52, 88, 124, 160, 196];
const BLUES: [u8; 6] = [233, 17, 18, 20, 27, 33];

/// A row label takes at most this many characters.
const LABEL: usize = 18;

impl SignedMap<'_> {
    /// The picture, a line for each row, columns above and the scale below.
    ///
    /// # Errors
    ///
    /// If the number of values is not rows times columns, a value is not finite, or there is
    /// nothing to draw.
    pub fn to_text(&self, palette: Palette) -> Result<String, VizError> {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        let what = || "the heat map".to_owned();
        if rows == 0 || columns == 0 {
            return Err(VizError::Empty { what: what() });
        }
        if self.values.len() != rows * columns {
            return Err(VizError::MatrixSize { what: what(), rows, columns, found: self.values.len() });
        }
        finite(what, self.values)?;
        let largest = self.values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        let labels: Vec<String> = self.rows.iter().map(|label| visible(label)).collect();
        let widest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        let width = widest.max(self.axes[0].chars().count()).min(LABEL);
        let mut text =
            format!("{} {}", right_aligned(self.axes[0], width), self.axes[1]).trim_end().to_owned();
        text.push('\n');
        // Writing to a string does not fail. A single column needs no label.
        if !self.axes[1].is_empty() {
            let _ = writeln!(text, "{} {}", " ".repeat(width), self.header().trim_end());
        }
        for (label, values) in labels.iter().zip(self.values.chunks(columns)) {
            let _ = write!(text, "{} ", right_aligned(label, width));
            for &value in values {
                text.push_str(&cell(if largest > 0.0 { value / largest } else { 0.0 }, palette));
            }
            text.push('\n');
        }
        let scale: String = [-1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0].map(|share| cell(share, palette)).concat();
        let _ = writeln!(text, "{} {:.3} {scale} {largest:.3}", " ".repeat(width), -largest);
        Ok(text)
    }

    /// Labels of two characters over their cells; every second one, numbered, where they are longer.
    fn header(&self) -> String {
        if self.columns.iter().all(|label| label.chars().count() <= 2) {
            return self.columns.iter().map(|label| format!("{label:<2}")).collect::<Vec<_>>().concat();
        }
        (0..self.columns.len()).step_by(2).map(|at| format!("{at:<4}")).collect::<Vec<_>>().concat()
    }
}

fn cell(share: f64, palette: Palette) -> String {
    let step = |steps: usize| ((share.abs() * steps as f64) as usize).min(steps - 1);
    match palette {
        Palette::Shades if share < 0.0 => NEGATIVE[step(NEGATIVE.len())].to_owned(),
        Palette::Shades => SHADES[step(SHADES.len())].to_owned(),
        Palette::Ansi256 => {
            let color = if share < 0.0 { REDS[step(REDS.len())] } else { BLUES[step(BLUES.len())] };
            format!("\u{1b}[48;5;{color}m  \u{1b}[0m")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn signs_are_seen_without_color() {
        let (rows, columns) = (labels(&["0", "1"]), labels(&["0", "1", "2"]));
        let values = [0.0, 1.0, -1.0, 0.5, -0.5, 0.0];
        let map = SignedMap { axes: ["layer", "head"], rows: &rows, columns: &columns, values: &values };
        let text = map.to_text(Palette::Shades).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4], ["layer head", "      0 1 2", "    0 ··██-█", "    1 ▒▒-▒··"]);
        assert!(lines[4].contains("-1.000") && lines[4].ends_with("1.000"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let rows = labels(&["a"]);
        let drawn = |values: &[f64]| {
            SignedMap { axes: ["a", "b"], rows: &rows, columns: &rows, values }.to_text(Palette::Shades)
        };
        assert!(matches!(drawn(&[0.0; 2]), Err(VizError::MatrixSize { found: 2, .. })));
        assert!(matches!(drawn(&[f64::NAN]), Err(VizError::NotFinite { index: 0, .. })));
        assert!(drawn(&[0.0]).is_ok());
    }
}
