//! Folders and files as tables of weights.

use std::fs;

use burn::tensor::{DType, TensorData};
use burn_lens_io::{Access, Checkpoint, IoError};
use burn_lens_tensor::{WeightError, Weights};

use crate::support::{assert_says, fixture, floats, folder, safetensors, shared_model, two_tensors};

#[test]
fn every_way_of_storing_a_model_holds_the_same_weights() {
    let mut expected = Checkpoint::open(fixture("gpt2")).unwrap();
    for name in ["gpt2-sharded", "gpt2-bin", "gpt2-bin-legacy", "gpt2-bin-sharded"] {
        let mut checkpoint = Checkpoint::open(fixture(name)).unwrap();
        for tensor in expected.names() {
            assert_eq!(read(&mut checkpoint, &tensor), read(&mut expected, &tensor), "{tensor} of {name}");
        }
        assert!(checkpoint.config().unwrap().contains("GPT2LMHeadModel"));
    }
}

#[test]
fn mapped_and_copied_are_equal() {
    let mut mapped = Checkpoint::open_with(fixture("gpt2"), Access::Map).unwrap();
    let mut copied = Checkpoint::open_with(fixture("gpt2"), Access::Copy).unwrap();
    for tensor in mapped.names() {
        assert_eq!(read(&mut mapped, &tensor), read(&mut copied, &tensor), "{tensor}");
    }
}

#[test]
fn half_types_keep_their_dtype() {
    for (name, dtype) in [("gpt2-bf16", DType::BF16), ("gpt2-f16", DType::F16)] {
        let mut checkpoint = Checkpoint::open(fixture(name)).unwrap();
        for tensor in checkpoint.names() {
            assert_eq!(read(&mut checkpoint, &tensor).dtype(), dtype, "{tensor} of {name}");
        }
    }
}

#[test]
fn what_was_read_is_remembered() {
    let folder = folder(&[("model.safetensors", &two_tensors())]);
    let mut checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.unread(), ["a", "b"]);
    checkpoint.get("a", &[2, 2]).unwrap();
    checkpoint.get("a", &[2, 2]).unwrap();
    assert_eq!(checkpoint.unread(), ["b"]);
}

#[test]
fn a_tensor_outlives_its_checkpoint() {
    let mut bytes = Vec::new();
    let values: Vec<f32> = (0..50_000_u16).map(f32::from).collect();
    let size = values.len() * 4;
    bytes.extend(safetensors(
        &format!(r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{size}]}}}}"#, values.len()),
        &floats(&values),
    ));
    let folder = folder(&[("model.safetensors", &bytes)]);
    let mut checkpoint = Checkpoint::open(folder.path()).unwrap();
    let first = checkpoint.get("a", &[values.len()]).unwrap();
    // Dropping a tensor hands its pages back; another over the same bytes stays whole.
    drop(checkpoint.get("a", &[values.len()]).unwrap());
    drop(checkpoint);
    assert_eq!(first.try_to_vec::<f32>().unwrap(), values);
}

/// Fewer than two of eight tensors are resident at a time, also where they have to be copied.
#[cfg(target_os = "linux")]
#[test]
fn pages_of_dropped_tensors_are_handed_back() {
    const TENSORS: usize = 8;
    const SIZE: usize = 16 << 20;
    let entry = |i: usize| {
        let (elements, start, end) = (SIZE / 4, i * SIZE, (i + 1) * SIZE);
        format!(r#""t{i}":{{"dtype":"F32","shape":[{elements}],"data_offsets":[{start},{end}]}}"#)
    };
    let resident = || -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    };
    for misalign in [0, 1] {
        let mut header = format!("{{{}}}", (0..TENSORS).map(entry).collect::<Vec<_>>().join(","));
        let padding = header.len().next_multiple_of(8) - header.len() + misalign;
        header.push_str(&" ".repeat(padding));
        let folder = folder(&[("model.safetensors", &safetensors(&header, &vec![0; TENSORS * SIZE]))]);
        let mut checkpoint = Checkpoint::open(folder.path()).unwrap();
        let before = resident();
        for i in 0..TENSORS {
            drop(checkpoint.get(&format!("t{i}"), &[SIZE / 4]).unwrap());
            assert!(resident() < before + 2 * SIZE, "after tensor {i}, misaligned by {misalign}");
        }
    }
}

