//! Lines over numbers: losses by step, errors by examples, silhouettes by k.

use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    coord::Shift,
    prelude::{BLACK, Circle, DrawingArea, DrawingBackend, LineSeries, PathElement, WHITE},
    style::{Color as _, IntoFont as _},
};

use super::{Drawing, FONT, colors, failed, outputs, text};
use crate::{VizError, error::finite};

/// Lines in one pair of axes.
///
/// ```
/// use burn_lens_viz::{Line, LinePlot};
///
/// let loss = Line { name: "loss".to_owned(), points: vec![(0.0, 4.0), (1.0, 2.0), (2.0, 1.0)] };
/// let plot = LinePlot { title: "Training".to_owned(), x_label: "step".to_owned(), y_label: "loss".to_owned(), log: true, lines: vec![loss] };
/// assert!(plot.to_svg()?.starts_with("<svg"));
/// assert!(plot.to_png()?.starts_with(b"\x89PNG"));
/// assert!(plot.to_text(40, 8)?.lines().count() > 8);
/// # Ok::<(), burn_lens_viz::VizError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinePlot {
    /// Above it.
    pub title: String,
    /// Below the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis.
    pub y_label: String,
    /// Whether the vertical axis is logarithmic; all values must then be positive.
    pub log: bool,
    /// The lines, in the order of the legend.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// `(x, y)`, by x. A single point is drawn as a level line over the whole width.
    pub points: Vec<(f64, f64)>,
}

/// Points up to which each is marked.
const MARKED: usize = 40;

impl LinePlot {
    /// The plot in characters of a terminal, `width` by `height` without the axes.
    ///
    /// # Errors
    ///
    /// If there is nothing to draw, or a number is not finite (or, on a logarithmic axis, not
    /// positive).
    pub fn to_text(&self, width: usize, height: usize) -> Result<String, VizError> {
        let scaled = self.scaled()?;
        Ok(text::plot(self, &scaled, width, height))
    }

    /// The lines with `y` as it is drawn, and single points as level lines.
    pub(super) fn scaled(&self) -> Result<Vec<Vec<(f64, f64)>>, VizError> {
        for line in &self.lines {
            let what = || format!("the line {:?} of {:?}", line.name, self.title);
            let values: Vec<f64> = line.points.iter().flat_map(|&(x, y)| [x, y]).collect();
            finite(what, &values)?;
            if let Some(&(_, y)) = line.points.iter().find(|(_, y)| self.log && *y <= 0.0) {
                return Err(VizError::NotPositive { what: what(), value: y });
            }
        }
        let x = self.lines.iter().flat_map(|line| &line.points).map(|&(x, _)| x);
        let Some([left, right]) = range(x) else {
            return Err(VizError::Empty { what: format!("the plot {:?}", self.title) });
        };
        let scale = |y: f64| if self.log { y.log10() } else { y };
        let each = self.lines.iter().map(|line| match line.points[..] {
            [(_, y)] => vec![(left, scale(y)), (right, scale(y))],
            ref points => points.iter().map(|&(x, y)| (x, scale(y))).collect(),
        });
        Ok(each.collect())
    }

    /// A value of the vertical axis, as it is written there.
    pub(super) fn written(&self, scaled: f64) -> String {
        let value = if self.log { 10f64.powf(scaled) } else { scaled };
        let digits = if value.abs() >= 100.0 {
            0
        } else if value.abs() >= 1.0 {
            2
        } else {
            3
        };
        format!("{value:.digits$}")
    }
}

/// The smallest and the largest; apart from each other, even where they are one.
pub(super) fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let [low, high] =
        values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| [low.min(x), high.max(x)]);
    match low.partial_cmp(&high)? {
        std::cmp::Ordering::Less => Some([low, high]),
        std::cmp::Ordering::Equal => Some([low - 0.5, high + 0.5]),
        std::cmp::Ordering::Greater => None,
    }
}

impl Drawing for LinePlot {
    fn size(&self) -> (u32, u32) {
        (900, 540)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), VizError> {
        let lines = self.scaled()?;
        let empty = || VizError::Empty { what: format!("the plot {:?}", self.title) };
        let [left, right] = range(lines.iter().flatten().map(|&(x, _)| x)).ok_or_else(empty)?;
        let [low, high] = range(lines.iter().flatten().map(|&(_, y)| y)).ok_or_else(empty)?;
        let margin = (high - low) * 0.06;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 22).into_font())
            .margin(18)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(left..right, low - margin..high + margin)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .axis_desc_style((FONT, 16))
            .label_style((FONT, 14))
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.12))
            // As `f32`: what addition left behind the seventh digit is not written.
            .x_label_formatter(&|x| (*x as f32).to_string())
            .y_label_formatter(&|y| self.written(*y))
            .draw()
            .map_err(failed)?;
        for (at, (line, points)) in self.lines.iter().zip(&lines).enumerate() {
            let color = colors::category(at);
            let series = LineSeries::new(points.iter().copied(), color.stroke_width(2));
            chart
                .draw_series(series)
                .map_err(failed)?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(3)));
            if (2..=MARKED).contains(&line.points.len()) {
                let marks = points.iter().map(|&point| Circle::new(point, 3, color.filled()));
                chart.draw_series(marks).map_err(failed)?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 15))
            .draw()
            .map_err(failed)
    }
}

outputs!(LinePlot);

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(log: bool, points: &[(f64, f64)]) -> LinePlot {
        let line = Line { name: "a <b>".to_owned(), points: points.to_vec() };
        LinePlot { title: "t & u".to_owned(), log, lines: vec![line], ..LinePlot::default() }
    }

    #[test]
    fn names_are_escaped() {
        let svg = plot(false, &[(0.0, 1.0), (1.0, 3.0)]).to_svg().unwrap();
        assert!(svg.contains("a &lt;b&gt;") && svg.contains("t &amp; u") && !svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        let said = |log, points: &[(f64, f64)]| plot(log, points).to_svg().unwrap_err().to_string();
        assert!(said(false, &[]).contains("empty"));
        assert!(said(false, &[(0.0, f64::NAN)]).contains("NaN"));
        assert!(said(true, &[(0.0, 0.0)]).contains("logarithmic"));
        assert!(LinePlot::default().to_text(10, 4).is_err());
    }

    #[test]
    fn one_point_and_equal_points_are_drawn() {
        for points in [&[(2.0, 5.0)][..], &[(0.0, 5.0), (1.0, 5.0)]] {
            plot(false, points).to_png().unwrap();
            plot(true, points).to_text(20, 5).unwrap();
        }
    }

    #[test]
    fn characters_show_the_slope() {
        let text = plot(false, &[(0.0, 4.0), (9.0, 0.0)]).to_text(10, 4).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        let column = |row: &str| row.chars().position(|c| ('\u{2801}'..='\u{28ff}').contains(&c));
        let firsts: Vec<usize> = rows.iter().filter_map(|row| column(row)).collect();
        assert_eq!(firsts.len(), 4, "{text}");
        assert!(firsts.is_sorted() && firsts[0] < firsts[3], "{text}");
    }
}
