//! Attention over interleaved examples: four quadrants, the clusters of their rows, the inputs.

use plotters::{
    coord::Shift,
    prelude::{BLACK, DrawingArea, DrawingBackend, PathElement, Rectangle, Text},
    style::{
        Color as _, FontTransform, IntoFont as _, RGBColor, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{Drawing, FONT, colors, failed, outputs};
use crate::{VizError, error::finite};

/// One head's attention on one sequence `x₁ y₁ x₂ y₂ …`.
///
/// Rows of the picture are queries (x above y), columns keys (x left of y), all four parts in
/// one scale from 0 to 1. Beside the rows stand what the queries are (signs of the inputs,
/// targets) and which cluster each row is in; above the columns stand the keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuadrantFigure {
    /// Above it.
    pub title: String,
    /// `[2n · 2n]`: the pattern, queries by keys, x and y in turn.
    pub pattern: Vec<f64>,
    /// `[n][width]`: the inputs, of which signs are shown.
    pub x: Vec<Vec<f64>>,
    /// `[n]`: the targets.
    pub y: Vec<f64>,
    /// `[n]`: the cluster of each x query's row.
    pub x_clusters: Vec<usize>,
    /// `[n]`: the cluster of each y query's row.
    pub y_clusters: Vec<usize>,
}

/// A square part takes about this many pixels, whatever it holds; a strip a quarter of it.
const PART: usize = 300;
const GAP: i32 = 12;
const LEFT: i32 = 60;
const TOP: i32 = 60;
const BOTTOM: i32 = 60;
const LEGEND: i32 = 190;

/// Where the panels lie.
struct Grid {
    /// Examples.
    n: usize,
    /// Pixels of a square part, a whole number for each cell.
    square: i32,
    strip: i32,
}

impl Grid {
    fn new(n: usize) -> Self {
        let cell = (PART / n.max(1)).max(2) as i32;
        Self { n, square: cell * n as i32, strip: PART as i32 / 4 }
    }

    /// The left edge of one of the four columns: inputs, clusters, x keys, y keys.
    fn column(&self, index: usize) -> i32 {
        LEFT + [0, self.strip + GAP, 2 * (self.strip + GAP), 2 * (self.strip + GAP) + self.square + GAP]
            [index]
    }

    /// The top edge of one of the three rows: keys, x queries, y queries.
    fn row(&self, index: usize) -> i32 {
        TOP + [0, self.strip + GAP, self.strip + self.square + 2 * GAP][index]
    }
}

/// A matrix of colored cells and where it stands.
struct Panel {
    left: i32,
    top: i32,
    width: i32,
    height: i32,
    rows: usize,
    columns: usize,
}

impl Panel {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        color: impl Fn(usize, usize) -> RGBColor,
    ) -> Result<(), VizError> {
        let at = |index: usize, count: usize, length: i32| (index as i32 * length) / count.max(1) as i32;
        for row in 0..self.rows {
            for column in 0..self.columns {
                let x = [column, column + 1].map(|x| self.left + at(x, self.columns, self.width));
                let y = [row, row + 1].map(|y| self.top + at(y, self.rows, self.height));
                let cell = Rectangle::new([(x[0], y[0]), (x[1], y[1])], color(row, column).filled());
                area.draw(&cell).map_err(failed)?;
            }
        }
        let corner = (self.left + self.width, self.top + self.height);
        let frame = Rectangle::new([(self.left, self.top), corner], BLACK.mix(0.6));
        area.draw(&frame).map_err(failed)
    }
}

impl QuadrantFigure {
    fn check(&self) -> Result<(), VizError> {
        let n = self.y.len();
        if n == 0 {
            return Err(VizError::Empty { what: format!("the figure {:?}", self.title) });
        }
        let matrix = |what: &str, rows: usize, columns: usize, found: usize| {
            let what = format!("{what} of the figure {:?}", self.title);
            if found == rows * columns {
                Ok(())
            } else {
                Err(VizError::MatrixSize { what, rows, columns, found })
            }
        };
        matrix("the pattern", 2 * n, 2 * n, self.pattern.len())?;
        matrix("the clusters of x", n, 1, self.x_clusters.len())?;
        matrix("the clusters of y", n, 1, self.y_clusters.len())?;
        let width = self.x.first().map_or(0, Vec::len);
        matrix("the inputs", n, width, self.x.iter().map(Vec::len).sum())?;
        matrix("the inputs", n, 1, self.x.len())?;
        finite(|| format!("the pattern of the figure {:?}", self.title), &self.pattern)?;
        finite(|| format!("the targets of the figure {:?}", self.title), &self.y)?;
        finite(|| format!("the inputs of the figure {:?}", self.title), &self.x.concat())
    }

