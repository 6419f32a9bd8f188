//! The largest eigenvalues of a symmetric matrix, with their eigenvectors.
//!
//! Decomposing the whole of it takes most of its time for vectors that nobody asked for. Here it is made
//! tridiagonal, eigenvalues are found by bisection, and vectors by inverse iteration, each kept orthogonal to
//! those before it: the way of LAPACK's `dsyevx`.

use faer::{
    Conj, Mat, MatRef, Par, Spec,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        evd::tridiag::{tridiag_in_place, tridiag_in_place_scratch},
        householder::{
            apply_block_householder_sequence_on_the_left_in_place_scratch,
            apply_block_householder_sequence_on_the_left_in_place_with_conj,
        },
    },
};

use crate::host::settle;

/// The `count` largest eigenvalues of `m`, descending, and their eigenvectors as columns; `m` is symmetric, and
/// its lower half is read. `None` where a whole decomposition is the faster or the safer way: many vectors, a
/// small matrix, or vectors that do not come out as eigenvectors.
pub(crate) fn leading_eigen(m: MatRef<'_, f64>, count: usize) -> Option<(Vec<f64>, Mat<f64>)> {
    /// Below this size a whole decomposition takes no time.
    const SMALLEST: usize = 64;
    /// Reflections that are applied at once.
    const BLOCK: usize = 32;
    let n = m.nrows();
    if n < SMALLEST || count > n / 4 {
        return None;
    }
    // Entries of at most 1, so that no square is too large or too small.
    let scale = m.norm_max();
    if !scale.is_normal() {
        return None;
    }
    let mut reduced = Mat::from_fn(n, n, |i, j| m[(i, j)] / scale);
    let mut reflections = Mat::zeros(BLOCK, n - 1);
    let scratch = tridiag_in_place_scratch::<f64>(n, Par::Seq, Spec::default());
    let mut memory = MemBuffer::new(scratch);
    tridiag_in_place(
        reduced.as_mut(),
        reflections.as_mut(),
        Par::Seq,
        MemStack::new(&mut memory),
        Spec::default(),
    );
    settle();
    let tridiagonal = Tridiagonal {
        diagonal: (0..n).map(|i| reduced[(i, i)]).collect(),
        beside: (0..n - 1).map(|i| reduced[(i + 1, i)]).collect(),
    };
    let mut values: Vec<f64> = (0..count).map(|at| tridiagonal.largest(at)).collect();
    let vectors = tridiagonal.vectors(&values)?;
    let mut vectors = Mat::from_fn(n, count, |i, j| vectors[j][i]);
    let scratch = apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(n - 1, BLOCK, count);
    let mut memory = MemBuffer::new(scratch);
    apply_block_householder_sequence_on_the_left_in_place_with_conj(
        reduced.as_ref().submatrix(1, 0, n - 1, n - 1),
        reflections.as_ref(),
        Conj::No,
        vectors.as_mut().subrows_mut(1, n - 1),
        Par::Seq,
        MemStack::new(&mut memory),
    );
    settle();
    for value in &mut values {
        *value *= scale;
    }
    Some((values, vectors))
}

/// A symmetric tridiagonal matrix of at least two rows.
struct Tridiagonal {
    diagonal: Vec<f64>,
    /// Beside the diagonal, on either side.
    beside: Vec<f64>,
}

impl Tridiagonal {
    fn len(&self) -> usize {
        self.diagonal.len()
    }

    /// A row's neighbors of the diagonal, 0 where there are none.
    fn neighbors(&self, i: usize) -> [f64; 2] {
        let before = i.checked_sub(1).map_or(0.0, |i| self.beside[i]);
        [before, self.beside.get(i).copied().unwrap_or(0.0)]
    }

    /// The largest sum of magnitudes of a row: no eigenvalue is larger in magnitude.
    fn norm(&self) -> f64 {
        let row = |i: usize| self.diagonal[i].abs() + self.neighbors(i).map(f64::abs).iter().sum::<f64>();
        (0..self.len()).map(row).fold(0.0, f64::max)
    }