#[test]
fn a_misaligned_tensor_is_copied() {
    for (pad, dtype, size) in [(0, "F32", 4), (1, "F32", 4), (2, "F64", 8), (3, "BF16", 2)] {
        let header = format!(
            r#"{{"a":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{}]}}}}{}"#,
            2 * size,
            " ".repeat(pad)
        );
        let folder = folder(&[("model.safetensors", &safetensors(&header, &vec![0; 2 * size]))]);
        let data = Checkpoint::open(folder.path()).unwrap().get("a", &[2]).unwrap();
        assert_eq!(data.as_bytes().as_ptr().addr() % size, 0, "{dtype} after {pad} bytes of padding");
        assert_eq!(data.convert_dtype(DType::F32).try_to_vec::<f32>().unwrap(), [0.0, 0.0]);
    }
}

#[test]
fn scalars_and_empty_tensors() {
    let header = r#"{"e":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    let folder = folder(&[("model.safetensors", &safetensors(header, &floats(&[7.0])))]);
    let mut checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.get("s", &[]).unwrap().try_to_vec::<f32>().unwrap(), [7.0]);
    assert!(checkpoint.get("e", &[0, 3]).unwrap().as_bytes().is_empty());
}

#[test]
fn a_missing_tensor_names_the_nearest() {
    let error = Checkpoint::open(fixture("gpt2")).unwrap().get("transformer.wte.wieght", &[1]).unwrap_err();
    assert_says(&error, &["transformer.wte.wieght", "fixtures/gpt2", "transformer.wte.weight"]);
}

#[test]
fn a_wrong_shape_names_the_shard() {
    let mut checkpoint = Checkpoint::open(fixture("gpt2-sharded")).unwrap();
    let error = checkpoint.get("transformer.wte.weight", &[5, 7]).unwrap_err();
    assert!(matches!(error, WeightError::Shape { .. }));
    assert_says(&error, &["transformer.wte.weight", "-of-00003.safetensors", "[5, 7]"]);
    assert_eq!(checkpoint.unread().len(), checkpoint.names().len(), "a refused tensor counts as read");
}

#[test]
fn nan_is_refused_wherever_it_is() {
    for (dtype, nan, width) in
        [("F32", &[0_u8, 0, 0xc0, 0x7f][..], 4), ("BF16", &[0xc0, 0x7f], 2), ("F16", &[0, 0x7e], 2)]
    {
        let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":[3],"data_offsets":[0,{}]}}}}"#, 3 * width);
        let mut data = vec![0; 2 * width];
        data.extend_from_slice(nan);
        let folder = folder(&[("model.safetensors", &safetensors(&header, &data))]);
        let error = Checkpoint::open(folder.path()).unwrap().get("a", &[3]).unwrap_err();
        assert_says(&error, &["`a`", "model.safetensors", "NaN", "index 2"]);
    }
}

#[test]
fn integers_are_no_weights_but_do_no_harm() {
    for dtype in ["I64", "BOOL", "F8_E4M3"] {
        let size = if dtype == "I64" { 8 } else { 1 };
        let header = format!(
            r#"{{"mask":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,{size}]}},"w":{{"dtype":"F32","shape":[1],"data_offsets":[{size},{}]}}}}"#,
            size + 4
        );
        let folder = folder(&[("model.safetensors", &safetensors(&header, &vec![0; size + 4]))]);
        let mut checkpoint = Checkpoint::open(folder.path()).unwrap();
        checkpoint.get("w", &[1]).unwrap();
        let error = checkpoint.get("mask", &[1]).unwrap_err();
        assert!(matches!(error, WeightError::Dtype { .. }), "{dtype}: {error:?}");
        assert_says(&error, &["mask", "model.safetensors"]);
    }
}

