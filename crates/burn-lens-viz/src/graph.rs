//! A graph in rows, such as a circuit: what reads stands above what it reads.

use std::{collections::HashMap, fmt::Write as _};

use crate::{Figure, VizError, error::finite};

mod route;

use route::{Place, route};

/// Parts in rows, from the bottom up, and what goes from one to another.
///
/// ```
/// use burn_lens_viz::{Graph, GraphEdge, GraphRow};
///
/// let row = |label: &str, nodes: &[&str]| GraphRow {
///     label: label.to_owned(),
///     nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
/// };
/// let edge = GraphEdge { from: "embed".to_owned(), to: "L0H1".to_owned(), port: "v".to_owned(), value: -2.5 };
/// let graph = Graph {
///     title: "A circuit".to_owned(),
///     rows: vec![row("embedding", &["embed"]), row("attention 0", &["L0H0", "L0H1"])],
///     edges: vec![edge],
///     signs: ["raises".to_owned(), "lowers".to_owned()],
/// };
/// assert!(graph.to_svg()?.starts_with("<svg"));
/// # Ok::<(), burn_lens_viz::VizError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Above it.
    pub title: String,
    /// The rows, the lowest first. Nodes without an edge, and rows without a node that has one, are
    /// not drawn.
    pub rows: Vec<GraphRow>,
    /// What goes up from one node to another.
    pub edges: Vec<GraphEdge>,
    /// What edges of positive and of negative value are called in the legend.
    pub signs: [String; 2],
}

/// One row of a [`Graph`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphRow {
    /// Beside it.
    pub label: String,
    /// Names of its nodes, from left to right; a name stands for one node of the graph.
    pub nodes: Vec<String>,
}

/// One edge of a [`Graph`], the wider and the stronger in color the larger its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphEdge {
    /// A node.
    pub from: String,
    /// A node of a higher row.
    pub to: String,
    /// Where it enters that node, written at its foot; nothing for the middle.
    pub port: String,
    /// Its color is by sign, its width by magnitude.
    pub value: f64,
}

/// Sizes in pixels.
const NODE: [f64; 2] = [76.0, 30.0];
const GAP: f64 = 40.0;
const ROW: f64 = 96.0;
const MARGIN: [f64; 2] = [24.0, 78.0];
/// Of a character of the labels, about.
const LETTER: f64 = 7.3;

/// Positive and negative: apart for every kind of color vision (Okabe and Ito, 2008).
const COLORS: [&str; 2] = ["#d55e00", "#0072b2"];

/// Where everything stands.
struct Layout<'g> {
    size: [f64; 2],
    rows: Vec<(&'g str, f64)>,
    places: HashMap<&'g str, Place>,
    /// For each node the names of its ports, in the order of their names.
    ports: HashMap<&'g str, Vec<&'g str>>,
}

impl Graph {
    /// The picture as the text of an SVG file.
    ///
    /// # Errors
    ///
    /// If there is no edge, an edge names a node that is in no row or does not lead upward, or a value
    /// is not finite.
    pub fn to_svg(&self) -> Result<String, VizError> {
        let layout = self.layout()?;
        let [width, height] = layout.size;
        let mut svg = format!(
            "<svg class=\"graph\" xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace, monospace\" font-size=\"12\" \
             fill=\"#1b1f24\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<text x=\"24\" y=\"30\" font-family=\"system-ui, sans-serif\" font-size=\"17\" font-weight=\"600\">{}</text>",
            escaped(&self.title)
        );
        self.legend(&mut svg);
        for (label, y) in &layout.rows {
            let _ = writeln!(
                svg,
                "<line x1=\"24\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#eceff3\"/>\
                 <text x=\"24\" y=\"{:.1}\" fill=\"#5b6470\" font-family=\"system-ui, sans-serif\">{}</text>",
                width - 24.0,
                y - 6.0,
                escaped(label)
            );
        }
        self.draw_edges(&layout, &mut svg);
        draw_nodes(&layout, &mut svg);
        svg.push_str("</svg>\n");
        Ok(svg)
    }

