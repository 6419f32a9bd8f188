//! The way of an edge, past the nodes of the rows between.

use std::fmt::Write as _;

use super::{GAP, NODE, ROW};

/// Where a node stands: its row, and its center.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) x: f64,
    pub(super) y: f64,
}

/// A path in SVG's language from `start` up to `end`, through the gaps of the rows between `rows`. Edges
/// of neighboring `lane`s do not run on one another.
pub(super) fn route(
    start: [f64; 2],
    end: [f64; 2],
    rows: (usize, usize),
    places: &[Place],
    lane: usize,
) -> String {
    let mut points = vec![start];
    for row in rows.0 + 1..rows.1 {
        let here: Vec<&Place> = places.iter().filter(|place| place.row == row).collect();
        let Some(y) = here.first().map(|place| place.y) else { continue };
        let share = (start[1] - y) / (start[1] - end[1]);
        let straight = start[0] + (end[0] - start[0]) * share;
        let x = beside(straight, here.iter().map(|place| place.x), lane);
        points.push([x, y + NODE[1] / 2.0]);
        points.push([x, y - NODE[1] / 2.0]);
    }
    points.push(end);
    let mut path = format!("M{:.1} {:.1}", start[0], start[1]);
    for pair in points.windows(2) {
        let [[x0, y0], [x1, y1]] = [pair[0], pair[1]];
        // Writing to a string does not fail.
        let _ = if x0 == x1 {
            write!(path, "V{y1:.1}")
        } else {
            let bend = ((y0 - y1) * 0.5).max(ROW * 0.1);
            write!(path, "C{x0:.1} {:.1} {x1:.1} {:.1} {x1:.1} {y1:.1}", y0 - bend, y1 + bend)
        };
    }
    path
}

/// `x`, or the nearest place beside a node that stands there.
fn beside(x: f64, nodes: impl Iterator<Item = f64>, lane: usize) -> f64 {
    const LANES: usize = 4;
    let clear = NODE[0] / 2.0 + GAP * 0.2;
    let step = GAP * 0.6 / LANES as f64;
    let aside = clear + (lane % LANES) as f64 * step;
    for node in nodes {
        if (x - node).abs() < clear {
            // Right before the node: half of the edges to either side.
            let left = x < node || (x == node && lane % 2 == 1);
            return if left { node - aside } else { node + aside };
        }
    }
    x
}
