//! Linear models on the host in `f64`: ridge, least squares, and linear classifiers.
//!
//! Rows are examples. There is no intercept; append a column of ones for one (it is then
//! penalised like any other, as liblinear does).

use faer::{Mat, Side, linalg::solvers::Solve as _};

use crate::LinalgError;

/// The name of the system in errors.
const NORMAL: &str = "the normal equations";

/// `argmin_w |X w - y|² + λ |w|²`, by Cholesky of `XᵀX + λ I`.
///
/// ```
/// # use burn_lens_linalg::regression::ridge;
/// let rows = [&[1.0, 0.0][..], &[0.0, 2.0]];
/// assert_eq!(ridge(&rows, &[2.0, 4.0], 0.0)?, [2.0, 2.0]);
/// let shrunk = ridge(&rows, &[2.0, 4.0], 1.0)?;
/// assert!((shrunk[0] - 1.0).abs() < 1e-12 && (shrunk[1] - 1.6).abs() < 1e-12);
/// # Ok::<(), burn_lens_linalg::LinalgError>(())
/// ```
///
/// # Errors
///
/// If `XᵀX + λ I` is singular (`λ = 0` and columns that depend on each other) or not finite.
///
/// # Panics
///
/// If there are not as many values as rows, or rows differ in length.
#[track_caller]
pub fn ridge(rows: &[&[f64]], y: &[f64], lambda: f64) -> Result<Vec<f64>, LinalgError> {
    assert_eq!(rows.len(), y.len(), "a value for each row");
    let x = matrix(rows);
    let mut normal = x.transpose() * &x;
    for i in 0..normal.nrows() {
        normal[(i, i)] += lambda;
    }
    let right = x.transpose() * column(y);
    solve(&normal, &right)
}

/// The shortest of the `w` that minimise `|X w - y|²`, by the singular values of `X`.
///
/// # Errors
///
/// If a number is not finite.
///
/// # Panics
///
/// If there are not as many values as rows, or rows differ in length.
#[track_caller]
pub fn least_squares(rows: &[&[f64]], y: &[f64]) -> Result<Vec<f64>, LinalgError> {
    assert_eq!(rows.len(), y.len(), "a value for each row");
    let x = matrix(rows);
    let failed = |_| LinalgError::NoConvergence { matrix: "X".to_owned(), what: "the singular vectors" };
    let svd = x.thin_svd().map_err(failed)?;
    let s: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    // As numpy's lstsq: what is below is rounding.
    let least = s.first().copied().unwrap_or(0.0) * f64::EPSILON * rows.len().max(x.ncols()) as f64;
    let mut projected = svd.U().transpose() * column(y);
    for (at, &value) in s.iter().enumerate() {
        projected[(at, 0)] = if value > least { projected[(at, 0)] / value } else { 0.0 };
    }
    let w = svd.V() * projected;
    Ok((0..w.nrows()).map(|at| w[(at, 0)]).collect())
}

/// What a classifier pays for an example with margin `m = y · w·x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// `log(1 + exp(-m))`: logistic regression.
    Logistic,
    /// `max(0, 1 - m)²`: the linear support vector machine of liblinear and `LinearSVC`.
    SquaredHinge,
}

impl Loss {
    /// The value, and the first and second derivative.
    fn at(self, margin: f64) -> [f64; 3] {
        match self {
            Self::Logistic => {
                let p = 1.0 / (1.0 + margin.exp());
                // log(1 + exp(-m)) without overflow.
                [(-margin.abs()).exp().ln_1p() + (-margin).max(0.0), -p, p * (1.0 - p)]
            }
            Self::SquaredHinge => {
                let slack = (1.0 - margin).max(0.0);
                [slack * slack, -2.0 * slack, if slack > 0.0 { 2.0 } else { 0.0 }]
            }
        }
    }
}

