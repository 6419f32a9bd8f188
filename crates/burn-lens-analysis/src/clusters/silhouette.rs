//! How well clusters stand apart.

use super::{Rows, rows::squared_distance};
use crate::AnalysisError;

/// The silhouette of each row (Rousseeuw, 1987): `(b - a) / max(a, b)`, where `a` is its mean
/// distance to the others of its cluster and `b` that to the nearest other cluster; 0 for a row
/// that is alone.
///
/// # Errors
///
/// If there are not as many labels as rows, or fewer than two clusters, or as many as rows.
pub fn silhouette_samples(rows: &Rows, labels: &[usize]) -> Result<Vec<f64>, AnalysisError> {
    let refuse = |reason: String| AnalysisError::Refused { what: "the silhouette", reason };
    if labels.len() != rows.len() {
        return Err(refuse(format!("{} labels do not fit {} rows", labels.len(), rows.len())));
    }
    let mut clusters = labels.to_vec();
    clusters.sort_unstable();
    clusters.dedup();
    if clusters.len() < 2 || clusters.len() >= rows.len() {
        let reason = format!(
            "it needs 2 to {} clusters of {} rows, found {}",
            rows.len().max(1) - 1,
            rows.len(),
            clusters.len()
        );
        return Err(refuse(reason));
    }
    let size = |cluster: usize| labels.iter().filter(|&&label| label == cluster).count();
    let sample = |(at, row): (usize, &[f64])| {
        let own = labels[at];
        if size(own) == 1 {
            return 0.0;
        }
        let to = |cluster: usize| -> f64 {
            let members = rows.iter().zip(labels).filter(|(_, label)| **label == cluster);
            members.map(|(other, _)| squared_distance(row, other).sqrt()).sum()
        };
        let a = to(own) / (size(own) - 1) as f64;
        let others = clusters.iter().filter(|&&cluster| cluster != own);
        let b = others.map(|&cluster| to(cluster) / size(cluster) as f64).fold(f64::INFINITY, f64::min);
        if a.max(b) > 0.0 { (b - a) / a.max(b) } else { 0.0 }
    };
    Ok(rows.iter().enumerate().map(sample).collect())
}

/// The mean of [`silhouette_samples`], from -1 to 1.
///
/// # Errors
///
/// As [`silhouette_samples`].
pub fn silhouette(rows: &Rows, labels: &[usize]) -> Result<f64, AnalysisError> {
    let samples = silhouette_samples(rows, labels)?;
    Ok(samples.iter().sum::<f64>() / samples.len() as f64)
}
