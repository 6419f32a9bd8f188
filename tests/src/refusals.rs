//! Bad input gets an error that names what is wrong; never a panic.

use burn_lens::{hooks::RunError, models::architecture_config, prelude::*};
use burn_lens_testkit::{fixture, fixtures};
use proptest::prelude::*;

use crate::common::open;

fn ids(rows: &[&[i64]], model: &HookedTransformer) -> Input {
    let values: Vec<i64> = rows.concat();
    let pos = rows.first().map_or(0, |row| row.len());
    let data = burn::tensor::TensorData::new(values, [rows.len(), pos]);
    Input::Tokens(Tensor::from_data(data, &model.device()))
}

#[test]
fn inputs_that_do_not_fit() {
    let (model, _) = open("gpt2", FloatType::F32);
    let fails =
        |input: Input, options: RunOptions| model.run_with_hooks(&input, &options, vec![]).unwrap_err();
    let plain = RunOptions::default;
    let too_large = fails(ids(&[&[1, 2], &[3, 37]], &model), plain());
    let expected = "token 37 at row 1, position 1 is outside the vocabulary of 37";
    assert_eq!(too_large.to_string(), expected);
    assert!(matches!(fails(ids(&[&[-1]], &model), plain()), RunError::TokenOutOfRange { token: -1, .. }));
    let long = vec![0; 33];
    assert!(matches!(fails(ids(&[&long], &model), plain()), RunError::TooLong { pos: 33, n_ctx: 32 }));
    let resid = || Input::Resid(Tensor::zeros([1, 2, 16], &model.device()));
    assert!(matches!(fails(resid(), plain()), RunError::Options(_)));
    let start = |layer| RunOptions { start_at_layer: Some(layer), ..plain() };
    assert!(matches!(fails(ids(&[&[1]], &model), start(1)), RunError::Options(_)));
    assert!(matches!(fails(resid(), start(3)), RunError::LayerOutOfRange { layer: 3, .. }));
    assert!(matches!(fails(resid(), start(-3)), RunError::LayerOutOfRange { layer: -3, .. }));
    let narrow = Input::Embeds(Tensor::zeros([1, 2, 8], &model.device()));
    assert!(matches!(fails(narrow, plain()), RunError::InputShape { .. }));
    let loss = RunOptions::returning(ReturnType::Loss);
    assert!(matches!(fails(ids(&[&[1]], &model), loss.clone()), RunError::InputShape { .. }));
    let embeds = Input::Embeds(Tensor::zeros([1, 2, 16], &model.device()));
    assert!(fails(embeds, loss).to_string().contains("labels"));
    let mask = RunOptions { attention_mask: Some(Tensor::ones([1, 3], &model.device())), ..plain() };
    assert!(matches!(fails(ids(&[&[1, 2]], &model), mask), RunError::InputShape { .. }));
}

fn error_of(config: &str) -> String {
    architecture_config(config).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn configurations_that_are_not_understood() {
    let text = std::fs::read_to_string(fixture("llama-gqa").join("config.json")).unwrap();
    let edit = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        error_of(&text.replace(from, to))
    };
    assert!(edit("LlamaForCausalLM", "LamaForCausalLM").contains("did you mean LlamaForCausalLM"));
    let unread = edit("\"vocab_size\"", "\"secret_sauce\": 3, \"vocab_size\"");
    assert!(unread.contains("secret_sauce"), "{unread}");
    assert!(edit("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3").contains("divisor"));
    assert!(edit("\"hidden_size\": 16", "\"hidden_size\": \"16\"").contains("`hidden_size` is \"16\""));
    assert!(edit("\"hidden_size\": 16", "\"hidden_size\": 0").contains("hidden_size"));
    assert!(edit("\"hidden_act\": \"silu\"", "\"hidden_act\": \"sillu\"").contains("did you mean silu"));
    assert!(edit("\"default\"", "\"longrope\"").contains("longrope"));
    assert!(error_of("[]").contains("not valid JSON"));
    assert!(error_of("{}").contains("class is unknown"));
    assert!(error_of("").contains("not valid JSON"));
    let opt = std::fs::read_to_string(fixture("opt").join("config.json")).unwrap();
    let post_norm = opt.replace("\"do_layer_norm_before\": true", "\"do_layer_norm_before\": false");
    assert!(error_of(&post_norm).contains("post-norm OPT"));
    let shortformer = std::fs::read_to_string(fixture("tl-shortformer").join("config.json")).unwrap();
    assert!(error_of(&shortformer).contains("shortformer"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a configuration says, the answer is a model or an error.
    #[test]
    fn mutated_configurations_never_panic(which in 0usize..1000, key in 0usize..1000, value in 0usize..12) {
        let names = fixtures(|name| fixture(name).join("config.json").exists());
        let text = std::fs::read_to_string(fixture(&names[which % names.len()]).join("config.json")).unwrap();
        let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        let keys: Vec<String> = config.keys().cloned().collect();
        let values = [
            "null", "0", "1", "-1", "3", "1e300", "18446744073709551615", "\"x\"", "[]", "{}", "true", "[[[\"local\"],9999999999]]",
        ];
        config.insert(keys[key % keys.len()].clone(), serde_json::from_str(values[value]).unwrap());
        let _ = architecture_config(&serde_json::to_string(&config).unwrap());
    }
}
