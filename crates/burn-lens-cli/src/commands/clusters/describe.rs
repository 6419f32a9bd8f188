//! What was found, in words and tables.

use burn_lens::analysis::clusters::{HeadClusters, Literal, RoleClusters};
use burn_lens_viz::{Line, LinePlot};

use super::Place;
use crate::{
    error::CliError,
    report::{Align, Report, table},
};

/// Columns, whether they are numbers, and rows.
pub(super) struct Table {
    pub(super) columns: Vec<(String, Align)>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    fn text(&self) -> String {
        let columns: Vec<(&str, Align)> =
            self.columns.iter().map(|(name, align)| (name.as_str(), *align)).collect();
        table(&columns, &self.rows)
    }
}

/// Both kinds of queries, by name, and whether their inputs hold `y`.
pub(super) fn roles(clusters: &HeadClusters) -> [(&'static str, &RoleClusters); 2] {
    [("x", &clusters.x), ("y", &clusters.y)]
}

/// One place, in full.
pub(super) fn one(place: &Place<'_>, clusters: &HeadClusters, report: &mut Report) -> Result<(), CliError> {
    report.heading(place.title());
    report.text.push_str(&sweep_plot("Silhouette", clusters).to_text(48, 6)?);
    for (name, role) in roles(clusters) {
        report.heading(headline(name, role));
        report.text.push_str(&members(place, role).text());
        report.line(format_args!("\n{}", explained(role)));
        report.text.push_str(&coefficients(place, role).text());
    }
    report.heading("Pathways: mean attention from clusters (rows) to clusters (columns)");
    for (layer, attention) in clusters.pathways.iter().enumerate() {
        report.text.push_str(&pathway(layer, attention, clusters).text());
    }
    Ok(())
}

/// `x queries: 3 clusters (silhouette 0.52)`
pub(super) fn headline(name: &str, role: &RoleClusters) -> String {
    let score = role.silhouettes.iter().find(|(k, _)| *k == role.k).map_or(0.0, |(_, score)| *score);
    format!("{name} queries: {} clusters, silhouette {score:.3}", role.k)
}

/// What the column of signs holds.
pub(super) fn signs() -> &'static str {
    "Signs are those that members share: how many of them, and in parentheses how many of all examples."
}

/// How well the inputs tell the clusters apart.
pub(super) fn explained(role: &RoleClusters) -> String {
    format!(
        "A linear classifier on the inputs puts {:.0} % of the rows into their cluster. Its coefficients:",
        100.0 * role.explanation.accuracy
    )
}

/// A line for each place.
pub(super) fn many(places: &[Place<'_>], report: &mut Report) {
    report.text.push_str(&summary(places).text());
}

pub(super) fn summary(places: &[Place<'_>]) -> Table {
    let columns = ["place", "k of x", "silhouette", "accuracy", "k of y", "silhouette", "accuracy"];
    let columns = columns
        .iter()
        .enumerate()
        .map(|(at, name)| ((*name).to_owned(), if at == 0 { Align::Left } else { Align::Right }));
    let row = |place: &Place<'_>| {
        let mut row = vec![place.title()];
        match &place.swept.clusters {
            Err(error) => row.push(error.to_string()),
            Ok(clusters) => {
                for (_, role) in roles(clusters) {
                    let best = role.silhouettes.iter().find(|(k, _)| *k == role.k);
                    let score = best.map_or(0.0, |(_, score)| *score);
                    row.push(role.k.to_string());
                    row.push(format!("{score:.3}"));
                    row.push(format!("{:.2}", role.explanation.accuracy));
                }
            }
        }
        row
    };
    Table { columns: columns.collect(), rows: places.iter().map(row).collect() }
}

/// Who is in each cluster, and the signs that they share.
pub(super) fn members(place: &Place<'_>, role: &RoleClusters) -> Table {
    let columns = [
        ("cluster", Align::Right),
        ("examples", Align::Left),
        ("signs that they share (share of all examples)", Align::Left),
    ];
    let row = |(at, cluster): (usize, &burn_lens::analysis::clusters::Cluster)| {
        let members: Vec<String> = cluster.members.iter().map(ToString::to_string).collect();
        let literals: Vec<String> = cluster.literals.iter().map(|found| literal(place, found)).collect();
        let literals = if literals.is_empty() { "none".to_owned() } else { literals.join(", ") };
        vec![at.to_string(), members.join(" "), literals]
    };
    Table {
        columns: columns.map(|(name, align)| (name.to_owned(), align)).to_vec(),
        rows: role.clusters.iter().enumerate().map(row).collect(),
    }
}

/// `x1 ≥ 0: 100 % (of all 56 %)`
fn literal(place: &Place<'_>, found: &Literal) -> String {
    let sign = if found.positive { "≥" } else { "<" };
    let name = input(place, found.input);
    format!("{name} {sign} 0: {:.0} % ({:.0} %)", 100.0 * found.share, 100.0 * found.base)
}

/// The name of an input: `x0` and on, `y` behind them.
fn input(place: &Place<'_>, index: usize) -> String {
    if index < place.x.first().map_or(0, Vec::len) { format!("x{index}") } else { "y".to_owned() }
}

/// What of the inputs speaks for each cluster; of two clusters, for the second.
pub(super) fn coefficients(place: &Place<'_>, role: &RoleClusters) -> Table {
    let explanation = &role.explanation;
    let width = explanation.coefficients.first().map_or(0, Vec::len);
    let inputs = (0..width).map(|at| (input(place, at), Align::Right));
    let columns = [("for".to_owned(), Align::Left)].into_iter().chain(inputs);
    let columns = columns.chain([("intercept".to_owned(), Align::Right)]).collect();
    let two = explanation.coefficients.len() == 1;
    let rows = explanation.coefficients.iter().zip(&explanation.intercepts).enumerate();
    let row = |(at, (w, b)): (usize, (&Vec<f64>, &f64))| {
        let name = if two { "cluster 1, not 0".to_owned() } else { format!("cluster {at}") };
        [name].into_iter().chain(w.iter().chain([b]).map(|value| format!("{value:+.3}"))).collect()
    };
    Table { columns, rows: rows.map(row).collect() }
}

/// The names of the clusters, those of x queries first.
pub(super) fn groups(clusters: &HeadClusters) -> Vec<String> {
    let names = roles(clusters).map(|(name, role)| (0..role.k).map(move |at| format!("{name} {at}")));
    names.into_iter().flatten().collect()
}

fn pathway(layer: usize, attention: &[Vec<f64>], clusters: &HeadClusters) -> Table {
    let names = groups(clusters);
    let columns = [(format!("layer {layer}"), Align::Left)];
    let columns = columns.into_iter().chain(names.iter().map(|name| (name.clone(), Align::Right)));
    let row = |(name, row): (&String, &Vec<f64>)| {
        [name.clone()].into_iter().chain(row.iter().map(|value| format!("{value:.2}"))).collect()
    };
    Table { columns: columns.collect(), rows: names.iter().zip(attention).map(row).collect() }
}

/// Silhouettes by the number of clusters.
pub(super) fn sweep_plot(title: &str, clusters: &HeadClusters) -> LinePlot {
    let line = |(name, role): (&str, &RoleClusters)| Line {
        name: format!("{name} queries"),
        points: role.silhouettes.iter().map(|&(k, score)| (k as f64, score)).collect(),
    };
    LinePlot {
        title: title.to_owned(),
        x_label: "number of clusters".to_owned(),
        y_label: "silhouette".to_owned(),
        log: false,
        lines: roles(clusters).map(line).to_vec(),
    }
}
