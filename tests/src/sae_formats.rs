//! Dictionaries in the formats of other programs, against what those programs' own code makes of them.

use std::path::{Path, PathBuf};

use burn_lens::{
    Error,
    burn::tensor::{Tensor, TensorData},
    load_sae,
    sae::SaeOptions,
    save_sae,
};
use burn_lens_testkit::{Golden, Tolerance, assert_close, device, finest, fixture, fixtures};
use serde_json::Value;

fn options() -> SaeOptions {
    SaeOptions { dtype: finest(), ..SaeOptions::on(&device()) }
}

fn manifest(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name).join("MANIFEST.json")).unwrap()).unwrap()
}

fn path(name: &str) -> PathBuf {
    fixture(name).join(manifest(name)["path"].as_str().unwrap())
}

fn inputs(golden: &Golden) -> Tensor<3> {
    Tensor::from_data(golden.get("x").clone(), (&device(), finest().dtype()))
}

#[test]
fn every_format_means_what_its_own_program_means() {
    let names = fixtures(|name| name.starts_with("saeformat-"));
    assert!(names.len() >= 19, "{names:?}");
    for name in names {
        let sae = load_sae(path(&name), &options()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let golden = Golden::open(fixture(&name).join("cases.safetensors"));
        let x = inputs(&golden);
        assert_close(
            &format!("{name} acts"),
            &sae.encode_dense(x.clone()).into_data(),
            golden.get("acts"),
            Tolerance::finest(1e-10),
        );
        assert_close(
            &format!("{name} recons"),
            &sae.forward_dense(x).into_data(),
            golden.get("recons"),
            Tolerance::finest(1e-10),
        );
        let (config, manifest) = (sae.config(), manifest(&name));
        assert_eq!(config.hook_name.as_deref(), manifest["hook"].as_str(), "{name}");
        assert_eq!(config.hook_name_out.as_deref(), manifest["hook_out"].as_str(), "{name}");
        config.hook_in().and_then(|_| config.hook_out()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn whatever_was_read_is_saved_in_the_format_of_saelens() {
    let folder = tempfile::tempdir().unwrap();
    for name in fixtures(|name| name.starts_with("saeformat-")) {
        let sae = load_sae(path(&name), &options()).unwrap();
        let to = folder.path().join("new.folder").join(&name);
        save_sae(&*sae, &to).unwrap();
        let back = load_sae(&to, &options()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let x = inputs(&Golden::open(fixture(&name).join("cases.safetensors")));
        // Transposed matrices are multiplied by other kernels.
        let (found, expected) = (back.forward_dense(x.clone()).into_data(), sae.forward_dense(x).into_data());
        assert_close(&name, &found, &expected, Tolerance::finest(1e-10));
        assert_eq!(
            (back.kind(), back.config().hook_in().unwrap()),
            (sae.kind(), sae.config().hook_in().unwrap())
        );
    }
}

fn copied(name: &str) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let from = entry.unwrap().path();
            let to = to.join(from.file_name().unwrap());
            if from.is_dir() {
                copy(&from, &to);
            } else {
                std::fs::copy(&from, &to).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&path(name), folder.path());
    folder
}

/// The error and its causes.
fn message(path: &Path, options: &SaeOptions) -> String {
    let error: Error = load_sae(path, options).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn what_is_wrong_is_named_with_its_file() {
    let check = |name: &str, break_it: &dyn Fn(&Path), expected: &[&str]| {
        let folder = copied(name);
        break_it(folder.path());
        let found = message(folder.path(), &options());
        for part in expected {
            assert!(found.contains(part), "{name}: `{found}` does not say `{part}`");
        }
    };
    let edit = |file: &'static str, from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(path, text.replace(from, to)).unwrap();
        }
    };
    check(
        "saeformat-sparsify",
        &edit("cfg.json", "\"topk\"", "\"softmax\""),
        &["cfg.json", "`activation`", "groupmax"],
    );
    check(
        "saeformat-sparsify",
        &edit("cfg.json", "\"d_in\": 8", "\"d_in\": 6"),
        &["sae.safetensors", "encoder.weight", "[24, 8]"],
    );
    check(
        "saeformat-dictionary-learning-batchtopksae",
        &edit("config.json", "\"BatchTopKSAE\"", "\"IdentityDict\""),
        &["config.json", "`dict_class`", "AutoEncoderTopK"],
    );
    // The file of another class.
    check(
        "saeformat-dictionary-learning-autoencoder",
        &edit("config.json", "\"AutoEncoder\"", "\"AutoEncoderNew\""),
        &["decoder.bias", "missing", "ae.pt"],
    );
    check(
        "saeformat-dictionary-learning-batchtopksae",
        &edit("config.json", "\"BatchTopKSAE\"", "\"AutoEncoder\""),
        &["`bias` is missing"],
    );
    check(
        "saeformat-llama-scope",
        &edit("hyperparams.json", "\"dataset-wise\"", "\"token-wise\""),
        &["norm_activation"],
    );
    check(
        "saeformat-llama-scope",
        &edit("hyperparams.json", "\"in\": 5.5", "\"in\": null"),
        &["expected_average_only_in"],
    );
    check(
        "saeformat-original",
        &|folder| std::fs::remove_file(folder.join("25_cfg.json")).unwrap(),
        &["no format", "W_enc", "SAELens"],
    );
    check(
        "saeformat-original",
        &|folder| std::fs::write(folder.join("25.pt"), b"PK\x03\x04").unwrap(),
        &["25.pt"],
    );
    check(
        "saeformat-gemma-scope",
        &|folder| std::fs::write(folder.join("params.npz"), b"PK\x03\x04 and more").unwrap(),
        &["params.npz"],
    );
    check(
        "saeformat-gemma-scope",
        &|folder| std::fs::remove_file(folder.join("params.npz")).unwrap(),
        &["sae_weights.safetensors"],
    );
    let folder = tempfile::tempdir().unwrap();
    let none = message(&folder.path().join("no-such-folder"), &options());
    assert!(none.contains("no-such-folder") && none.contains("neither a folder"), "{none}");
}

#[test]
fn no_pickle_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for entry in std::fs::read_dir(fixture("malicious")).unwrap() {
        let from = entry.unwrap().path();
        if from.extension().is_some_and(|extension| extension == "bin" || extension == "pt") {
            let to = folder.path().join(format!("{tried}")).join("ae.pt");
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&from, &to).unwrap();
            assert!(load_sae(to.parent().unwrap(), &options()).is_err(), "{}", from.display());
            tried += 1;
        }
    }
    assert!(tried > 0);
}

#[test]
fn what_the_files_do_not_say_can_be_said() {
    let folder = copied("saeformat-gemma-scope");
    let sae = load_sae(folder.path(), &options()).unwrap();
    assert!(sae.config().hook_in().unwrap_err().to_string().contains("--hook"));
    let told = SaeOptions { hook_name: Some("blocks.0.hook_resid_post".to_owned()), ..options() };
    assert_eq!(
        load_sae(folder.path(), &told).unwrap().config().hook_in().unwrap().to_string(),
        "blocks.0.hook_resid_post"
    );
    let two = SaeOptions { k: Some(2), ..options() };
    let sae = load_sae(path("saeformat-openai-topk"), &two).unwrap();
    let x = inputs(&Golden::open(fixture("saeformat-openai-topk").join("cases.safetensors")));
    assert_eq!(sae.encode(x).unwrap().row(0).0.len(), 2);
}

#[test]
fn a_cross_layer_transcoder_is_read_from_many_files() {
    let folder = tempfile::tempdir().unwrap();
    let save = |file: &str, tensors: &[(&str, &[usize])]| {
        let tensors = tensors.iter().map(|(name, shape)| {
            let len: usize = shape.iter().product();
            let values: Vec<f32> = (0..len).map(|at| at as f32 / 10.0 - 0.5).collect();
            ((*name).to_owned(), TensorData::new(values, shape.to_vec()))
        });
        let metadata = std::collections::BTreeMap::new();
        burn_lens::io::save_safetensors(folder.path().join(file), tensors, metadata).unwrap();
    };
    save("W_enc_0.safetensors", &[("W_enc_0", &[5, 3]), ("b_enc_0", &[5]), ("b_dec_0", &[3])]);
    save("W_enc_1.safetensors", &[("W_enc_1", &[5, 3]), ("b_enc_1", &[5]), ("b_dec_1", &[3])]);
    save("W_dec_0.safetensors", &[("W_dec_0", &[5, 2, 3])]);
    let error =
        |folder: &Path| burn_lens::load_cross_layer_transcoder(folder, &options()).unwrap_err().to_string();
    let found = error(folder.path());
    assert!(found.contains("`W_dec_1` is missing"), "{found}");
    let configured = |text: &str| std::fs::write(folder.path().join("config.yaml"), text).unwrap();
    save("W_dec_1.safetensors", &[("W_dec_1", &[5, 1, 3])]);
    let load = || burn_lens::load_cross_layer_transcoder(folder.path(), &options()).unwrap();
    let (plain, hook) = (load(), |hook: &str| hook.parse().unwrap());
    assert_eq!((plain.n_layers(), plain.model_name()), (2, None));
    assert_eq!(plain.hook_in(1).unwrap(), hook("blocks.1.hook_resid_mid"));
    configured(
        "# of the stream before the MLP\nmodel_name: \"org/tiny\"\nmodel_kind: cross_layer_transcoder\n\
         feature_input_hook: ln2.hook_normalized\nfeature_output_hook: 'hook_mlp_out'\nscan: [a, b]\n",
    );
    let named = load();
    assert_eq!(named.model_name(), Some("org/tiny"));
    assert_eq!(named.hook_in(0).unwrap(), hook("blocks.0.ln2.hook_normalized"));
    assert_eq!(named.hook_out(1).unwrap(), hook("blocks.1.hook_mlp_out"));
    for (config, said) in [
        ("model_kind: transcoder_set", "cross_layer_transcoder"),
        ("feature_input_hook: hook_nowhere", "does not exist"),
        ("feature_input_hook: [3", "YAML"),
    ] {
        configured(config);
        assert!(error(folder.path()).contains(said), "{}", error(folder.path()));
    }
    std::fs::remove_file(folder.path().join("config.yaml")).unwrap();
    save("more.safetensors", &[("W_dec_1", &[5, 1, 3])]);
    let found = error(folder.path());
    assert!(found.contains("more.safetensors") && found.contains("W_dec_1"), "{found}");
}