#[test]
fn the_first_kind_of_weights_wins() {
    let good = two_tensors();
    let folder =
        folder(&[("model.safetensors", &good), ("pytorch_model.bin", b"junk"), ("x.safetensors", b"junk")]);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().names(), ["a", "b"]);
    fs::rename(folder.path().join("model.safetensors"), folder.path().join("y.safetensors")).unwrap();
    assert_says(&Checkpoint::open(folder.path()).unwrap_err(), &["pytorch_model.bin"]);
    fs::remove_file(folder.path().join("pytorch_model.bin")).unwrap();
    assert_says(&Checkpoint::open(folder.path()).unwrap_err(), &["several *.safetensors"]);
    fs::remove_file(folder.path().join("x.safetensors")).unwrap();
    assert_eq!(Checkpoint::open(folder.path()).unwrap().names(), ["a", "b"]);
}

#[test]
fn a_folder_without_weights_says_what_was_looked_for() {
    let folder = folder(&[("config.json", b"{}")]);
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert_says(&error, &["model.safetensors", "pytorch_model.bin", folder.path().to_str().unwrap()]);
    assert_says(&Checkpoint::open(folder.path().join("no")).unwrap_err(), &["no"]);
    let error = Checkpoint::open(folder.path().join("config.json")).unwrap_err();
    assert!(matches!(error, IoError::NotAFolder { .. }), "{error:?}");
}

#[test]
fn a_folder_without_config_opens_but_has_none() {
    let folder = folder(&[("model.safetensors", &two_tensors())]);
    assert_says(&Checkpoint::open(folder.path()).unwrap().config().unwrap_err(), &["config.json"]);
    let file = Checkpoint::open_file(folder.path().join("model.safetensors")).unwrap();
    assert_eq!(file.names(), ["a", "b"]);
    assert!(file.config().is_err());
}

#[test]
fn an_index_that_lies() {
    let shard = two_tensors();
    let check = |index: &str, parts: &[&str]| {
        let folder =
            folder(&[("s1.safetensors", &shard), ("model.safetensors.index.json", index.as_bytes())]);
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert_says(&error, parts);
        assert_says(&error, &["model.safetensors.index.json"]);
    };
    check(
        r#"{"weight_map":{"a":"s1.safetensors","c":"s2.safetensors","d":"s2.safetensors"}}"#,
        &["`c`", "1 more", "s2.safetensors"],
    );
    check(
        r#"{"weight_map":{"a":"s1.safetensors","bb":"s1.safetensors"}}"#,
        &["`bb`", "s1.safetensors", "nearest", "b"],
    );
    check(r#"{"weight_map":{"a":"../s1.safetensors"}}"#, &["`a`", "../s1.safetensors", "inside the folder"]);
    check(r#"{"weight_map":{"a":"/etc/passwd"}}"#, &["/etc/passwd"]);
    check(r#"{"weight_map":{"a":""}}"#, &["inside the folder"]);
    check(r#"{"weight_map":{"a":1}}"#, &["not a file name"]);
    check(r#"{"weight_map":{}}"#, &["empty"]);
    check("{}", &["weight_map"]);
    check("{", &["JSON"]);
}

#[test]
fn a_tensor_that_the_index_forgets_is_still_there() {
    let index = br#"{"weight_map":{"a":"s1.safetensors"}}"#;
    let folder = folder(&[("s1.safetensors", &two_tensors()), ("model.safetensors.index.json", index)]);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().unread(), ["a", "b"]);
}

#[test]
fn a_real_model_opens() {
    let Some(folder) = shared_model("stories260k") else { return };
    let mut checkpoint = Checkpoint::open(folder).unwrap();
    for tensor in checkpoint.names() {
        read(&mut checkpoint, &tensor);
    }
    assert!(checkpoint.unread().is_empty());
}

fn read(checkpoint: &mut Checkpoint, name: &str) -> TensorData {
    let shape = checkpoint.shape(name).unwrap_or_default();
    checkpoint.get(name, &shape).unwrap()
}
