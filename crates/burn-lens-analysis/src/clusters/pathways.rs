//! How much clusters attend to each other.

/// The mean attention from one group of positions to another: `[groups][groups]`, queries by
/// keys, where entry `(a, b)` is the mean over the queries of `a` of what they give to all keys
/// of `b` together. Where groups cover all positions, rows sum to 1.
///
/// Taken in every layer with the clusters of one head, it shows by which ways those clusters are
/// made and read. The definition is ours.
///
/// # Panics
///
/// If `pattern` is not `[positions · positions]`, with a group for each position.
#[must_use]
pub fn cluster_attention(pattern: &[f64], groups: &[usize], count: usize) -> Vec<Vec<f64>> {
    let side = groups.len();
    assert_eq!(pattern.len(), side * side, "a group for each position");
    let mut sums = vec![vec![0.0; count]; count];
    let mut queries = vec![0usize; count];
    for (row, &query) in pattern.chunks(side).zip(groups) {
        queries[query] += 1;
        row.iter().zip(groups).for_each(|(value, &key)| sums[query][key] += value);
    }
    for (row, count) in sums.iter_mut().zip(queries) {
        for value in row.iter_mut() {
            *value /= count.max(1) as f64;
        }
    }
    sums
}
