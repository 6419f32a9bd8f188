//! What is kept of one batch of prompts, as tensors.

use std::collections::BTreeMap;

use burn_lens_tensor::burn::tensor::{Element, TensorData};

use super::{FeatureError, SparseRows};

/// The activations of some prompts, all of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Segment {
    /// The first prompt.
    pub(super) first: usize,
    /// How long prompts are.
    pub(super) n_positions: usize,
    /// `[prompt, position]`
    pub(super) tokens: Vec<u32>,
    /// What each token is, `[prompt, position]`.
    pub(super) roles: Vec<Role>,
    /// The dictionary's activations, a row for each token.
    pub(super) codes: SparseRows,
    /// Those of the second dictionary.
    pub(super) codes_b: Option<SparseRows>,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    /// Padding: neither shown nor counted.
    Padding,
    /// Shown beside others, but not counted.
    Ignored,
    /// Counted.
    Counted,
}

impl Segment {
    /// How many prompts it holds.
    pub(super) fn n_prompts(&self) -> usize {
        self.tokens.len() / self.n_positions.max(1)
    }

    /// The row of each token that is counted.
    pub(super) fn counted(&self) -> impl Iterator<Item = usize> + '_ {
        self.roles.iter().enumerate().filter(|(_, role)| **role == Role::Counted).map(|(row, _)| row)
    }

    /// Its tensors.
    pub(super) fn to_tensors(&self) -> Vec<(String, TensorData)> {
        let shape = [self.n_prompts(), self.n_positions];
        let roles: Vec<u8> = self.roles.iter().map(|&role| role as u8).collect();
        let mut tensors = vec![
            ("tokens".to_owned(), TensorData::new(self.tokens.clone(), shape)),
            ("roles".to_owned(), TensorData::new(roles, shape)),
        ];
        for (prefix, rows) in [("a", Some(&self.codes)), ("b", self.codes_b.as_ref())] {
            let Some((starts, indices, values)) = rows.map(SparseRows::parts) else { continue };
            let name = |part: &str| format!("{prefix}.{part}");
            tensors.push((name("starts"), TensorData::new(starts.to_vec(), [starts.len()])));
            tensors.push((name("indices"), TensorData::new(indices.to_vec(), [indices.len()])));
            tensors.push((name("values"), TensorData::new(values.to_vec(), [values.len()])));
        }
        tensors
    }

    /// The inverse of [`Segment::to_tensors`], for tensors from a file.
    pub(super) fn from_tensors(
        name: &str,
        first: usize,
        mut tensors: BTreeMap<String, TensorData>,
    ) -> Result<Self, FeatureError> {
        let damaged = |what: &str| FeatureError::Damaged { name: name.to_owned(), what: what.to_owned() };
        let shape = tensors.get("tokens").map(|data| data.shape().to_vec()).unwrap_or_default();
        let [_, n_positions] = shape[..] else { return Err(damaged("`tokens` is not a matrix")) };
        let tokens: Vec<u32> = take(name, &mut tensors, "tokens")?;
        let roles: Vec<u8> = take(name, &mut tensors, "roles")?;
        let roles: Option<Vec<Role>> = roles.into_iter().map(Role::of).collect();
        let roles = roles.filter(|roles| roles.len() == tokens.len());
        let roles = roles.ok_or_else(|| damaged("`roles` does not fit `tokens`"))?;
        let n_rows = tokens.len();
        let codes = rows(name, "a", &mut tensors, n_rows)?;
        let codes_b = if tensors.contains_key("b.starts") {
            Some(rows(name, "b", &mut tensors, n_rows)?)
        } else {
            None
        };
        Ok(Self { first, n_positions, tokens, roles, codes, codes_b })
    }
}

impl Role {
    fn of(byte: u8) -> Option<Self> {
        [Self::Padding, Self::Ignored, Self::Counted].into_iter().find(|&role| role as u8 == byte)
    }
}

/// The sparse rows under a prefix.
fn rows(
    name: &str,
    prefix: &str,
    tensors: &mut BTreeMap<String, TensorData>,
    n_rows: usize,
) -> Result<SparseRows, FeatureError> {
    let starts = take(name, tensors, &format!("{prefix}.starts"))?;
    let indices = take(name, tensors, &format!("{prefix}.indices"))?;
    let values = take(name, tensors, &format!("{prefix}.values"))?;
    SparseRows::from_parts(starts, indices, values).filter(|rows| rows.n_rows() == n_rows).ok_or_else(|| {
        let what = format!("the rows of `{prefix}` do not fit together");
        FeatureError::Damaged { name: name.to_owned(), what }
    })
}

/// The values of a tensor.
pub(super) fn take<E: Element>(
    name: &str,
    tensors: &mut BTreeMap<String, TensorData>,
    tensor: &str,
) -> Result<Vec<E>, FeatureError> {
    let damaged = |what: String| FeatureError::Damaged { name: name.to_owned(), what };
    let data = tensors.remove(tensor).ok_or_else(|| damaged(format!("there is no tensor `{tensor}`")))?;
    if data.dtype() != E::dtype() {
        return Err(damaged(format!("`{tensor}` is {:?}, expected {:?}", data.dtype(), E::dtype())));
    }
    data.try_into_vec().map_err(|error| damaged(format!("`{tensor}`: {error:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Segment {
        let mut codes = SparseRows::default();
        codes.push_row([(1, 0.5), (7, -2.0)]);
        codes.push_row([]);
        Segment {
            first: 3,
            n_positions: 2,
            tokens: vec![5, 6],
            roles: vec![Role::Counted, Role::Padding],
            codes_b: Some(codes.clone()),
            codes,
        }
    }

    #[test]
    fn tensors_and_back() {
        let tensors = segment().to_tensors().into_iter().collect();
        assert_eq!(Segment::from_tensors("x", 3, tensors).unwrap(), segment());
    }

    #[test]
    fn damage_is_named() {
        for (tensor, data, expected) in [
            ("a.values", None, "no tensor `a.values`"),
            ("a.starts", Some(TensorData::new(vec![0_u64, 9, 2], [3])), "rows of `a` do not fit"),
            ("a.indices", Some(TensorData::new(vec![7_u32, 1], [2])), "rows of `a` do not fit"),
            ("roles", Some(TensorData::new(vec![9_u8, 0], [1, 2])), "`roles` does not fit"),
            ("tokens", Some(TensorData::new(vec![1.0_f32, 0.0], [1, 2])), "expected U32"),
        ] {
            let mut tensors: BTreeMap<_, _> = segment().to_tensors().into_iter().collect();
            match data {
                Some(data) => tensors.insert(tensor.to_owned(), data),
                None => tensors.remove(tensor),
            };
            let error = Segment::from_tensors("codes-0", 3, tensors).unwrap_err().to_string();
            assert!(error.contains("codes-0") && error.contains(expected), "{error}");
        }
    }
}
