//! Tokenizers against what the Python library says of the same files, and the BOS rules.

use std::{fs, path::Path};

use burn_lens_io::{IoError, Occurrence, PaddingSide, StrToken, TokenOptions, Tokenizer};
use serde_json::{Value, json};

use crate::support::{assert_says, fixture, folder, shared_model};

const ALL: [&str; 3] = ["tokenizer-byte-level", "tokenizer-byte-fallback", "tokenizer-word-level"];

#[test]
fn ids_are_those_of_the_python_library() {
    each_case(|tokenizer, text, prepend_bos, expected| {
        let ids = ids(&expected["ids"]);
        if ids.is_empty() {
            let error = tokenizer.to_tokens(&[text], TokenOptions::prepend_bos(prepend_bos)).unwrap_err();
            assert!(matches!(error, IoError::EmptyPrompt { index: 0 }));
            return;
        }
        let batch = tokenizer.to_tokens(&[text], TokenOptions::prepend_bos(prepend_bos)).unwrap();
        assert_eq!(batch.ids, std::slice::from_ref(&ids), "{text:?}");
        assert_eq!(batch.attention_mask, [vec![1; ids.len()]]);
    });
}

#[test]
fn strings_are_those_of_the_python_library() {
    each_case(|tokenizer, text, _, expected| {
        if let Some(string) = expected["string"].as_str() {
            assert_eq!(tokenizer.to_string(&ids(&expected["ids"])).unwrap(), string, "{text:?}");
        }
    });
}

#[test]
fn token_bytes_are_those_of_the_vocabulary() {
    each_case(|tokenizer, text, _, expected| {
        for (id, bytes) in
            ids(&expected["ids"]).into_iter().zip(expected["token_bytes"].as_array().into_iter().flatten())
        {
            let expected: Vec<u8> = serde_json::from_value(bytes.clone()).unwrap();
            assert_eq!(tokenizer.to_single_str_token(id).unwrap().bytes, expected, "token {id} of {text:?}");
        }
    });
}

#[test]
fn the_bytes_of_the_tokens_are_the_text() {
    for name in ["tokenizer-byte-level", "tokenizer-byte-fallback"] {
        let tokenizer = Tokenizer::from_folder(fixture(name)).unwrap();
        for case in cases(name)["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let tokens = tokenizer.to_str_tokens(text, Some(false)).unwrap();
            assert_eq!(String::from_utf8(bytes(&tokens)).unwrap(), text, "{name}");
            let tokens = tokenizer.to_str_tokens(text, Some(true)).unwrap();
            assert_eq!(String::from_utf8(bytes(&tokens[1..])).unwrap(), text, "{name}");
        }
    }
}

#[test]
fn parts_of_a_character_are_shown_as_escapes() {
    let tokenizer = Tokenizer::from_folder(fixture("tokenizer-byte-level")).unwrap();
    let tokens = tokenizer.to_str_tokens("‽", Some(false)).unwrap();
    assert_eq!(tokens.iter().map(|token| token.text.as_str()).collect::<String>(), r"\xe2\x80\xbd");
    assert_eq!(bytes(&tokens), "‽".as_bytes());
}

#[test]
fn batches_are_padded_as_the_python_library_pads() {
    for name in ALL {
        let (tokenizer, cases) = (Tokenizer::from_folder(fixture(name)).unwrap(), cases(name));
        let texts: Vec<&str> =
            cases["batch"]["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        for padded in cases["batch"]["padded"].as_array().unwrap() {
            let prepend_bos = padded["prepend_bos"].as_bool().unwrap();
            let side = if padded["padding_side"] == "left" { PaddingSide::Left } else { PaddingSide::Right };
            let rows: Vec<Vec<i64>> = padded["ids"].as_array().unwrap().iter().map(ids).collect();
            // An empty prompt without BOS is an error here; the library pads it to nothing but padding.
            let kept: Vec<usize> =
                (0..texts.len()).filter(|&row| prepend_bos || !texts[row].is_empty()).collect();
            let options =
                TokenOptions { prepend_bos: Some(prepend_bos), padding_side: Some(side), truncate_to: None };
            let batch = tokenizer
                .to_tokens(&kept.iter().map(|&row| texts[row]).collect::<Vec<_>>(), options)
                .unwrap();
            assert_eq!(batch.ids, kept.iter().map(|&row| rows[row].clone()).collect::<Vec<_>>(), "{name}");
            check_mask(&tokenizer, &batch.ids, &batch.attention_mask, side);
            if kept.len() < texts.len() {
                assert!(matches!(
                    tokenizer.to_tokens(&texts, options),
                    Err(IoError::EmptyPrompt { index: 2 })
                ));
            }
        }
    }
}

