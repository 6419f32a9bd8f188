//! Any bytes as a safetensors file: tensors or an error, never a panic.
#![no_main]

use std::io::Write as _;

use burn_lens_io::Checkpoint;
use burn_lens_tensor::Weights as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::Builder::new().suffix(".safetensors").tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room for a few kilobytes");
    let Ok(mut checkpoint) = Checkpoint::open_file(file.path()) else { return };
    for name in checkpoint.names() {
        let shape = checkpoint.shape(&name).expect("a listed tensor has a shape");
        let _ = checkpoint.get(&name, &shape);
    }
});