    /// The largest size of a target, which is drawn in full color.
    fn most(&self) -> f64 {
        self.y.iter().fold(f64::MIN_POSITIVE, |most, y| most.max(y.abs()))
    }

    fn quadrants<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        grid: &Grid,
    ) -> Result<(), VizError> {
        let n = grid.n;
        for query in 0..2 {
            for key in 0..2 {
                let panel = Panel {
                    left: grid.column(2 + key),
                    top: grid.row(1 + query),
                    width: grid.square,
                    height: grid.square,
                    rows: n,
                    columns: n,
                };
                panel.draw(area, |row, column| {
                    colors::purples(self.pattern[(2 * row + query) * 2 * n + 2 * column + key])
                })?;
            }
        }
        Ok(())
    }

    fn strips<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, grid: &Grid) -> Result<(), VizError> {
        let (n, d, most) = (grid.n, self.x.first().map_or(1, Vec::len), self.most());
        let sign = |example: usize, at: usize| colors::SIGNS[usize::from(self.x[example][at] >= 0.0)];
        let target = |example: usize| colors::blue_white_red(self.y[example] / most);
        let across = |column: usize, row: usize, columns: usize| Panel {
            left: grid.column(column),
            top: grid.row(row),
            width: grid.strip,
            height: grid.square,
            rows: n,
            columns,
        };
        let above = |column: usize, rows: usize| Panel {
            left: grid.column(column),
            top: grid.row(0),
            width: grid.square,
            height: grid.strip,
            rows,
            columns: n,
        };
        across(0, 1, d).draw(area, sign)?;
        across(1, 1, 1).draw(area, |row, _| colors::category(self.x_clusters[row]))?;
        across(0, 2, 1).draw(area, |row, _| target(row))?;
        across(1, 2, 1).draw(area, |row, _| colors::category(self.y_clusters[row]))?;
        above(2, d).draw(area, |row, column| sign(column, row))?;
        above(3, 1).draw(area, |_, column| target(column))
    }

    fn labels<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, grid: &Grid) -> Result<(), VizError> {
        let (width, _) = self.size();
        label(area, &self.title, (width as i32 / 2, 26), 22)?;
        let below = grid.row(2) + grid.square + 34;
        for (column, text) in [(2, "x key"), (3, "y key")] {
            label(area, text, (grid.column(column) + grid.square / 2, below), 16)?;
        }
        for (column, text) in [(0, "query"), (1, "cluster")] {
            label(area, text, (grid.column(column) + grid.strip / 2, below), 14)?;
        }
        for (row, text) in [(1, "x query"), (2, "y query")] {
            let style = TextStyle::from((FONT, 16).into_font().transform(FontTransform::Rotate270));
            let place = (LEFT - 42, grid.row(row) + grid.square / 2);
            let style = style.pos(Pos::new(HPos::Center, VPos::Center));
            area.draw(&Text::new(text, place, style)).map_err(failed)?;
        }
        Ok(())
    }

    /// What colors mean, on the right.
    fn legend<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, grid: &Grid) -> Result<(), VizError> {
        let left = grid.column(3) + grid.square + 28;
        let mut top = grid.row(1);
        let entry = |text: &str, color: RGBColor, top: i32| -> Result<(), VizError> {
            let swatch = Rectangle::new([(left, top), (left + 16, top + 14)], color.filled());
            area.draw(&swatch).map_err(failed)?;
            beside(area, text, (left + 24, top + 7))
        };
        let scale: Vec<RGBColor> = (0..=100).map(|step| colors::purples(f64::from(step) / 100.0)).collect();
        for (step, color) in scale.iter().enumerate() {
            let x = left + step as i32;
            let line = PathElement::new([(x, top), (x, top + 14)], color.stroke_width(1));
            area.draw(&line).map_err(failed)?;
        }
        beside(area, "0", (left, top + 26))?;
        beside(area, "1", (left + 94, top + 26))?;
        beside(area, "attention", (left, top + 46))?;
        top += 72;
        for (sign, text) in [(1, "x ≥ 0"), (0, "x < 0")] {
            entry(text, colors::SIGNS[sign], top)?;
            top += 22;
        }
        top += 12;
        for (share, value) in [(1.0, self.most()), (-1.0, -self.most())] {
            entry(&format!("y = {value:.2}"), colors::blue_white_red(share), top)?;
            top += 22;
        }
        top += 12;
        let clusters = self.x_clusters.iter().chain(&self.y_clusters).max().map_or(0, |most| most + 1);
        for cluster in 0..clusters {
            entry(&format!("cluster {cluster}"), colors::category(cluster), top)?;
            top += 22;
        }
        Ok(())
    }
}