#[test]
fn special_ids_follow_the_fallbacks() {
    for name in ALL {
        let (tokenizer, cases) = (Tokenizer::from_folder(fixture(name)).unwrap(), cases(name));
        let id = |role: &str| cases["special_ids"][role].as_i64();
        assert_eq!(
            [tokenizer.bos(), tokenizer.eos(), tokenizer.unk()],
            [id("bos"), id("eos"), id("unk")],
            "{name}"
        );
        assert_eq!(tokenizer.pad(), cases["pad_id"].as_i64(), "{name}");
    }
}

#[test]
fn exactly_one_bos_whatever_the_post_processor_adds() {
    for template in [json!(null), bos_template()] {
        let tokenizer = word_level(&json!({"bos_token": "<s>"}), &template);
        let ids =
            |prepend_bos| tokenizer.to_tokens(&["a b"], TokenOptions::prepend_bos(prepend_bos)).unwrap().ids;
        assert_eq!(ids(true), [[1, 3, 4]]);
        assert_eq!(ids(false), [[3, 4]]);
        // One that is written is a token of the text.
        assert_eq!(tokenizer.to_tokens(&["<s>a"], TokenOptions::default()).unwrap().ids, [[1, 1, 3]]);
    }
}

#[test]
fn the_default_is_true_until_it_is_set() {
    let mut tokenizer = word_level(&json!({"bos_token": "<s>"}), &json!(null));
    let ids = |tokenizer: &Tokenizer, options| tokenizer.to_tokens(&["a"], options).unwrap().ids;
    assert_eq!(ids(&tokenizer, TokenOptions::default()), [[1, 3]]);
    tokenizer.set_default_prepend_bos(false);
    assert_eq!(ids(&tokenizer, TokenOptions::default()), [[3]]);
    assert_eq!(ids(&tokenizer, TokenOptions::prepend_bos(true)), [[1, 3]]);
}

#[test]
fn fallbacks_of_bos_eos_and_padding() {
    let check = |config: Value, [bos, eos, pad]: [Option<i64>; 3]| {
        let tokenizer = word_level(&config, &json!(null));
        assert_eq!([tokenizer.bos(), tokenizer.eos(), tokenizer.pad()], [bos, eos, pad], "{config}");
    };
    check(json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}}), [Some(1), Some(2), Some(2)]);
    check(json!({"eos_token": "</s>"}), [Some(2), Some(2), Some(2)]);
    check(json!({"bos_token": null, "pad_token": "a"}), [None, None, Some(3)]);
    check(json!({"bos_token": "<not in the vocabulary>"}), [None; 3]);
    check(json!({}), [None; 3]);
}

#[test]
fn special_tokens_map_is_read_too() {
    let folder = word_level_folder(&json!({}), &json!(null));
    fs::write(
        folder.path().join("special_tokens_map.json"),
        r#"{"bos_token":{"content":"<s>"},"eos_token":"</s>"}"#,
    )
    .unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!([tokenizer.bos(), tokenizer.eos()], [Some(1), Some(2)]);
}