    /// The picture for a page; `alt` says in words what it shows.
    ///
    /// # Errors
    ///
    /// As [`Graph::to_svg`].
    pub fn figure(&self, alt: &str) -> Result<Figure, VizError> {
        Ok(Figure { svg: self.to_svg()?, alt: alt.to_owned() })
    }

    fn layout(&self) -> Result<Layout<'_>, VizError> {
        let values: Vec<f64> = self.edges.iter().map(|edge| edge.value).collect();
        finite(|| format!("the edges of {:?}", self.title), &values)?;
        if self.edges.is_empty() {
            return Err(VizError::Empty { what: format!("the graph {:?}", self.title) });
        }
        let used = |name: &str| self.edges.iter().any(|edge| edge.from == name || edge.to == name);
        let rows: Vec<(&str, Vec<&str>)> = self
            .rows
            .iter()
            .map(|row| {
                (row.label.as_str(), row.nodes.iter().map(String::as_str).filter(|name| used(name)).collect())
            })
            .filter(|(_, nodes): &(&str, Vec<&str>)| !nodes.is_empty())
            .collect();
        let label = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        let left = MARGIN[0] + label as f64 * LETTER + GAP;
        let most = rows.iter().map(|(_, nodes)| nodes.len()).max().unwrap_or(1) as f64;
        let inner = most * NODE[0] + (most - 1.0) * GAP;
        let legend: f64 = self.signs.iter().map(|sign| 51.0 + sign.chars().count() as f64 * LETTER).sum();
        let title = self.title.chars().count() as f64 * 10.0 + 48.0;
        let width = (left + inner + GAP + MARGIN[0]).max(title).max(24.0 + legend).max(430.0);
        let center = left + (width - left - GAP - MARGIN[0]) / 2.0;
        let height = MARGIN[1] + rows.len() as f64 * ROW - (ROW - NODE[1]) + MARGIN[0] + 8.0;
        let mut layout =
            Layout { size: [width, height], rows: Vec::new(), places: HashMap::new(), ports: HashMap::new() };
        for (row, (label, nodes)) in rows.iter().enumerate() {
            let y = height - MARGIN[0] - 8.0 - NODE[1] / 2.0 - row as f64 * ROW;
            layout.rows.push((label, y));
            let span = nodes.len() as f64 * (NODE[0] + GAP) - GAP;
            for (at, node) in nodes.iter().enumerate() {
                let x = center - span / 2.0 + NODE[0] / 2.0 + at as f64 * (NODE[0] + GAP);
                layout.places.insert(node, Place { row, x, y });
            }
        }
        for edge in &self.edges {
            self.check(edge, &layout.places)?;
            let ports = layout.ports.entry(&edge.to).or_default();
            if !ports.contains(&edge.port.as_str()) {
                ports.push(&edge.port);
                ports.sort_by_key(|&port| order(port));
            }
        }
        Ok(layout)
    }

    fn check(&self, edge: &GraphEdge, places: &HashMap<&str, Place>) -> Result<(), VizError> {
        let place = |name: &String| {
            let missing = || VizError::NoSuchNode { title: self.title.clone(), node: name.clone() };
            places.get(name.as_str()).ok_or_else(missing)
        };
        if place(&edge.from)?.row < place(&edge.to)?.row {
            return Ok(());
        }
        let (title, from, to) = (self.title.clone(), edge.from.clone(), edge.to.clone());
        Err(VizError::Downward { title, from, to })
    }

    fn legend(&self, svg: &mut String) {
        let mut x = 24.0;
        for (color, name) in COLORS.iter().zip(&self.signs) {
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.0}\" x2=\"{:.0}\" y1=\"50\" y2=\"50\" stroke=\"{color}\" stroke-width=\"4\"/>\
                 <text x=\"{:.0}\" y=\"54\" fill=\"#5b6470\" font-family=\"system-ui, sans-serif\">{}</text>",
                x + 22.0,
                x + 29.0,
                escaped(name)
            );
            x += 29.0 + name.chars().count() as f64 * LETTER + 22.0;
        }
    }

    fn draw_edges(&self, layout: &Layout<'_>, svg: &mut String) {
        let largest = self.edges.iter().fold(0.0f64, |largest, edge| largest.max(edge.value.abs()));
        let mut edges: Vec<&GraphEdge> = self.edges.iter().collect();
        // The strongest on top.
        edges.sort_by(|a, b| a.value.abs().total_cmp(&b.value.abs()));
        let places: Vec<Place> = layout.places.values().copied().collect();
        svg.push_str("<g fill=\"none\" stroke-linecap=\"round\">\n");
        for (lane, edge) in edges.into_iter().enumerate() {
            let share = if largest > 0.0 { edge.value.abs() / largest } else { 0.0 };
            let (from, to) = (layout.places[edge.from.as_str()], layout.places[edge.to.as_str()]);
            let start = [from.x, from.y - NODE[1] / 2.0];
            let end = [layout.port_x(edge), to.y + NODE[1] / 2.0];
            let path = route(start, end, (from.row, to.row), &places, lane);
            let port = if edge.port.is_empty() { String::new() } else { format!(".{}", edge.port) };
            let _ = writeln!(
                svg,
                "<path class=\"edge\" d=\"{path}\" stroke=\"{}\" stroke-width=\"{:.2}\" stroke-opacity=\"{:.2}\">\
                 <title>{} → {}{}: {:+.4}</title></path>",
                COLORS[usize::from(edge.value < 0.0)],
                1.2 + 5.8 * share,
                0.4 + 0.5 * share,
                escaped(&edge.from),
                escaped(&edge.to),
                escaped(&port),
                edge.value
            );
        }
        svg.push_str("</g>\n");
    }
}