    /// How many eigenvalues are below `x`: the negative pivots of the decomposition of `T - x` (Sturm).
    fn below(&self, x: f64) -> usize {
        /// What a pivot of 0 is replaced by: its inverse is finite.
        const SMALLEST: f64 = 1e-290;
        let mut pivot = self.diagonal[0] - x;
        let mut count = 0;
        for i in 0..self.len() {
            if i > 0 {
                pivot = self.diagonal[i] - x - self.beside[i - 1] * self.beside[i - 1] / pivot;
            }
            if pivot.abs() < SMALLEST {
                pivot = -SMALLEST;
            }
            count += usize::from(pivot < 0.0);
        }
        count
    }

    /// The eigenvalue that `at` others are not smaller than.
    fn largest(&self, at: usize) -> f64 {
        let norm = self.norm();
        let wanted = self.len() - 1 - at;
        let (mut low, mut high) = (-norm * (1.0 + 1e-12), norm * (1.0 + 1e-12));
        loop {
            let middle = f64::midpoint(low, high);
            if middle <= low || middle >= high || high - low <= f64::EPSILON * norm * 0.5 {
                return middle;
            }
            if self.below(middle) > wanted { high = middle } else { low = middle }
        }
    }

    /// An eigenvector of length 1 for each of some eigenvalues, descending; `None` where one does not come out.
    fn vectors(&self, values: &[f64]) -> Option<Vec<Vec<f64>>> {
        /// Each iteration makes the error smaller by about the share of the eigenvalue's error in its
        /// distance from the others.
        const ITERATIONS: usize = 6;
        let (n, norm) = (self.len(), self.norm());
        let allowed = 10.0 * n as f64 * f64::EPSILON * norm;
        let mut found: Vec<Vec<f64>> = Vec::with_capacity(values.len());
        let mut state = 1_u64;
        for &value in values {
            let solver = self.shifted(value, norm);
            let mut x: Vec<f64> = (0..n)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
                })
                .collect();
            let mut done = false;
            for _ in 0..ITERATIONS {
                solver.solve(&mut x);
                // Twice: the first time leaves rounding of what it took away.
                for _ in 0..2 {
                    for other in &found {
                        let share = dot(&x, other);
                        x.iter_mut().zip(other).for_each(|(x, other)| *x -= share * other);
                    }
                    let length = dot(&x, &x).sqrt();
                    if !(length.is_finite() && length > 0.0) {
                        return None;
                    }
                    for x in &mut x {
                        *x /= length;
                    }
                }
                if done {
                    break;
                }
                // One more iteration than it takes.
                done = self.residual(&x, value) <= allowed;
            }
            if self.residual(&x, value) > allowed {
                return None;
            }
            found.push(x);
        }
        Some(found)
    }

    /// The largest entry of `T x - value x`.
    fn residual(&self, x: &[f64], value: f64) -> f64 {
        let entry = |i: usize| {
            let [before, after] = self.neighbors(i);
            let before = if i > 0 { before * x[i - 1] } else { 0.0 };
            let after = x.get(i + 1).map_or(0.0, |x| after * x);
            (before + (self.diagonal[i] - value) * x[i] + after).abs()
        };
        (0..self.len()).map(entry).fold(0.0, f64::max)
    }

    /// `T - value` decomposed, with rows exchanged where that is more exact.
    fn shifted(&self, value: f64, norm: f64) -> Shifted {
        let n = self.len();
        let least = f64::EPSILON * norm;
        let mut steps = Vec::with_capacity(n - 1);
        let mut rows = Vec::with_capacity(n);
        // The row that is eliminated with next: at the diagonal and behind it.
        let mut row = [self.diagonal[0] - value, self.neighbors(0)[1], 0.0];
        for i in 0..n - 1 {
            let [below, after] = self.neighbors(i + 1);
            let mut next = [below, self.diagonal[i + 1] - value, after];
            let exchanged = next[0].abs() > row[0].abs();
            if exchanged {
                std::mem::swap(&mut row, &mut next);
            }
            if row[0].abs() < least {
                row[0] = least;
            }
            let factor = next[0] / row[0];
            steps.push((exchanged, factor));
            rows.push(row);
            row = [next[1] - factor * row[1], next[2] - factor * row[2], 0.0];
        }
        if row[0].abs() < least {
            row[0] = least;
        }
        rows.push(row);
        Shifted { steps, rows }
    }
}