#[test]
fn no_bos_token_is_an_error_that_says_so() {
    let tokenizer = word_level(&json!({}), &json!(null));
    let error = tokenizer.to_tokens(&["a"], TokenOptions::default()).unwrap_err();
    assert_says(&error, &["no BOS token", "`prepend_bos` false"]);
    assert_eq!(tokenizer.to_tokens(&["a"], TokenOptions::prepend_bos(false)).unwrap().ids, [[3]]);
    let error = tokenizer.to_tokens(&["a", "a b"], TokenOptions::prepend_bos(false)).unwrap_err();
    assert_says(&error, &["no padding token"]);
}

#[test]
fn settings_saved_in_the_file_do_not_leak() {
    let folder = word_level_folder(&json!({"bos_token": "<s>", "padding_side": "left"}), &json!(null));
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    tokenizer["truncation"] =
        json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]"});
    fs::write(&path, tokenizer.to_string()).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.to_tokens(&["a b a"], TokenOptions::default()).unwrap().ids, [[1, 3, 4, 3]]);
    assert_eq!(tokenizer.padding_side(), PaddingSide::Left);
}

#[test]
fn truncation_counts_bos_and_keeps_it() {
    let tokenizer = word_level(&json!({"bos_token": "<s>", "eos_token": "</s>"}), &bos_template());
    let ids = |truncate_to| {
        let options = TokenOptions { truncate_to: Some(truncate_to), ..TokenOptions::default() };
        tokenizer.to_tokens(&["a b a b", "a"], options).map(|batch| batch.ids)
    };
    assert_eq!(ids(3).unwrap(), [[1, 3, 4], [1, 3, 2]]);
    assert_eq!(ids(1).unwrap(), [[1], [1]]);
    assert!(ids(0).is_err());
}

#[test]
fn single_tokens_and_positions() {
    let tokenizer = Tokenizer::from_folder(fixture("tokenizer-byte-level")).unwrap();
    let mary = tokenizer.to_single_token(" Mary").unwrap();
    assert_eq!(tokenizer.to_single_str_token(mary).unwrap().text, " Mary");
    let text = "When John and Mary went to the store, Mary gave";
    let at =
        |which, prepend_bos| tokenizer.get_token_position(" Mary", text, which, Some(prepend_bos)).unwrap();
    assert_eq!([at(Occurrence::First, false), at(Occurrence::First, true)], [4, 5]);
    assert_eq!([at(Occurrence::Last, false), at(Occurrence::Last, true)], [10, 11]);
    let ids = [7, mary, mary, 9];
    assert_eq!(tokenizer.get_token_position(mary, &ids, Occurrence::Last, None).unwrap(), 2);

    let error = tokenizer.to_single_token(" unheard").unwrap_err();
    assert_says(&error, &["unheard", "not a single token"]);
    assert_says(&tokenizer.to_single_token("").unwrap_err(), &["not a single token but 0"]);
    let error = tokenizer.get_token_position(" John", "The dog", Occurrence::First, None).unwrap_err();
    assert_says(&error, &["\" John\"", "does not occur", "The"]);
}

#[test]
fn ids_outside_the_vocabulary_are_errors() {
    let tokenizer = Tokenizer::from_folder(fixture("tokenizer-byte-level")).unwrap();
    let size = tokenizer.vocab_size();
    for id in [-1, i64::try_from(size).unwrap(), i64::MAX, 1 << 32] {
        let errors = [
            tokenizer.to_string(&[0, id]).unwrap_err(),
            tokenizer.to_single_str_token(id).unwrap_err(),
            tokenizer.to_str_tokens(&[0, id], None).unwrap_err(),
        ];
        for error in errors {
            assert_says(&error, &[&id.to_string(), &size.to_string()]);
        }
    }
}

#[test]
fn a_folder_from_before_tokenizer_json() {
    let modern = fixture("tokenizer-byte-level");
    let json: Value =
        serde_json::from_str(&fs::read_to_string(modern.join("tokenizer.json")).unwrap()).unwrap();
    let merges: Vec<String> = json["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    let folder = folder(&[
        ("vocab.json", json["model"]["vocab"].to_string().as_bytes()),
        ("merges.txt", format!("#version: 0.2\n{}\n", merges.join("\n")).as_bytes()),
    ]);
    let (old, new) =
        (Tokenizer::from_folder(folder.path()).unwrap(), Tokenizer::from_folder(modern).unwrap());
    for case in cases("tokenizer-byte-level")["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(old.to_str_tokens(text, None).unwrap(), new.to_str_tokens(text, None).unwrap());
    }
    assert_eq!(old.bos(), new.bos());
}

