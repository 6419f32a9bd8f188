//! `PyTorch` files: nothing in them is executed, and only tensors are read.

use std::{fs, io::Write as _};

use burn_lens_io::{Checkpoint, IoError};
use burn_lens_tensor::Weights;
use proptest::prelude::*;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::support::{assert_says, fixture, folder};

#[test]
fn files_that_name_other_code_are_refused() {
    for file in ["pytorch_model.bin", "pytorch_model.legacy.bin"] {
        let error = Checkpoint::open_file(fixture("malicious").join(file)).unwrap_err();
        assert!(matches!(error, IoError::PickleGlobal { .. }), "{file}: {error:?}");
        assert_says(&error, &[file, "posix.system", "nothing in it was executed"]);
    }
}

#[test]
fn code_hidden_where_the_reader_would_not_look_is_refused() {
    // A call whose result is dropped, one by STACK_GLOBAL, and one named twice in the memo.
    for pickle in [
        &b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00ls\x85R0}."[..],
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x02ls\x85R0}.",
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94NN00h\x00h\x01\x930}.",
    ] {
        let folder = folder(&[("a.pt", pickle), ("b.pt", &zipped(pickle))]);
        for file in ["a.pt", "b.pt"] {
            let error = Checkpoint::open_file(folder.path().join(file)).unwrap_err();
            assert_says(&error, &[file, ".system"]);
        }
    }
}

#[test]
fn shared_and_transposed_storages_are_gathered() {
    for name in ["gpt2-bin", "gpt2-bin-legacy"] {
        let mut checkpoint = Checkpoint::open(fixture(name)).unwrap();
        let shape = checkpoint.shape("lm_head.weight").unwrap();
        let head = checkpoint.get("lm_head.weight", &shape).unwrap();
        assert_eq!(head, checkpoint.get("transformer.wte.weight", &shape).unwrap());
    }
}

#[test]
fn what_is_no_checkpoint_says_so() {
    for junk in [&b""[..], b"PK\x03\x04", b"hello", b"\x80\x02", b"\x80\x02N."] {
        let folder = folder(&[("pytorch_model.bin", junk)]);
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(matches!(error, IoError::Torch { .. }), "{junk:?}: {error:?}");
        assert_says(&error, &["pytorch_model.bin"]);
    }
}

#[test]
fn a_truncated_file_is_an_error_that_names_it() {
    for name in ["gpt2-bin", "gpt2-bin-legacy"] {
        let whole = fs::read(fixture(name).join("pytorch_model.bin")).unwrap();
        for keep in [10, whole.len() / 2, whole.len() - 1] {
            let folder = folder(&[("pytorch_model.bin", &whole[..keep])]);
            let error = read_all(folder.path()).unwrap_err();
            assert_says(&*error, &["pytorch_model.bin"]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a few changed bytes do, the answer is a value or an error.
    #[test]
    fn damaged_files_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), legacy: bool) {
        let name = if legacy { "gpt2-bin-legacy" } else { "gpt2-bin" };
        let mut bytes = fs::read(fixture(name).join("pytorch_model.bin")).unwrap();
        // Half of the changes in the part that holds no tensor bytes.
        for (number, (at, value)) in changes.into_iter().enumerate() {
            let end = if number % 2 == 0 { 3000.min(bytes.len()) } else { bytes.len() };
            let at = at.index(end);
            bytes[at] = value;
        }
        let folder = folder(&[("pytorch_model.bin", &bytes)]);
        let _ = read_all(folder.path());
    }
}

fn read_all(folder: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut checkpoint = Checkpoint::open(folder)?;
    for name in checkpoint.names() {
        let shape = checkpoint.shape(&name).unwrap();
        checkpoint.get(&name, &shape)?;
    }
    Ok(())
}

fn zipped(pickle: &[u8]) -> Vec<u8> {
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file("archive/data.pkl", SimpleFileOptions::default()).unwrap();
    archive.write_all(pickle).unwrap();
    archive.finish().unwrap().into_inner()
}
