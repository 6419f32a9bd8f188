//! A vector to add, from a safetensors file.

use std::path::Path;

use burn_lens::io::read_safetensors;

use super::error::Problem;

/// A tensor on the host.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    /// Its name in the file.
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// Row-major, times the factor.
    pub(crate) values: Vec<f64>,
}

impl Vector {
    /// Reads `tensor`, or the only tensor, of a file and multiplies it by `factor`.
    pub(super) fn read(path: &Path, tensor: Option<&str>, factor: f64) -> Result<Self, Problem> {
        let mut tensors = read_safetensors(path)?;
        let found: Vec<String> = tensors.keys().cloned().collect();
        let name = match (tensor, &found[..]) {
            (Some(name), _) => name.to_owned(),
            (None, [only]) => only.clone(),
            (None, _) => return Err(Problem::WhichTensor { path: path.to_owned(), found }),
        };
        let Some(data) = tensors.remove(&name) else {
            return Err(Problem::NoTensor { path: path.to_owned(), tensor: name, found });
        };
        if !data.dtype().is_float() {
            let dtype = format!("{:?}", data.dtype());
            return Err(Problem::NotFloat { path: path.to_owned(), tensor: name, dtype });
        }
        let values = data.iter::<f64>().map(|value| value * factor).collect();
        Ok(Self { name, shape: data.shape().to_vec(), values })
    }

    /// Whether it is a single vector, added at every place.
    pub(super) fn is_plain(&self) -> bool {
        self.shape.len() == 1
    }

    /// Whether it broadcasts, from the right, over `chosen`, the lengths of what was chosen.
    pub(super) fn fits(&self, chosen: &[Option<usize>]) -> bool {
        let pairs = self.shape.iter().rev().zip(chosen.iter().rev());
        let last = self.shape.last().copied();
        self.shape.len() <= chosen.len()
            && last == chosen.last().copied().flatten()
            && pairs.skip(1).all(|(&own, &chosen)| own == 1 || Some(own) == chosen)
    }

    /// The value at `index`, of as many axes as what was chosen has.
    pub(super) fn at(&self, index: &[usize]) -> f64 {
        let own = &index[index.len() - self.shape.len()..];
        let place = own
            .iter()
            .zip(&self.shape)
            .fold(0, |place, (&at, &len)| place * len + if len == 1 { 0 } else { at });
        self.values[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(shape: &[usize]) -> Vector {
        let len = shape.iter().product();
        Vector { name: "v".to_owned(), shape: shape.to_vec(), values: (0..len).map(|at| at as f64).collect() }
    }

    #[test]
    fn broadcasts_from_the_right() {
        let chosen = [Some(2), Some(3), Some(4)];
        for shape in [&[4][..], &[3, 4], &[1, 4], &[2, 3, 4], &[2, 1, 4]] {
            assert!(vector(shape).fits(&chosen), "{shape:?}");
        }
        for shape in [&[][..], &[1], &[3], &[2, 4], &[1, 2, 3, 4]] {
            assert!(!vector(shape).fits(&chosen), "{shape:?}");
        }
        assert!(!vector(&[3, 4]).fits(&[Some(2), None, Some(4)]));
        assert_eq!(vector(&[3, 4]).at(&[1, 2, 3]), 11.0);
        assert_eq!(vector(&[2, 1, 4]).at(&[1, 2, 3]), 7.0);
    }
}