/// The numbers of some examples, left of rows and below columns.
fn numbers<B: DrawingBackend>(area: &DrawingArea<B, Shift>, grid: &Grid) -> Result<(), VizError> {
    let cell = grid.square / grid.n as i32;
    let style = |h, v| TextStyle::from((FONT, 12).into_font()).pos(Pos::new(h, v));
    for example in (0..grid.n).step_by(step(grid.n)) {
        let (text, along) = (example.to_string(), example as i32 * cell + cell / 2);
        for row in [1, 2] {
            let place = (LEFT - 6, grid.row(row) + along);
            let text = Text::new(text.clone(), place, style(HPos::Right, VPos::Center));
            area.draw(&text).map_err(failed)?;
        }
        for column in [2, 3] {
            let place = (grid.column(column) + along, grid.row(2) + grid.square + 6);
            let text = Text::new(text.clone(), place, style(HPos::Center, VPos::Top));
            area.draw(&text).map_err(failed)?;
        }
    }
    Ok(())
}

/// Every so many of `n` examples have their number written, so that they are not too many.
fn step(n: usize) -> usize {
    /// At most.
    const NUMBERS: usize = 8;
    let steps =
        [1, 2, 5].into_iter().cycle().zip(0..).map(|(step, at): (usize, u32)| step * 10usize.pow(at / 3));
    steps.take(18).find(|step| n.div_ceil(*step) <= NUMBERS).unwrap_or(n.max(1))
}

fn label<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    text: &str,
    at: (i32, i32),
    size: i32,
) -> Result<(), VizError> {
    let style = TextStyle::from((FONT, size).into_font()).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(failed)
}

fn beside<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    text: &str,
    at: (i32, i32),
) -> Result<(), VizError> {
    let style = TextStyle::from((FONT, 14).into_font()).pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(failed)
}

impl Drawing for QuadrantFigure {
    fn size(&self) -> (u32, u32) {
        let grid = Grid::new(self.y.len());
        let width = grid.column(3) + grid.square + LEGEND;
        let height = grid.row(2) + grid.square + BOTTOM;
        (width as u32, height as u32)
    }

    fn has_cells(&self) -> bool {
        true
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), VizError> {
        self.check()?;
        let grid = Grid::new(self.y.len());
        self.quadrants(area, &grid)?;
        self.strips(area, &grid)?;
        self.labels(area, &grid)?;
        numbers(area, &grid)?;
        self.legend(area, &grid)
    }
}

outputs!(QuadrantFigure);

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(n: usize) -> QuadrantFigure {
        let row = |query: usize| {
            (0..2 * n).map(move |key| if key <= query { 1.0 / (query + 1) as f64 } else { 0.0 })
        };
        QuadrantFigure {
            title: "layer 0, head 1 <sample 2>".to_owned(),
            pattern: (0..2 * n).flat_map(row).collect(),
            x: (0..n).map(|i| vec![1.0, -1.0, i as f64 - 1.0]).collect(),
            y: (0..n).map(|i| i as f64 - 2.0).collect(),
            x_clusters: (0..n).map(|i| i % 3).collect(),
            y_clusters: (0..n).map(|i| i % 2).collect(),
        }
    }

    #[test]
    fn every_cell_is_drawn_once() {
        let (n, d) = (5, 3);
        let svg = figure(n).to_svg().unwrap();
        // Four quadrants, signs twice, targets twice, clusters twice; eight legend entries less
        // the scale, ten frames and the background.
        assert!(svg.starts_with("<svg shape-rendering=\"crispEdges\""));
        let cells = 4 * n * n + 2 * n * d + 2 * n + 2 * n;
        assert_eq!(svg.matches("<rect").count(), cells + 10 + 1 + (2 + 2 + 3));
        assert!(svg.contains("layer 0, head 1 &lt;sample 2&gt;"));
        assert!(figure(5).to_png().unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn not_too_many_numbers_are_written() {
        assert_eq!([1, 8, 9, 16, 17, 40, 41, 200, 2000].map(step), [1, 1, 2, 2, 5, 5, 10, 50, 500]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(matches!(QuadrantFigure::default().to_svg(), Err(VizError::Empty { .. })));
        let short = QuadrantFigure { y_clusters: vec![0], ..figure(4) };
        assert!(short.to_svg().unwrap_err().to_string().contains("clusters of y"));
        let mut bad = figure(4);
        bad.pattern[3] = f64::NAN;
        assert!(matches!(bad.to_png(), Err(VizError::NotFinite { .. })));
    }

    #[test]
    fn many_examples_stay_one_picture() {
        let (width, height) = figure(200).size();
        assert!(width < 1400 && height < 1400, "{width} {height}");
    }
}
