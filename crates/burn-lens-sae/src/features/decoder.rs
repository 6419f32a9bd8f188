//! What a decoder direction is made of.

use super::{Aligned, kernels::Largest};

/// The largest weights of a decoder direction, by magnitude, with their signs.
pub(super) fn alignment(row: &[f32], k: usize) -> Vec<Aligned> {
    let total: f64 = row.iter().map(|x| f64::from(x.abs())).filter(|x| x.is_finite()).sum();
    let mut largest = Largest::new(k);
    (0..).zip(row).filter(|(_, x)| **x != 0.0).for_each(|(at, &x)| largest.offer(at, x.abs()));
    let aligned = |&(index, size): &(u32, f32)| Aligned {
        index: index as usize,
        value: row[index as usize],
        l1_share: f64::from(size) / total,
    };
    largest.found.iter().map(aligned).collect()
}

/// The share of each head in the sum of the heads' norms.
pub(super) fn head_shares(row: &[f32], n_heads: usize) -> Vec<f64> {
    if n_heads == 0 || !row.len().is_multiple_of(n_heads) {
        return Vec::new();
    }
    let norm = |head: &[f32]| head.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let norms: Vec<f64> = row.chunks_exact(row.len() / n_heads).map(norm).collect();
    let total: f64 = norms.iter().sum();
    norms.into_iter().map(|norm| if total > 0.0 { norm / total } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    pub(super) fn alignment_is_by_magnitude_and_keeps_the_sign() {
        let aligned = alignment(&[1.0, -5.0, 0.0, 2.0], 2);
        assert_eq!(aligned.iter().map(|a| (a.index, a.value)).collect::<Vec<_>>(), [(1, -5.0), (3, 2.0)]);
        assert_eq!(aligned[0].l1_share, 0.625);
        assert!(alignment(&[0.0, 0.0], 1).is_empty());
    }

    #[test]
    fn heads_share_the_norm() {
        assert_eq!(head_shares(&[3.0, 4.0, 0.0, 5.0], 2), [0.5, 0.5]);
        assert_eq!(head_shares(&[0.0; 4], 2), [0.0, 0.0]);
        assert!(head_shares(&[1.0; 3], 2).is_empty());
    }
}