/// A decomposed tridiagonal matrix.
struct Shifted {
    /// Whether a row and the next were exchanged, and how often the one was taken from the other.
    steps: Vec<(bool, f64)>,
    /// The upper triangle: the diagonal and two entries behind it.
    rows: Vec<[f64; 3]>,
}

impl Shifted {
    /// Solves for `x` in place.
    fn solve(&self, x: &mut [f64]) {
        for (i, &(exchanged, factor)) in self.steps.iter().enumerate() {
            if exchanged {
                x.swap(i, i + 1);
            }
            x[i + 1] -= factor * x[i];
        }
        for i in (0..x.len()).rev() {
            let [pivot, first, second] = self.rows[i];
            let behind = |at: usize, by: f64| x.get(at).map_or(0.0, |x| by * x);
            x[i] = (x[i] - behind(i + 1, first) - behind(i + 2, second)) / pivot;
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use faer::Side;

    use super::*;

    fn numbers(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        }
    }

    /// Eigenvalues are those of a whole decomposition, and vectors orthonormal eigenvectors.
    #[track_caller]
    fn check(m: &Mat<f64>, count: usize) {
        let n = m.nrows();
        let (values, vectors) = leading_eigen(m.as_ref(), count).expect("a matrix that it takes");
        let whole = m.self_adjoint_eigenvalues(Side::Lower).unwrap();
        let scale = whole.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        for (j, value) in values.iter().enumerate() {
            assert!((value - whole[n - 1 - j]).abs() <= 1e-13 * scale, "{value} for {}", whole[n - 1 - j]);
        }
        let products = vectors.transpose() * &vectors;
        let images = m * &vectors;
        for j in 0..count {
            for i in 0..count {
                let expected = f64::from(u8::from(i == j));
                assert!((products[(i, j)] - expected).abs() < 1e-12, "{i}, {j}: {}", products[(i, j)]);
            }
            for i in 0..n {
                assert!((images[(i, j)] - values[j] * vectors[(i, j)]).abs() < 1e-12 * scale, "vector {j}");
            }
        }
    }

    fn gram(n: usize, rank: usize, seed: u64) -> Mat<f64> {
        let mut next = numbers(seed);
        let m = Mat::from_fn(rank, n, |_, _| next());
        m.transpose() * &m
    }

    #[test]
    fn of_random_matrices() {
        for (n, rank, count) in [(64, 200, 1), (100, 300, 25), (257, 400, 10), (130, 7, 7)] {
            check(&gram(n, rank, n as u64), count);
        }
    }

    #[test]
    fn of_matrices_whose_eigenvalues_repeat() {
        check(&Mat::identity(80, 80), 5);
        // Two equal blocks: each eigenvalue twice.
        let block = gram(50, 90, 3);
        let both =
            Mat::from_fn(100, 100, |i, j| if i / 50 == j / 50 { block[(i % 50, j % 50)] } else { 0.0 });
        check(&both, 12);
        // More vectors than there are eigenvalues that are not 0.
        check(&gram(100, 3, 5), 10);
    }

    #[test]
    fn of_matrices_of_any_size_of_numbers() {
        for scale in [1e-150, 1e-20, 1e20, 1e140] {
            check(&(gram(90, 120, 8) * faer::Scale(scale)), 6);
        }
    }

    #[test]
    fn what_it_does_not_take() {
        assert!(leading_eigen(Mat::zeros(100, 100).as_ref(), 3).is_none());
        assert!(leading_eigen(gram(100, 100, 1).as_ref(), 60).is_none());
        assert!(leading_eigen(gram(10, 20, 1).as_ref(), 1).is_none());
    }
}