#[test]
fn a_folder_without_a_tokenizer_or_with_a_broken_one() {
    let empty = folder(&[]);
    assert_says(
        &Tokenizer::from_folder(empty.path()).unwrap_err(),
        &["tokenizer.json", "vocab.json", "merges.txt"],
    );
    for (file, text) in [("tokenizer.json", "{"), ("tokenizer.json", "{}"), ("tokenizer_config.json", "{")] {
        let folder = word_level_folder(&json!({}), &json!(null));
        fs::write(folder.path().join(file), text).unwrap();
        assert_says(&Tokenizer::from_folder(folder.path()).unwrap_err(), &[file]);
    }
}

#[test]
fn metaspace_is_shown_as_a_space() {
    let Some(folder) = shared_model("stories260k") else { return };
    let tokenizer = Tokenizer::from_folder(folder).unwrap();
    let text = "Once upon a time, Zoë 🦊 ran";
    let tokens = tokenizer.to_str_tokens(text, None).unwrap();
    assert_eq!(tokens[0].text, "<s>");
    assert_eq!(String::from_utf8(bytes(&tokens[1..])).unwrap(), text);
    assert!(tokens.iter().all(|token| !token.text.contains('\u{2581}')));
    let ids = tokenizer.to_tokens(&[text], TokenOptions::default()).unwrap().ids;
    assert_eq!(tokenizer.to_str_tokens(&ids[0], None).unwrap(), tokens);
}

/// Runs `check` on every case of every tokenizer, without BOS and with it.
fn each_case(check: impl Fn(&Tokenizer, &str, bool, &Value)) {
    for name in ALL {
        let tokenizer = Tokenizer::from_folder(fixture(name)).unwrap();
        for case in cases(name)["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            check(&tokenizer, text, false, &case["without_bos"]);
            check(&tokenizer, text, true, &case["with_bos"]);
        }
    }
}

fn cases(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixture(name).join("cases.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<i64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn bytes(tokens: &[StrToken]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.bytes.clone()).collect()
}

/// A merge in either of the forms that `tokenizer.json` has.
fn merge(merge: &Value) -> String {
    match merge {
        Value::Array(pair) => pair.iter().map(|part| part.as_str().unwrap()).collect::<Vec<_>>().join(" "),
        text => text.as_str().unwrap().to_owned(),
    }
}

fn check_mask(tokenizer: &Tokenizer, ids: &[Vec<i64>], mask: &[Vec<i64>], side: PaddingSide) {
    for (ids, mask) in ids.iter().zip(mask) {
        let real = mask.iter().sum::<i64>();
        let mut sorted = mask.clone();
        sorted.sort_unstable();
        if side == PaddingSide::Right {
            sorted.reverse();
        }
        assert_eq!(&sorted, mask, "padding is on one side");
        assert!(real > 0);
        assert!(ids.iter().zip(mask).all(|(&id, &mask)| mask == 1 || Some(id) == tokenizer.pad()));
    }
}

fn bos_template() -> Value {
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    })
}

/// A tokenizer of the words `a` and `b`, ids 3 and 4.
fn word_level(config: &Value, post_processor: &Value) -> Tokenizer {
    Tokenizer::from_folder(word_level_folder(config, post_processor).path()).unwrap()
}

fn word_level_folder(config: &Value, post_processor: &Value) -> tempfile::TempDir {
    let added = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": [added(1, "<s>"), added(2, "</s>")],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": post_processor,
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}},
    });
    let folder = folder(&[]);
    let write =
        |name: &str, json: &Value| fs::write(Path::join(folder.path(), name), json.to_string()).unwrap();
    write("tokenizer.json", &tokenizer);
    write("tokenizer_config.json", config);
    folder
}
