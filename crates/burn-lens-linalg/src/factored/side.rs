//! One factor of a factored matrix.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lens_tensor::kernels;
use faer::Mat;

use crate::{
    LinalgError,
    host::{Host, gram, par, r_factor, tall_gram, tall_r_factor},
};

/// Tall matrices `[rows, mid]`, one for each leading index: `outer · inner[map[i]]`.
///
/// `outer` is shared by all of them (an embedding, say), so that `W_E W_V` of every head is never
/// formed; `map` lets leading indices share an inner matrix, as grouped heads share keys and
/// values.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// `[rows, p]`
    pub(crate) outer: Option<Tensor<2>>,
    /// `[distinct, p, mid]`, with `p = rows` where there is no outer.
    pub(crate) inner: Tensor<3>,
    pub(crate) map: Vec<usize>,
}

impl Side {
    pub(crate) fn new(inner: Tensor<3>) -> Self {
        let map = (0..inner.dims()[0]).collect();
        Self { outer: None, inner, map }
    }

    pub(crate) fn rows(&self) -> usize {
        match &self.outer {
            Some(outer) => outer.dims()[0],
            None => self.inner.dims()[1],
        }
    }

    pub(crate) fn mid(&self) -> usize {
        self.inner.dims()[2]
    }

    pub(crate) fn device(&self) -> Device {
        self.inner.device()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.inner.dtype()
    }

    /// The inner matrices, one for each leading index.
    fn expanded(&self) -> Tensor<3> {
        let identity =
            self.map.len() == self.inner.dims()[0] && self.map.iter().enumerate().all(|(i, &at)| i == at);
        if identity {
            return self.inner.clone();
        }
        let indices: Vec<i64> = self.map.iter().map(|&at| at as i64).collect();
        let indices = TensorData::new(indices, [self.map.len()]);
        self.inner.clone().select(0, Tensor::<1, Int>::from_data(indices, &self.device()))
    }

    /// `[n, rows, mid]`
    pub(crate) fn dense(&self) -> Tensor<3> {
        match &self.outer {
            None => self.expanded(),
            Some(outer) => shared_product(outer.clone(), self.expanded()),
        }
    }

    /// With other leading indices, each standing for one of those that there are.
    pub(crate) fn select(&self, indices: &[usize]) -> Self {
        Self { map: indices.iter().map(|&i| self.map[i]).collect(), ..self.clone() }
    }

    /// The inner matrices of some leading indices, and no others.
    fn inner_part(&self, leading: Range<usize>) -> Self {
        let map = &self.map[leading];
        let mut distinct = map.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let inner = match *distinct.as_slice() {
            [] => self.inner.clone(),
            [first, .., last] if last - first + 1 == distinct.len() => {
                self.inner.clone().narrow(0, first, distinct.len())
            }
            _ => {
                let indices: Vec<i64> = distinct.iter().map(|&at| at as i64).collect();
                let indices = TensorData::new(indices, [distinct.len()]);
                self.inner.clone().select(0, Tensor::<1, Int>::from_data(indices, &self.device()))
            }
        };
        let map = map.iter().map(|at| distinct.partition_point(|other| other < at)).collect();
        Self { outer: None, inner, map }
    }

    /// `t · self` with a `t` that all leading indices share: `[new rows, rows]`.
    pub(crate) fn behind(&self, t: Tensor<2>) -> Self {
        if self.outer.is_none() && self.inner.dims()[0] == 1 {
            return Self { inner: product(t.unsqueeze_dim::<3>(0), self.inner.clone()), ..self.clone() };
        }
        let outer = match &self.outer {
            None => t,
            Some(outer) => {
                product(t.unsqueeze_dim::<3>(0), outer.clone().unsqueeze_dim::<3>(0)).squeeze_dim(0)
            }
        };
        Self { outer: Some(outer), ..self.clone() }
    }

    /// `self · core` with a core `[n, mid, new mid]` for each leading index.
    pub(crate) fn times(&self, core: Tensor<3>) -> Self {
        let inner = product(self.expanded(), core);
        let map = (0..inner.dims()[0]).collect();
        Self { outer: self.outer.clone(), inner, map }
    }

    pub(crate) fn scaled(&self, factor: f64) -> Self {
        Self { inner: self.inner.clone() * factor, ..self.clone() }
    }

    /// Some of the rows.
    pub(crate) fn select_rows(&self, indices: &[usize]) -> Self {
        let list: Vec<i64> = indices.iter().map(|&at| at as i64).collect();
        let list = Tensor::<1, Int>::from_data(TensorData::new(list, [indices.len()]), &self.device());
        match &self.outer {
            Some(outer) => Self { outer: Some(outer.clone().select(0, list)), ..self.clone() },
            None => Self { inner: self.inner.clone().select(1, list), ..self.clone() },
        }
    }

    /// The distinct inner matrices, `f` of each, and which of them a leading index has. With an
    /// outer, inner matrices are behind its triangular factor, so Gram matrices and triangular
    /// factors are those of the whole.
    fn each<T: Send>(
        &self,
        name: &Naming<'_>,
        f: impl Fn(Mat<f64>) -> T + Send + Sync,
    ) -> Result<Vec<T>, LinalgError> {
        let outer = self.outer.clone().map(|outer| tall_r_factor(outer, &name.whole())).transpose()?;
        let host = Host::read(self.inner.clone(), &name.whole())?;
        par(host.n, |j| {
            let inner = host.mat(j, || name.distinct(&self.map, j))?;
            Ok(f(match &outer {
                Some(outer) => outer * inner,
                None => inner,
            }))
        })
    }

