//! Running the binary, reading and writing safetensors, small models.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Agreement with reference implementations, which computed in f64.
pub(crate) const TOLERANCE: f64 = 1e-4;

/// The folder of a fixture.
pub(crate) fn fixture(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    root.join(name).to_str().unwrap().to_owned()
}

/// A file of a fixture.
pub(crate) fn fixture_file(name: &str, file: &str) -> String {
    format!("{}/{file}", fixture(name))
}

/// What the command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the command in `folder`.
pub(crate) fn burn_lens_in(folder: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burn-lens"));
    command.current_dir(folder).args(args).env("HF_HUB_OFFLINE", "1").env_remove("RUST_BACKTRACE");
    said(command.output().unwrap())
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the command, which must succeed, and gives what it printed.
#[track_caller]
pub(crate) fn ok_in(folder: &Path, args: &[&str]) -> String {
    let said = burn_lens_in(folder, args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    said.out
}

#[track_caller]
pub(crate) fn json_in(folder: &Path, args: &[&str]) -> Value {
    let args = [args, &["--json", "--quiet"]].concat();
    serde_json::from_str(&ok_in(folder, &args)).unwrap()
}

/// Runs the command, which must fail with `code`, and gives what it said about it.
#[track_caller]
pub(crate) fn fails(code: i32, folder: &Path, args: &[&str]) -> String {
    let said = burn_lens_in(folder, args);
    assert_eq!(said.code, code, "{args:?}: {} {}", said.out, said.err);
    assert_eq!(said.out, "", "{args:?}: nothing is printed where nothing was computed");
    assert!(said.err.contains("error: ") && !said.err.contains("panicked"), "{args:?}: {}", said.err);
    said.err
}

/// A tensor as f64.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Array {
    pub(crate) fn f32(shape: &[usize], values: impl IntoIterator<Item = f64>) -> Self {
        Self { dtype: Dtype::F32, shape: shape.to_vec(), values: values.into_iter().collect() }
    }

    pub(crate) fn int(dtype: Dtype, shape: &[usize], values: impl IntoIterator<Item = i64>) -> Self {
        Self { dtype, shape: shape.to_vec(), values: values.into_iter().map(|value| value as f64).collect() }
    }

    /// The largest distance between corresponding values.
    #[track_caller]
    pub(crate) fn distance(&self, other: &Self) -> f64 {
        assert_eq!(self.shape, other.shape);
        let pairs = self.values.iter().zip(&other.values);
        // Equal infinities (masked scores) are no distance apart.
        pairs.map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() }).fold(0.0, f64::max)
    }

    /// The value at an index.
    pub(crate) fn at(&self, index: &[usize]) -> f64 {
        self.values[index.iter().zip(&self.shape).fold(0, |at, (index, len)| at * len + index)]
    }

    /// Every index with its value.
    pub(crate) fn cells(&self) -> Vec<(Vec<usize>, f64)> {
        let index = |mut at: usize| {
            let mut along = |&len: &usize| {
                let here = at % len;
                at /= len;
                here
            };
            let mut index: Vec<usize> = self.shape.iter().rev().map(&mut along).collect();
            index.reverse();
            index
        };
        self.values.iter().enumerate().map(|(at, &value)| (index(at), value)).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let each = |value: &f64| match self.dtype {
            Dtype::F32 => (*value as f32).to_le_bytes().to_vec(),
            Dtype::I32 => (*value as i32).to_le_bytes().to_vec(),
            Dtype::I64 => (*value as i64).to_le_bytes().to_vec(),
            other => panic!("{other:?} is not written here"),
        };
        self.values.iter().flat_map(each).collect()
    }
}

/// Every tensor of a file.
pub(crate) fn read(path: impl AsRef<Path>) -> BTreeMap<String, Array> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), array(&view))).collect()
}

/// The strings of a file's header.
pub(crate) fn metadata(path: impl AsRef<Path>) -> BTreeMap<String, String> {
    let bytes = fs::read(path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    metadata.metadata().clone().unwrap().into_iter().collect()
}

fn array(view: &TensorView<'_>) -> Array {
    let data = view.data();
    let values = match view.dtype() {
        Dtype::F64 => data.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        Dtype::F32 => data.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::BF16 => data.chunks(2).map(|b| f64::from(f32::from_le_bytes([0, 0, b[0], b[1]]))).collect(),
        Dtype::I32 => data.chunks(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::I64 => data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        Dtype::U16 => data.chunks(2).map(|b| f64::from(u16::from_le_bytes(b.try_into().unwrap()))).collect(),
        other => panic!("{other:?} is not read here"),
    };
    Array { dtype: view.dtype(), shape: view.shape().to_vec(), values }
}

/// Writes a file and gives its path.
pub(crate) fn write(folder: &Path, name: &str, tensors: &[(&str, Array)]) -> String {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, array)| array.bytes()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, array), bytes)| {
        (*name, TensorView::new(array.dtype, array.shape.clone(), bytes).unwrap())
    });
    let path = folder.join(name);
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// An empty folder.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The fixture `gpt2` with a tokenizer whose words are `w0` to `w36`, but `<s>` (BOS) for 1 and
/// `</s>` (EOS) for 2.
pub(crate) fn model_with_words(folder: &Path) -> PathBuf {
    let model = folder.join("words");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture_file("gpt2", file), model.join(file)).unwrap();
    }
    let vocab: BTreeMap<String, i64> = (0..37).map(|id| (word(id), id)).collect();
    let added = [1, 2].map(|id| {
        json!({
            "id": id, "content": word(id), "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": { "type": "Whitespace" },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w0" },
    });
    let config =
        json!({ "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": word(1), "eos_token": word(2) });
    fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(model.join("tokenizer_config.json"), config.to_string()).unwrap();
    model
}

/// The text of a token of that model.
pub(crate) fn word(id: i64) -> String {
    match id {
        1 => "<s>".to_owned(),
        2 => "</s>".to_owned(),
        id => format!("w{id}"),
    }
}
