//! k-means: Lloyd's iteration from k-means++ starts.

use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Rows, rows::squared_distance};
use crate::AnalysisError;

/// How to cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KMeansOptions {
    /// How many clusters.
    pub k: usize,
    /// How many starts; the best result is kept.
    pub n_init: usize,
    /// Iterations of one start at most.
    pub max_iter: usize,
    /// Where starts come from.
    pub seed: u64,
}

impl Default for KMeansOptions {
    fn default() -> Self {
        Self { k: 2, n_init: 10, max_iter: 300, seed: 0 }
    }
}

/// Clusters of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct KMeans {
    /// The cluster of each row; clusters are numbered in the order in which rows meet them.
    pub labels: Vec<usize>,
    /// `[k][width]`
    pub centers: Vec<Vec<f64>>,
    /// The sum of squared distances to the centers.
    pub inertia: f64,
}

/// Clusters rows so that the sum of squared distances to the clusters' means is small: the best
/// of `n_init` runs of Lloyd's iteration, each from a greedy k-means++ start (Arthur and
/// Vassilvitskii, 2007), as scikit-learn does.
///
/// ```
/// use burn_lens_analysis::clusters::{KMeansOptions, Rows, k_means};
/// let rows = Rows::new(vec![0.0, 0.1, 5.0, 5.1], 1)?;
/// let found = k_means(&rows, &KMeansOptions::default())?;
/// assert_eq!(found.labels, [0, 0, 1, 1]);
/// assert!((found.inertia - 0.01).abs() < 1e-12);
/// # Ok::<(), burn_lens_analysis::AnalysisError>(())
/// ```
///
/// # Errors
///
/// If there are fewer different rows than clusters, or `k`, `n_init` or `max_iter` is 0.
pub fn k_means(rows: &Rows, options: &KMeansOptions) -> Result<KMeans, AnalysisError> {
    let KMeansOptions { k, n_init, max_iter, seed } = *options;
    let refuse = |reason: String| AnalysisError::Refused { what: "k-means", reason };
    if k == 0 || n_init == 0 || max_iter == 0 {
        return Err(refuse("k, n_init and max_iter must be at least 1".to_owned()));
    }
    if rows.len() < k {
        return Err(refuse(format!("{} rows cannot make {k} clusters", rows.len())));
    }
    let distinct = rows.distinct();
    if distinct < k {
        return Err(refuse(format!(
            "only {distinct} of {} rows differ, too few for {k} clusters",
            rows.len()
        )));
    }
    let mut best: Option<KMeans> = None;
    for start in 0..n_init {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(start as u64);
        let found = lloyd(rows, plus_plus(rows, k, &mut rng), max_iter);
        if best.as_ref().is_none_or(|best| found.inertia < best.inertia) {
            best = Some(found);
        }
    }
    best.as_ref().map(ordered).ok_or_else(|| refuse("no start was made".to_owned()))
}

/// Centers drawn among rows, each the best of a few candidates drawn by squared distance.
fn plus_plus(rows: &Rows, k: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    let candidates = 2 + (k as f64).ln() as usize;
    let first = rows.row(rng.random_range(0..rows.len()));
    let mut centers = vec![first.to_vec()];
    let mut nearest: Vec<f64> = rows.iter().map(|row| squared_distance(row, first)).collect();
    while centers.len() < k {
        let total: f64 = nearest.iter().sum();
        let draw = |rng: &mut ChaCha8Rng| {
            let mut left = rng.random::<f64>() * total;
            let chosen = nearest.iter().position(|distance| {
                left -= distance;
                left < 0.0
            });
            // Rounding may leave a little; the last row that is no center yet will do.
            chosen.or_else(|| nearest.iter().rposition(|&distance| distance > 0.0)).unwrap_or(0)
        };
        let drawn: Vec<usize> = (0..candidates).map(|_| draw(rng)).collect();
        let with = |candidate: usize| -> Vec<f64> {
            let center = rows.row(candidate);
            rows.iter().zip(&nearest).map(|(row, &d)| d.min(squared_distance(row, center))).collect()
        };
        let tried = drawn.into_iter().map(|candidate| (candidate, with(candidate)));
        let best = tried.min_by(|(_, a), (_, b)| a.iter().sum::<f64>().total_cmp(&b.iter().sum()));
        let Some((chosen, distances)) = best else { break };
        centers.push(rows.row(chosen).to_vec());
        nearest = distances;
    }
    centers
}

fn lloyd(rows: &Rows, mut centers: Vec<Vec<f64>>, max_iter: usize) -> KMeans {
    let mut labels = assigned(rows, &centers);
    for _ in 0..max_iter {
        centers = means(rows, &labels, centers.len());
        let next = assigned(rows, &centers);
        if next == labels {
            break;
        }
        labels = next;
    }
    let inertia = rows.iter().zip(&labels).map(|(row, &label)| squared_distance(row, &centers[label])).sum();
    KMeans { labels, centers, inertia }
}

/// The nearest center of each row. A center that no row is nearest to takes the row that lies
/// farthest from its own, if that one is not alone.
fn assigned(rows: &Rows, centers: &[Vec<f64>]) -> Vec<usize> {
    let distance = |row: &[f64], center: usize| squared_distance(row, &centers[center]);
    let nearest = |row: &[f64]| {
        (0..centers.len()).min_by(|&a, &b| distance(row, a).total_cmp(&distance(row, b))).unwrap_or(0)
    };
    let mut labels: Vec<usize> = rows.iter().map(nearest).collect();
    for center in 0..centers.len() {
        if labels.contains(&center) {
            continue;
        }
        let alone = |label: usize| labels.iter().filter(|&&other| other == label).count() == 1;
        let farthest = (0..rows.len())
            .filter(|&row| !alone(labels[row]))
            .max_by(|&a, &b| distance(rows.row(a), labels[a]).total_cmp(&distance(rows.row(b), labels[b])));
        if let Some(row) = farthest {
            labels[row] = center;
        }
    }
    labels
}

fn means(rows: &Rows, labels: &[usize], k: usize) -> Vec<Vec<f64>> {
    let mut sums = vec![vec![0.0; rows.width()]; k];
    let mut counts = vec![0usize; k];
    for (row, &label) in rows.iter().zip(labels) {
        counts[label] += 1;
        sums[label].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    for (sum, count) in sums.iter_mut().zip(counts) {
        for x in sum.iter_mut() {
            *x /= count.max(1) as f64;
        }
    }
    sums
}

/// With clusters numbered in the order in which rows meet them.
fn ordered(found: &KMeans) -> KMeans {
    let mut order: Vec<usize> = Vec::new();
    for &label in &found.labels {
        if !order.contains(&label) {
            order.push(label);
        }
    }
    order.extend((0..found.centers.len()).filter(|label| !order.contains(label)).collect::<Vec<_>>());
    let number = |label: &usize| order.iter().position(|other| other == label).unwrap_or(0);
    KMeans {
        labels: found.labels.iter().map(number).collect(),
        centers: order.iter().map(|&label| found.centers[label].clone()).collect(),
        inertia: found.inertia,
    }
}
