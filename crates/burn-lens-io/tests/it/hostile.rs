//! Safetensors files that lie, on purpose or by accident.

use burn::tensor::TensorData;
use burn_lens_io::{Access, Checkpoint, IoError, read_safetensors};
use burn_lens_tensor::Weights;
use proptest::prelude::*;

use crate::support::{assert_says, floats, folder, message, safetensors, two_tensors};

#[test]
fn headers_that_lie() {
    let data = floats(&[1.0, 2.0]);
    check(
        &safetensors(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]"#, &data),
        "valid safetensors",
    );
    check(
        &safetensors(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, &data),
        "valid safetensors",
    );
    check(
        &safetensors(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, &data),
        "valid safetensors",
    );
    check(
        &safetensors(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, &data),
        "valid safetensors",
    );
    check(
        &safetensors(r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, &data),
        "valid safetensors",
    );
    check(
        &safetensors(r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, &data),
        "valid safetensors",
    );
    check(&safetensors(r"[]", &data), "valid safetensors");
    check(&safetensors("\u{0}", &data), "valid safetensors");
    // Overlapping.
    check(
        &safetensors(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            &data,
        ),
        "valid safetensors",
    );
    // Element counts and offsets that overflow.
    let (huge, large) = (u64::MAX, 1_u64 << 40);
    check(
        &safetensors(
            &format!(r#"{{"a":{{"dtype":"F32","shape":[{huge},{huge}],"data_offsets":[0,8]}}}}"#),
            &data,
        ),
        "valid safetensors",
    );
    check(
        &safetensors(
            &format!(r#"{{"a":{{"dtype":"U8","shape":[{large}],"data_offsets":[0,{large}]}}}}"#),
            &data,
        ),
        "bytes",
    );
    // Deep nesting must not exhaust the stack.
    check(&safetensors(&format!(r#"{{"a":{}"#, "[".repeat(200_000)), &data), "valid safetensors");
}

#[test]
fn header_lengths_that_lie() {
    for length in [0, 1, 1 << 20, 100_000_001, u64::MAX, u64::MAX - 7, 1 << 63] {
        let mut file = two_tensors();
        file[..8].copy_from_slice(&length.to_le_bytes());
        check(&file, "model.safetensors");
    }
    check(b"", "shorter than the header's length field");
    check(b"1234567", "shorter than the header's length field");
}

#[test]
fn truncated_and_padded_files_say_both_lengths() {
    let whole = two_tensors();
    for cut in [1, 8, 24] {
        let file = &whole[..whole.len() - cut];
        check(file, &format!("should be {} bytes long by its header, but has {}", whole.len(), file.len()));
    }
    let mut padded = whole.clone();
    padded.push(0);
    check(&padded, &format!("but has {}", padded.len()));
}

#[test]
fn something_that_is_no_file() {
    let folder = folder(&[]);
    std::fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    for error in [
        Checkpoint::open_file(folder.path().join("model.safetensors")).unwrap_err(),
        read_safetensors(folder.path().join("none.safetensors")).unwrap_err(),
    ] {
        assert!(matches!(error, IoError::Os { .. }), "{error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Headers near to valid ones: whatever they say, the answer is a value or an error, and
    /// mapping and copying agree on which.
    #[test]
    fn mutated_headers_do_not_panic(
        dtype in prop::sample::select(vec!["F32", "F64", "BF16", "F16", "I64", "BOOL", "U8", "F8_E5M2", "F4", "C64", "nope"]),
        shape in prop::collection::vec(prop_oneof![0_u64..5, Just(u64::MAX), Just(1 << 62), Just(1 << 32)], 0..4),
        start in prop_oneof![Just(0_u64), 0_u64..20, Just(u64::MAX)],
        len in prop_oneof![0_u64..64, Just(u64::MAX)],
        data in prop::collection::vec(any::<u8>(), 0..64),
        repeat: bool,
    ) {
        let end = start.wrapping_add(len);
        let entry = format!(r#"{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#);
        let second = if repeat { format!(r#","b":{entry}"#) } else { String::new() };
        open_both(&safetensors(&format!(r#"{{"a":{entry}{second}}}"#), &data))?;
    }

    /// The same for bytes changed anywhere in a valid file.
    #[test]
    fn damaged_files_do_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        truncate: bool,
    ) {
        let mut file = two_tensors();
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        if truncate {
            file.truncate(cut.index(file.len()));
        }
        open_both(&file)?;
    }

    /// And for bytes that have nothing to do with the format.
    #[test]
    fn noise_does_not_panic(file in prop::collection::vec(any::<u8>(), 0..256)) {
        open_both(&file)?;
    }
}

/// Opens a file in both ways and reads all of it; the outcomes must agree.
fn open_both(file: &[u8]) -> Result<(), TestCaseError> {
    let folder = folder(&[("model.safetensors", file)]);
    let outcome = |access| {
        let mut checkpoint = match Checkpoint::open_with(folder.path(), access) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return vec![Err(message(&error))],
        };
        let names = checkpoint.names();
        let mut read = |name: &String| {
            let shape = checkpoint.shape(name).unwrap_or_default();
            checkpoint.get(name, &shape).map_err(|error| message(&error))
        };
        names.iter().map(&mut read).collect()
    };
    let (mapped, copied) = (outcome(Access::Map), outcome(Access::Copy));
    // Which of two bad tensors is named depends on the order in a hash map.
    prop_assert_eq!(
        mapped.iter().map(Result::is_ok).collect::<Vec<_>>(),
        copied.iter().map(Result::is_ok).collect::<Vec<_>>()
    );
    let values = |outcome: Vec<Result<TensorData, String>>| {
        outcome.into_iter().filter_map(Result::ok).collect::<Vec<_>>()
    };
    prop_assert_eq!(values(mapped), values(copied));
    let _ = read_safetensors(folder.path().join("model.safetensors"));
    Ok(())
}

#[track_caller]
fn check(file: &[u8], part: &str) {
    let folder = folder(&[("model.safetensors", file)]);
    for access in [Access::Map, Access::Copy] {
        let error = Checkpoint::open_with(folder.path(), access).unwrap_err();
        assert_says(&error, &["model.safetensors", part]);
    }
}
