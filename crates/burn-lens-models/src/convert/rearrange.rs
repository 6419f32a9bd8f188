//! Reshapes and transposes by named sizes, as data: `"d_model (three n_heads d_head) -> three d_model (n_heads d_head)"`.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::TensorData;

use super::ConvertError;

/// Sizes by name.
pub(super) type Sizes = BTreeMap<String, usize>;

/// A pattern of `einops.rearrange`: axes by name, grouped by parentheses, on both sides of an
/// arrow. It only moves numbers, so it has an inverse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rearrange {
    text: String,
    from: Vec<Vec<String>>,
    to: Vec<Vec<String>>,
}

impl Rearrange {
    pub(super) fn parse(text: &str) -> Result<Self, ConvertError> {
        let bad =
            |reason: &str| ConvertError::Pattern { pattern: text.to_owned(), reason: reason.to_owned() };
        let (from, to) = text.split_once("->").ok_or_else(|| bad("it has no `->`"))?;
        let from = side(from).ok_or_else(|| bad("its parentheses do not match on the left"))?;
        let to = side(to).ok_or_else(|| bad("its parentheses do not match on the right"))?;
        let names = |side: &[Vec<String>]| side.iter().flatten().cloned().collect::<BTreeSet<_>>();
        if names(&from) != names(&to) {
            return Err(bad("the names on both sides are not the same"));
        }
        for side in [&from, &to] {
            if names(side).len() != side.iter().flatten().count() {
                return Err(bad("a name occurs twice on one side"));
            }
        }
        Ok(Self { text: text.to_owned(), from, to })
    }

    /// The other way round.
    pub(super) fn inverse(&self) -> Self {
        Self { text: format!("{} (backwards)", self.text), from: self.to.clone(), to: self.from.clone() }
    }

    /// What becomes of `shape`.
    pub(super) fn shape(&self, shape: &[usize], sizes: &Sizes) -> Result<Vec<usize>, ConvertError> {
        let solved = self.solve(shape, sizes)?;
        Ok(self.to.iter().map(|group| group.iter().map(|name| solved[name]).product()).collect())
    }

    /// Moves the numbers of `data`, bit by bit.
    pub(super) fn apply(&self, data: &TensorData, sizes: &Sizes) -> Result<TensorData, ConvertError> {
        let shape = data.shape().to_vec();
        let solved = self.solve(&shape, sizes)?;
        let from: Vec<&String> = self.from.iter().flatten().collect();
        let lengths: Vec<usize> = from.iter().map(|name| solved[*name]).collect();
        let strides: BTreeMap<&String, usize> =
            from.iter().enumerate().map(|(at, name)| (*name, lengths[at + 1..].iter().product())).collect();
        let axes: Vec<[usize; 2]> =
            self.to.iter().flatten().map(|name| [solved[name], strides[name]]).collect();
        let bytes = gather(data.as_bytes(), data.dtype().size(), &axes);
        let moved = TensorData::try_from_bytes_vec(bytes, self.shape(&shape, sizes)?, data.dtype());
        moved.map_err(|error| self.bad(&error.to_string()))
    }

    /// The size of every name: those known, and of each group at most one that follows.
    fn solve(&self, shape: &[usize], sizes: &Sizes) -> Result<Sizes, ConvertError> {
        if shape.len() != self.from.len() {
            return Err(
                self.bad(&format!("it has {} axes, but the tensor has shape {shape:?}", self.from.len()))
            );
        }
        let mut solved = Sizes::new();
        for (group, &length) in self.from.iter().zip(shape) {
            let mut unknown = None;
            let mut product = 1;
            for name in group {
                match name.parse().ok().or_else(|| sizes.get(name).copied()) {
                    Some(size) => {
                        product *= size;
                        solved.insert(name.clone(), size);
                    }
                    None if unknown.is_none() => unknown = Some(name),
                    None => {
                        return Err(self.bad(&format!(
                            "neither `{}` nor `{name}` is a known size",
                            unknown.map_or("", String::as_str)
                        )));
                    }
                }
            }
            let fits =
                if unknown.is_some() { product > 0 && length % product == 0 } else { length == product };
            if !fits {
                let reason = format!(
                    "an axis of length {length} (of {shape:?}) is no ({}) with {solved:?}",
                    group.join(" ")
                );
                return Err(self.bad(&reason));
            }
            if let Some(name) = unknown {
                solved.insert(name.clone(), length / product);
            }
        }
        Ok(solved)
    }

    fn bad(&self, reason: &str) -> ConvertError {
        ConvertError::Pattern { pattern: self.text.clone(), reason: reason.to_owned() }
    }
}

/// The groups of one side; `None` where parentheses do not match.
fn side(text: &str) -> Option<Vec<Vec<String>>> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut groups: Vec<Vec<String>> = Vec::new();
    let mut open = false;
    for token in spaced.split_whitespace() {
        match (token, open) {
            ("(", false) => {
                open = true;
                groups.push(Vec::new());
            }
            (")", true) => open = false,
            ("(" | ")", _) => return None,
            (name, true) => groups.last_mut()?.push(name.to_owned()),
            (name, false) => groups.push(vec![name.to_owned()]),
        }
    }
    (!open).then_some(groups)
}

