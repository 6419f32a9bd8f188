//! Finding a NaN in raw little-endian bytes.

use burn::tensor::DType;

/// Elements looked at between two checks for a hit; the loop inside has no branch, so that it
/// is vectorised.
const BLOCK: usize = 4096;

/// The flat index of the first NaN in `bytes`, if `dtype` is a float type and there is one.
pub(super) fn first_nan(bytes: &[u8], dtype: DType) -> Option<usize> {
    match dtype {
        DType::F64 => {
            first(bytes, |b: [u8; 8]| u64::from_le_bytes(b) & (u64::MAX >> 1) > 0x7ff0_0000_0000_0000)
        }
        DType::F32 => first(bytes, |b: [u8; 4]| u32::from_le_bytes(b) & (u32::MAX >> 1) > 0x7f80_0000),
        DType::BF16 => first(bytes, |b: [u8; 2]| u16::from_le_bytes(b) & (u16::MAX >> 1) > 0x7f80),
        DType::F16 => first(bytes, |b: [u8; 2]| u16::from_le_bytes(b) & (u16::MAX >> 1) > 0x7c00),
        _ => None,
    }
}

fn first<const N: usize>(bytes: &[u8], is_nan: impl Fn([u8; N]) -> bool + Copy) -> Option<usize> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.chunks(BLOCK).enumerate().find_map(|(block, elements)| {
        let hit = elements.iter().fold(false, |hit, &element| hit | is_nan(element));
        if !hit {
            return None;
        }
        elements.iter().position(|&element| is_nan(element)).map(|index| block * BLOCK + index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_of_several() {
        let mut values = vec![0.5_f32; 3 * BLOCK + 7];
        assert_eq!(first_nan(&bytes_of(&values), DType::F32), None);
        values[2 * BLOCK + 3] = f32::NAN;
        values[2 * BLOCK + 9] = -f32::NAN;
        assert_eq!(first_nan(&bytes_of(&values), DType::F32), Some(2 * BLOCK + 3));
    }

    #[test]
    fn infinities_are_numbers() {
        assert_eq!(first_nan(&bytes_of(&[f32::INFINITY, f32::NEG_INFINITY, f32::MAX]), DType::F32), None);
        assert_eq!(first_nan(&[0x80, 0x7f, 0x80, 0xff], DType::BF16), None);
        assert_eq!(first_nan(&[0x00, 0x7c, 0x00, 0xfc], DType::F16), None);
    }

    #[test]
    fn half_types_and_f64() {
        assert_eq!(first_nan(&[0, 0, 0x81, 0x7f], DType::BF16), Some(1));
        assert_eq!(first_nan(&[0, 0, 0x01, 0xfc], DType::F16), Some(1));
        assert_eq!(first_nan(&f64::NAN.to_le_bytes(), DType::F64), Some(0));
        assert_eq!(first_nan(&[0xff; 8], DType::I64), None);
    }

    fn bytes_of(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}