    /// The triangular factor `r` of each distinct matrix: `rᵀ r = mᵀ m`.
    pub(crate) fn r_factors(&self, name: &Naming<'_>) -> Result<Vec<Mat<f64>>, LinalgError> {
        self.each(name, r_factor)
    }

    /// The Gram matrix `mᵀ m` of each distinct matrix.
    pub(crate) fn grams(&self, name: &Naming<'_>) -> Result<Vec<Mat<f64>>, LinalgError> {
        let Some(outer) = &self.outer else {
            return self.each(name, |m| gram(m.as_ref()));
        };
        let outer = tall_gram(outer.clone(), &name.whole())?;
        let host = Host::read(self.inner.clone(), &name.whole())?;
        par(host.n, |j| {
            let inner = host.mat(j, || name.distinct(&self.map, j))?;
            Ok(inner.transpose() * (&outer * &inner))
        })
    }
}

/// What to call the matrices in errors.
pub(crate) struct Naming<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) lead: &'a [usize],
}

impl Naming<'_> {
    pub(crate) fn whole(&self) -> String {
        self.name.map_or_else(|| "the factored matrix".to_owned(), |name| format!("`{name}`"))
    }

    /// With leading index `i`.
    pub(crate) fn at(&self, i: usize) -> String {
        if self.lead.is_empty() {
            return self.whole();
        }
        let mut rest = i;
        let mut index: Vec<usize> = Vec::new();
        for len in self.lead.iter().rev() {
            index.push(rest % len);
            rest /= len;
        }
        index.reverse();
        format!("{} at {index:?}", self.whole())
    }

    /// Distinct matrix `j` by the first leading index that has it.
    fn distinct(&self, map: &[usize], j: usize) -> String {
        map.iter().position(|&at| at == j).map_or_else(|| self.whole(), |i| self.at(i))
    }
}

/// `a · b` of batches of equal length, also where an axis is empty.
pub(crate) fn product(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    let ([n, rows, mid], [_, _, cols]) = (a.dims(), b.dims());
    if n * rows * mid * cols == 0 {
        return Tensor::zeros([n, rows, cols], (&a.device(), a.dtype()));
    }
    // One product goes where products with weights go: into memory that nobody cleared.
    if n == 1 { kernels::linear(a, b.squeeze_dim(0), None) } else { a.matmul(b) }
}

/// `a · b[i]` with one `a` for all, as a single product.
fn shared_product(a: Tensor<2>, b: Tensor<3>) -> Tensor<3> {
    let ([rows, mid], [n, _, cols]) = (a.dims(), b.dims());
    if n * rows * mid * cols == 0 {
        return Tensor::zeros([n, rows, cols], (&a.device(), a.dtype()));
    }
    let side_by_side = b.permute([1, 0, 2]).reshape([1, mid, n * cols]);
    product(a.unsqueeze_dim::<3>(0), side_by_side).reshape([rows, n, cols]).permute([1, 0, 2])
}

/// `rᵀ l` for each leading index: `[n, mid of r, mid of l]`.
///
/// What the outers have in common is multiplied once for all leading indices, then put on the
/// side where that takes fewer operations, for some leading indices after the other.
pub(crate) fn core(r: &Side, l: &Side) -> Tensor<3> {
    /// How many leading indices at once: what is in between takes no more memory than they do.
    const AT_ONCE: usize = 16;
    let transposed = |outer: &Tensor<2>| outer.clone().transpose();
    let shared = match (&r.outer, &l.outer) {
        (None, None) => return product(r.expanded().transpose(), l.expanded()),
        (Some(r), Some(l)) => {
            product(transposed(r).unsqueeze_dim::<3>(0), l.clone().unsqueeze_dim::<3>(0)).squeeze_dim(0)
        }
        (Some(r), None) => transposed(r),
        (None, Some(l)) => l.clone(),
    };
    let n = l.map.len();
    let part = |first: usize| {
        let [r, l] = [r, l].map(|side| side.inner_part(first..(first + AT_ONCE).min(n)));
        core_of(&r, &l, shared.clone())
    };
    match n {
        0..=AT_ONCE => part(0),
        _ => Tensor::cat((0..n).step_by(AT_ONCE).map(part).collect(), 0),
    }
}

/// `rᵀ shared l` of the inner matrices.
fn core_of(r: &Side, l: &Side, shared: Tensor<2>) -> Tensor<3> {
    let [x, y] = shared.dims();
    let [r_count, l_count] = [r, l].map(|side| side.inner.dims()[0] * side.mid());
    // Both orders take x·y operations for each column; results have y or x rows.
    let on_the_left = (r_count, r_count * y) < (l_count, l_count * x);
    if on_the_left {
        let inner = shared_product(shared.transpose(), r.inner.clone());
        let r = Side { outer: None, inner, map: r.map.clone() };
        product(r.expanded().transpose(), l.expanded())
    } else {
        let inner = shared_product(shared, l.inner.clone());
        let l = Side { outer: None, inner, map: l.map.clone() };
        product(r.expanded().transpose(), l.expanded())
    }
}
