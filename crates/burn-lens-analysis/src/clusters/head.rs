//! One head on one sequence: clusters of its rows, chosen, explained and related.

use std::ops::RangeInclusive;

use serde::Serialize;

use super::{
    KMeans, KMeansOptions, LinearExplanation, Literal, Quadrants, Role, Rows, cluster_attention,
    dominant_literals, k_means, silhouette,
};
use crate::AnalysisError;

/// How clusters are found and described.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterOptions {
    /// The numbers of clusters to choose from, by silhouette.
    pub k: RangeInclusive<usize>,
    /// Starts of k-means.
    pub n_init: usize,
    /// Where starts come from.
    pub seed: u64,
    /// The share of members from which a sign is dominant.
    pub threshold: f64,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { k: 2..=9, n_init: 10, seed: 0, threshold: 0.9 }
    }
}

/// One head on one sequence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadClusters {
    /// The rows of x queries.
    pub x: RoleClusters,
    /// The rows of y queries.
    pub y: RoleClusters,
    /// `[layers][groups][groups]`: [`cluster_attention`], mean over the heads of each layer,
    /// between the clusters of x queries and, behind those, of y queries.
    pub pathways: Vec<Vec<Vec<f64>>>,
}

/// The clusters of one kind of query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoleClusters {
    /// `(k, silhouette)` for each number of clusters that could be tried.
    pub silhouettes: Vec<(usize, f64)>,
    /// The number of the highest silhouette.
    pub k: usize,
    /// The cluster of each example's row.
    pub labels: Vec<usize>,
    /// What each is.
    pub clusters: Vec<Cluster>,
    /// What of the inputs tells the clusters apart: coefficients over `x`, and for y queries `y`
    /// behind them.
    pub explanation: LinearExplanation,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    /// The examples in it.
    pub members: Vec<usize>,
    /// The signs that they share.
    pub literals: Vec<Literal>,
}

/// Clusters the rows of one head's pattern, x and y queries apart; chooses the number of
/// clusters by silhouette; explains them by the inputs; and follows them through the layers.
///
/// # Shapes
///
/// - `layers`: by layer and head, each a pattern over `2n` positions
/// - `x`: `[n][width]`, `y`: `[n]`
///
/// # Errors
///
/// If the head is not there, shapes do not fit, or rows cannot be clustered: fewer than three,
/// or all the same.
pub fn attention_clusters(
    layers: &[Vec<Quadrants>],
    [layer, head]: [usize; 2],
    x: &[Vec<f64>],
    y: &[f64],
    options: &ClusterOptions,
) -> Result<HeadClusters, AnalysisError> {
    let heads =
        layers.get(layer).ok_or(AnalysisError::Layer { layer: layer as isize, n_layers: layers.len() })?;
    let pattern = heads.get(head).ok_or(AnalysisError::Head { head, n_heads: heads.len() })?;
    let n = pattern.examples();
    if x.len() != n || y.len() != n {
        let expected = format!("{n} inputs and targets, as the pattern has examples");
        return Err(AnalysisError::Shape { what: "the examples", expected, found: vec![x.len(), y.len()] });
    }
    let with_y: Vec<f64> = x.iter().zip(y).flat_map(|(x, y)| [x, &[*y][..]].concat()).collect();
    let width = x.first().map_or(0, Vec::len);
    let x_inputs = Rows::new(x.concat(), width)?;
    let y_inputs = Rows::new(with_y, width + 1)?;
    let of_x = role(&pattern.rows(Role::X)?, &x_inputs, options)?;
    let of_y = role(&pattern.rows(Role::Y)?, &y_inputs, options)?;
    let groups: Vec<usize> =
        of_x.labels.iter().zip(&of_y.labels).flat_map(|(&x, &y)| [x, of_x.k + y]).collect();
    let pathways = layers.iter().map(|heads| mean_attention(heads, &groups, of_x.k + of_y.k)).collect();
    Ok(HeadClusters { x: of_x, y: of_y, pathways })
}

fn role(rows: &Rows, inputs: &Rows, options: &ClusterOptions) -> Result<RoleClusters, AnalysisError> {
    let most = rows.distinct().min(rows.len().saturating_sub(1));
    let mut found: Vec<(KMeans, f64)> = Vec::new();
    for k in options.k.clone().filter(|&k| (2..=most).contains(&k)) {
        let settings =
            KMeansOptions { k, n_init: options.n_init, seed: options.seed, ..KMeansOptions::default() };
        let clusters = k_means(rows, &settings)?;
        let score = silhouette(rows, &clusters.labels)?;
        found.push((clusters, score));
    }
    let silhouettes = found.iter().map(|(clusters, score)| (clusters.centers.len(), *score)).collect();
    // The first of the highest, as argmax.
    let best = found.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best });
    let Some((KMeans { labels, centers, .. }, _)) = best else {
        let (start, end) = (options.k.start(), options.k.end());
        let reason = format!(
            "{} rows, {} of them different, cannot be put into {start} to {end} clusters",
            rows.len(),
            rows.distinct()
        );
        return Err(AnalysisError::Refused { what: "clusters of attention", reason });
    };
    let explanation = LinearExplanation::fit(inputs, &labels)?;
    let cluster = |cluster: usize| {
        let members: Vec<usize> = (0..labels.len()).filter(|&row| labels[row] == cluster).collect();
        let literals = dominant_literals(inputs, &members, options.threshold);
        Cluster { members, literals }
    };
    let k = centers.len();
    Ok(RoleClusters { silhouettes, k, clusters: (0..k).map(cluster).collect(), labels, explanation })
}

fn mean_attention(heads: &[Quadrants], groups: &[usize], count: usize) -> Vec<Vec<f64>> {
    let mut mean = vec![vec![0.0; count]; count];
    for head in heads {
        for (sums, row) in mean.iter_mut().zip(cluster_attention(head.pattern(), groups, count)) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / heads.len() as f64);
        }
    }
    mean
}