impl Layout<'_> {
    /// Where an edge enters its node.
    fn port_x(&self, edge: &GraphEdge) -> f64 {
        let place = self.places[edge.to.as_str()];
        let ports = &self.ports[edge.to.as_str()];
        let at = ports.iter().position(|&port| port == edge.port).unwrap_or(0);
        place.x + NODE[0] * ((at as f64 + 0.5) / ports.len() as f64 - 0.5)
    }
}

fn draw_nodes(layout: &Layout<'_>, svg: &mut String) {
    let mut nodes: Vec<(&str, Place)> = layout.places.iter().map(|(&name, &place)| (name, place)).collect();
    nodes.sort_by_key(|&(name, place)| (place.row, name));
    let [width, height] = NODE;
    for (name, Place { x, y, .. }) in nodes {
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#f5f6f8\" \
             stroke=\"#5b6470\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x - width / 2.0,
            y - height / 2.0,
            y + 4.0,
            escaped(name)
        );
        let ports = layout.ports.get(name).map_or(&[][..], Vec::as_slice);
        for (at, port) in ports.iter().enumerate() {
            let x = x + width * ((at as f64 + 0.5) / ports.len() as f64 - 0.5);
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#5b6470\" font-size=\"10\" stroke=\"#ffffff\" \
                 stroke-width=\"3\" paint-order=\"stroke\">{}</text>",
                x + 8.0,
                y + height / 2.0 + 11.0,
                escaped(port)
            );
        }
    }
}

/// Queries, keys, values, as they are said; other names by letter.
fn order(port: &str) -> (usize, &str) {
    (["q", "k", "v"].iter().position(|&known| known == port).unwrap_or(3), port)
}

/// Text for SVG; what XML does not allow is left out.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            forbidden if forbidden.is_control() || matches!(forbidden, '\u{fffe}' | '\u{ffff}') => {}
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests;