/// `argmin_w ½ |w|² + c Σ loss(yᵢ w·xᵢ)` for signs `y`, by Newton's method with halved steps.
///
/// Both losses are convex and the penalty makes the minimum unique, so the result does not
/// depend on the way there.
///
/// # Errors
///
/// If a number is not finite.
///
/// # Panics
///
/// If there are not as many signs as rows, or rows differ in length.
#[track_caller]
pub fn classifier(rows: &[&[f64]], positive: &[bool], c: f64, loss: Loss) -> Result<Vec<f64>, LinalgError> {
    const STEPS: usize = 200;
    const TOLERANCE: f64 = 1e-10;
    assert_eq!(rows.len(), positive.len(), "a sign for each row");
    let signs: Vec<f64> = positive.iter().map(|&yes| if yes { 1.0 } else { -1.0 }).collect();
    let mut w = vec![0.0; rows.first().map_or(0, |row| row.len())];
    for _ in 0..STEPS {
        let (value, gradient, hessian) = expansion(rows, &signs, c, loss, &w);
        let size = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        if size <= TOLERANCE * (1.0 + c * rows.len() as f64) {
            break;
        }
        let step = solve(&hessian, &column(&gradient))?;
        let descent: f64 = step.iter().zip(&gradient).map(|(s, g)| s * g).sum();
        let mut rate = 1.0;
        let moved = loop {
            let moved: Vec<f64> = w.iter().zip(&step).map(|(w, s)| w - rate * s).collect();
            if objective(rows, &signs, c, loss, &moved) <= value - 1e-4 * rate * descent || rate < 1e-10 {
                break moved;
            }
            rate /= 2.0;
        };
        w = moved;
    }
    Ok(w)
}

fn objective(rows: &[&[f64]], signs: &[f64], c: f64, loss: Loss, w: &[f64]) -> f64 {
    let paid: f64 = rows.iter().zip(signs).map(|(row, sign)| loss.at(sign * dot(row, w))[0]).sum();
    0.5 * dot(w, w) + c * paid
}

/// Value, gradient and Hessian at `w`.
fn expansion(rows: &[&[f64]], signs: &[f64], c: f64, loss: Loss, w: &[f64]) -> (f64, Vec<f64>, Mat<f64>) {
    let (mut gradient, mut hessian) = (w.to_vec(), Mat::identity(w.len(), w.len()));
    for (row, sign) in rows.iter().zip(signs) {
        let [_, first, second] = loss.at(sign * dot(row, w));
        for (i, a) in row.iter().enumerate() {
            gradient[i] += c * first * sign * a;
            for (j, b) in row.iter().enumerate() {
                hessian[(i, j)] += c * second * a * b;
            }
        }
    }
    (objective(rows, signs, c, loss, w), gradient, hessian)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn column(values: &[f64]) -> Mat<f64> {
    Mat::from_fn(values.len(), 1, |row, _| values[row])
}

fn matrix(rows: &[&[f64]]) -> Mat<f64> {
    let columns = rows.first().map_or(0, |row| row.len());
    assert!(rows.iter().all(|row| row.len() == columns), "rows of one length");
    Mat::from_fn(rows.len(), columns, |row, column| rows[row][column])
}

fn solve(symmetric: &Mat<f64>, right: &Mat<f64>) -> Result<Vec<f64>, LinalgError> {
    let failed = || LinalgError::NoConvergence { matrix: NORMAL.to_owned(), what: "the Cholesky factor" };
    let factor = symmetric.llt(Side::Lower).map_err(|_| failed())?;
    let pivots = (0..symmetric.nrows()).map(|at| factor.L()[(at, at)]);
    let [least, most] = pivots.fold([f64::INFINITY, 0.0f64], |[a, b], pivot| [a.min(pivot), b.max(pivot)]);
    // The factor's condition is the root of the system's.
    if least.is_nan() || least <= most * f64::EPSILON.sqrt() {
        return Err(failed());
    }
    let solved = factor.solve(right);
    let solved: Vec<f64> = (0..solved.nrows()).map(|at| solved[(at, 0)]).collect();
    if solved.iter().all(|x| x.is_finite()) { Ok(solved) } else { Err(failed()) }
}
