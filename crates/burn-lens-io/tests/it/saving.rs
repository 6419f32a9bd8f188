//! Files written whole or not at all.

use std::{collections::BTreeMap, fs, io};

use burn::tensor::{DType, TensorData};
use burn_lens_io::{read_safetensors, save_safetensors, write_atomically};
use proptest::prelude::*;

use crate::support::{assert_says, folder, message};

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = folder(&[("a.txt", b"old")]);
    let path = folder.path().join("a.txt");
    let error = write_atomically(&path, |file| {
        file.write_all(b"half of the new")?;
        Err(io::Error::other("disk on fire"))
    })
    .unwrap_err();
    assert_says(&error, &["a.txt", "disk on fire"]);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = folder(&[]);
    let error = write_atomically(folder.path().join("no/a.txt"), |_| Ok(())).unwrap_err();
    assert_says(&error, &["no/a.txt"]);
}

#[cfg(unix)]
#[test]
fn permissions_are_those_of_a_normal_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

    let folder = folder(&[("plain", b"")]);
    let path = folder.path().join("new");
    write_atomically(&path, |_| Ok(())).unwrap();
    assert_eq!(mode(&path), mode(&folder.path().join("plain")));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    write_atomically(&path, |_| Ok(())).unwrap();
    assert_eq!(mode(&path), 0o640);
}

#[test]
fn every_dtype_comes_back() {
    let folder = folder(&[]);
    let path = folder.path().join("acts.safetensors");
    let floats = TensorData::new(vec![1.0_f32, -2.5, f32::NAN], [3]);
    let tensors = BTreeMap::from([
        ("f32".to_owned(), floats.clone()),
        ("f64".to_owned(), floats.clone().convert_dtype(DType::F64)),
        ("bf16".to_owned(), floats.clone().convert_dtype(DType::BF16)),
        ("f16".to_owned(), floats.convert_dtype(DType::F16)),
        ("i32".to_owned(), TensorData::new(vec![-1_i32, 2], [2, 1])),
        ("i64".to_owned(), TensorData::new(vec![i64::MIN], [1])),
        ("u8".to_owned(), TensorData::new(vec![255_u8, 0, 1], [3])),
        ("bool".to_owned(), TensorData::new(vec![true, false, true], [3])),
        ("empty".to_owned(), TensorData::new(Vec::<f32>::new(), [0, 4])),
    ]);
    save_safetensors(&path, tensors.clone(), BTreeMap::new()).unwrap();
    let read = read_safetensors(&path).unwrap();
    assert_eq!(read.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
    for (name, data) in &tensors {
        assert_eq!(read[name].dtype(), data.dtype(), "{name}");
        assert_eq!(read[name].shape(), data.shape(), "{name}");
        assert_eq!(read[name].as_bytes(), data.as_bytes(), "{name}");
    }
}

#[test]
fn equal_input_gives_equal_files() {
    let folder = folder(&[]);
    let about: BTreeMap<String, String> = (0..20).map(|i| (format!("key{i}"), "value".to_owned())).collect();
    let save = |name: &str, order: &[&str]| {
        let path = folder.path().join(name);
        let tensors = order.iter().map(|name| ((*name).to_owned(), TensorData::new(vec![1.0_f32], [1])));
        save_safetensors(&path, tensors, about.clone()).unwrap();
        fs::read(path).unwrap()
    };
    let file = save("1", &["a", "b", "c"]);
    assert_eq!(file, save("2", &["c", "a", "b"]));
    assert!(file.windows(15).any(|bytes| bytes == br#""key7":"value","#.as_slice()));
    // The reference implementation reads it.
    assert_eq!(safetensors::SafeTensors::deserialize(&file).unwrap().len(), 3);
}

#[test]
fn a_name_twice_is_refused() {
    let folder = folder(&[]);
    let tensor = |name: &str| (name.to_owned(), TensorData::new(vec![1.0_f32], [1]));
    for names in [["a", "a"], ["a", "__metadata__"]] {
        let error =
            save_safetensors(folder.path().join("x"), names.map(tensor), BTreeMap::new()).unwrap_err();
        assert_says(&error, &["x", names[1]]);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tensors_with_any_names_come_back(
        tensors in prop::collection::btree_map(".{0,20}", prop::collection::vec(any::<i32>(), 0..9), 0..5),
        about in prop::collection::btree_map(".*", ".*", 0..3),
    ) {
        let folder = folder(&[]);
        let path = folder.path().join("t");
        let tensors: BTreeMap<String, TensorData> =
            tensors.into_iter().map(|(name, values)| { let len = values.len(); (name, TensorData::new(values, [len])) }).collect();
        save_safetensors(&path, tensors.clone(), about).map_err(|e| TestCaseError::fail(message(&e)))?;
        prop_assert_eq!(read_safetensors(&path).map_err(|e| TestCaseError::fail(message(&e)))?, tensors);
    }
}