/// The elements at every index of `axes` (`[length, stride]`, outermost first), in order.
fn gather(bytes: &[u8], width: usize, axes: &[[usize; 2]]) -> Vec<u8> {
    let count: usize = axes.iter().map(|[length, _]| length).product();
    let mut gathered = Vec::with_capacity(count * width);
    let mut index = vec![0; axes.len()];
    let mut offset = 0;
    for _ in 0..count {
        gathered.extend_from_slice(&bytes[offset * width..(offset + 1) * width]);
        for (at, &[length, stride]) in axes.iter().enumerate().rev() {
            index[at] += 1;
            offset += stride;
            if index[at] < length {
                break;
            }
            offset -= length * stride;
            index[at] = 0;
        }
    }
    gathered
}

/// Tensors that differ along `axis` alone, one behind the other.
pub(super) fn concatenated(parts: &[TensorData], axis: usize) -> Result<TensorData, ConvertError> {
    let bad = |reason: String| ConvertError::Pattern { pattern: format!("split = {axis}"), reason };
    let Some(first) = parts.first() else { return Err(bad("there is nothing to join".to_owned())) };
    let mut shape = first.shape().to_vec();
    let same = |part: &TensorData| {
        let other = part.shape().to_vec();
        part.dtype() == first.dtype()
            && other.len() == shape.len()
            && other.iter().zip(&shape).enumerate().all(|(at, (a, b))| at == axis || a == b)
    };
    if axis >= shape.len() || !parts.iter().all(same) {
        let shapes: Vec<_> = parts.iter().map(|part| part.shape().to_vec()).collect();
        return Err(bad(format!("tensors of shapes {shapes:?} cannot be joined along axis {axis}")));
    }
    let outer: usize = shape[..axis].iter().product();
    let mut bytes = Vec::new();
    for row in 0..outer {
        for part in parts {
            let width = part.as_bytes().len() / outer;
            bytes.extend_from_slice(&part.as_bytes()[row * width..(row + 1) * width]);
        }
    }
    shape[axis] = parts.iter().map(|part| part.shape().to_vec()[axis]).sum();
    TensorData::try_from_bytes_vec(bytes, shape, first.dtype()).map_err(|error| bad(error.to_string()))
}

/// The inverse of [`concatenated`]: parts of these lengths along `axis`.
pub(super) fn split(
    data: &TensorData,
    axis: usize,
    lengths: &[usize],
) -> Result<Vec<TensorData>, ConvertError> {
    let shape = data.shape().to_vec();
    let bad = |reason: String| ConvertError::Pattern { pattern: format!("split = {axis}"), reason };
    if axis >= shape.len() || lengths.iter().sum::<usize>() != shape[axis] {
        return Err(bad(format!("a tensor of shape {shape:?} cannot be split into lengths {lengths:?}")));
    }
    let inner: usize = shape[axis + 1..].iter().product::<usize>() * data.dtype().size();
    let outer: usize = shape[..axis].iter().product();
    let mut parts = Vec::new();
    let mut start = 0;
    for &length in lengths {
        let mut bytes = Vec::with_capacity(outer * length * inner);
        for row in 0..outer {
            let at = (row * shape[axis] + start) * inner;
            bytes.extend_from_slice(&data.as_bytes()[at..at + length * inner]);
        }
        let mut part = shape.clone();
        part[axis] = length;
        let data = TensorData::try_from_bytes_vec(bytes, part, data.dtype());
        parts.push(data.map_err(|error| bad(error.to_string()))?);
        start += length;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> Sizes {
        Sizes::from([("heads".to_owned(), 2), ("d_model".to_owned(), 3)])
    }

    #[track_caller]
    fn refused(text: &str, shape: &[usize], reason: &str) {
        let error = Rearrange::parse(text).and_then(|pattern| pattern.shape(shape, &sizes())).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }

    #[test]
    fn numbers_move_and_come_back() {
        let data = TensorData::new((0..24).map(|x| x as f32).collect::<Vec<_>>(), [12, 2]);
        let pattern = Rearrange::parse("(heads qkv 3) two -> two (qkv heads 3)").unwrap();
        let moved = pattern.apply(&data, &sizes()).unwrap();
        assert_eq!(moved.shape().to_vec(), [2, 12]);
        let expected: Vec<f32> = [0, 2, 4, 12, 14, 16, 6, 8, 10, 18, 20, 22].map(|x| x as f32).to_vec();
        assert_eq!(moved.try_to_vec::<f32>().unwrap()[..12], expected);
        let sizes = Sizes::from([("heads".to_owned(), 2), ("qkv".to_owned(), 2), ("two".to_owned(), 2)]);
        assert_eq!(pattern.inverse().apply(&moved, &sizes).unwrap().as_bytes(), data.as_bytes());
    }

    #[test]
    fn parts_join_to_the_whole() {
        let data = TensorData::new((0..12).map(f64::from).collect::<Vec<_>>(), [2, 6]);
        let parts = split(&data, 1, &[2, 1, 3]).unwrap();
        assert_eq!(parts[1].try_to_vec::<f64>().unwrap(), [2.0, 8.0]);
        assert_eq!(concatenated(&parts, 1).unwrap().as_bytes(), data.as_bytes());
        assert!(split(&data, 1, &[2, 2]).is_err() && split(&data, 2, &[6]).is_err());
        assert!(concatenated(&parts, 0).is_err());
    }

    #[test]
    fn patterns_that_cannot_be_are_refused() {
        refused("a b", &[1, 1], "no `->`");
        refused("(a b -> a b", &[1, 1], "parentheses");
        refused("a b -> a c", &[1, 1], "not the same");
        refused("a a -> a", &[1, 1], "twice");
        refused("(heads a b) -> a b heads", &[8], "neither `a` nor `b`");
        refused("(heads a) -> heads a", &[7], "length 7");
        refused("heads -> heads", &[2, 2], "shape [2, 2]");
    }
}
