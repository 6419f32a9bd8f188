//! Points in a plane with one unit on both axes, such as eigenvalues.

use serde::Serialize;

use crate::{VizError, error::finite};

/// Points in a plane; both axes have the same unit, and circles around the origin show it.
#[derive(Clone, Debug, Default)]
pub struct Scatter {
    /// What the horizontal axis is.
    pub x_axis: String,
    /// What the vertical axis is.
    pub y_axis: String,
    /// The points.
    pub points: Vec<Point>,
}

/// One point of a [`Scatter`].
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// Shown on hover and focus.
    pub note: String,
}

/// What the template sees of a [`Scatter`]: a drawing of `SIZE × SIZE`.
#[derive(Serialize)]
pub(super) struct ScatterView {
    size: f64,
    center: f64,
    x_axis: String,
    y_axis: String,
    label: String,
    rings: Vec<RingView>,
    points: Vec<PointView>,
}

#[derive(Serialize)]
struct RingView {
    radius: f64,
    text: String,
    label_y: f64,
}

#[derive(Serialize)]
struct PointView {
    x: f64,
    y: f64,
    note: String,
}

/// The drawing's width and height.
const SIZE: f64 = 420.0;

/// From the origin to the outermost ring.
const RADIUS: f64 = 185.0;

impl Scatter {
    pub(super) fn view(&self, title: &str) -> Result<ScatterView, VizError> {
        let what = || format!("the scatter plot of {title:?}");
        let values: Vec<f64> = self.points.iter().flat_map(|point| [point.x, point.y]).collect();
        finite(what, &values)?;
        if self.points.is_empty() {
            return Err(VizError::Empty { what: what() });
        }
        let largest = self.points.iter().map(|point| point.x.hypot(point.y)).fold(0.0, f64::max);
        let (unit, count) = rings(largest);
        let (center, scale) = (SIZE / 2.0, RADIUS / (unit * f64::from(count)));
        let rounded = |x: f64| (x * 100.0).round() / 100.0;
        let ring = |at: u32| {
            let radius = rounded(f64::from(at) * unit * scale);
            RingView { radius, text: number(f64::from(at) * unit), label_y: center - radius - 3.0 }
        };
        let point = |point: &Point| PointView {
            x: rounded(center + point.x * scale),
            y: rounded(center - point.y * scale),
            note: point.note.clone(),
        };
        Ok(ScatterView {
            size: SIZE,
            center,
            x_axis: self.x_axis.clone(),
            y_axis: self.y_axis.clone(),
            label: format!("{} points; the circles are at multiples of {}", self.points.len(), number(unit)),
            rings: (1..=count).map(ring).collect(),
            points: self.points.iter().map(point).collect(),
        })
    }
}

/// A round unit and how many of it cover `largest`.
fn rings(largest: f64) -> (f64, u32) {
    if largest <= 0.0 {
        return (1.0, 1);
    }
    let power = 10f64.powf(largest.log10().floor());
    let unit = [0.2, 0.5, 1.0, 2.0].map(|unit| unit * power).into_iter().find(|unit| largest / unit <= 4.0);
    let unit = unit.unwrap_or(5.0 * power);
    (unit, (largest / unit).ceil().clamp(1.0, 4.0) as u32)
}

/// A round number without what rounding left behind it.
fn number(x: f64) -> String {
    let text = format!("{x:.3e}");
    text.parse::<f64>()
        .map_or(text, |x| if (1e-4..1e6).contains(&x) { x.to_string() } else { format!("{x:e}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_round_and_cover_everything() {
        for largest in [1e-9, 0.019, 0.5, 0.99, 1.0, 3.7, 4.1, 9.9, 123.0, 4.2e7] {
            let (unit, count) = rings(largest);
            assert!(unit * f64::from(count) >= largest * (1.0 - 1e-12), "{largest}: {unit} × {count}");
            assert!(unit * f64::from(count - 1) < largest && count <= 4, "{largest}: {unit} × {count}");
        }
        assert_eq!([number(0.2 + 0.4), number(2e7), number(40.0)], ["0.6", "2e7", "40"]);
    }

    #[test]
    fn points_are_inside_and_right_side_up() {
        let point = |x, y| Point { x, y, note: String::new() };
        let scatter = Scatter { points: vec![point(-3.0, 0.0), point(0.0, 1.0)], ..Scatter::default() };
        let view = scatter.view("A").unwrap();
        assert!(view.points[0].x < view.center && view.points[1].y < view.center);
        assert!(
            view.points
                .iter()
                .all(|point| (0.0..=SIZE).contains(&point.x) && (0.0..=SIZE).contains(&point.y))
        );
        let bad = Scatter { points: vec![point(f64::NAN, 0.0)], ..Scatter::default() };
        assert!(matches!(bad.view("A"), Err(VizError::NotFinite { .. })));
        assert!(matches!(Scatter::default().view("A"), Err(VizError::Empty { .. })));
    }
}
