//! Any text as `config.json`: a configuration or an error, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = burn_lens_models::architecture_config(text);
});
