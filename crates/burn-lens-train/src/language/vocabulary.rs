//! The words of the language, and the tokenizer that splits text into them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{brackets, facts, filler, indirect_object};

/// Every word of the language has one id. Id 0 is `<bos>`, which also ends and pads; id 1 is
/// `<unk>`, for words that are not of the language.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    words: Vec<&'static str>,
    ids: HashMap<&'static str, i64>,
}

/// The token before every text.
pub const BOS: i64 = 0;

/// How many ids are no words.
pub(super) const SPECIAL: i64 = 2;

impl Vocabulary {
    /// The words of all tasks, in order of first use.
    pub(super) fn new() -> Self {
        let lists = [
            &indirect_object::NAMES[..],
            &indirect_object::PLACES,
            &indirect_object::OBJECTS,
            brackets::KINDS.as_flattened(),
            facts::CAPITALS.as_flattened(),
        ];
        let templates = [&indirect_object::TEMPLATES[..], &facts::TEMPLATES, &filler::TEMPLATES];
        let words = lists.into_iter().chain(filler::WORDS).flatten().copied();
        let words = words.chain(templates.into_iter().flatten().flat_map(|text| text.split(' ')));
        let mut vocabulary = Self { words: Vec::new(), ids: HashMap::new() };
        for word in ["<bos>", "<unk>"].into_iter().chain(words.filter(|word| !word.starts_with('<'))) {
            let next = vocabulary.words.len() as i64;
            if *vocabulary.ids.entry(word).or_insert(next) == next {
                vocabulary.words.push(word);
            }
        }
        vocabulary
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are none; there always are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The id of a word; that of `<unk>` for any other.
    #[must_use]
    pub fn id(&self, word: &str) -> i64 {
        self.ids.get(word).copied().unwrap_or(1)
    }

    /// The ids of a text of words between single spaces.
    #[must_use]
    pub fn ids(&self, text: &str) -> Vec<i64> {
        text.split(' ').map(|word| self.id(word)).collect()
    }

    /// The text of ids, with single spaces.
    ///
    /// # Panics
    ///
    /// If an id is not of the vocabulary.
    #[must_use]
    pub fn text(&self, ids: &[i64]) -> String {
        let word = |&id: &i64| usize::try_from(id).ok().and_then(|id| self.words.get(id).copied());
        let words: Vec<&str> = ids.iter().map(|id| word(id).expect("an id of this vocabulary")).collect();
        words.join(" ")
    }

    /// The text of `tokenizer.json`: one token for each word with the space before it
    /// (` Mary`). Punctuation and brackets are tokens of their own, with or without spaces
    /// around them; text comes back with single spaces.
    #[must_use]
    pub fn tokenizer_json(&self) -> String {
        let vocab: serde_json::Map<String, Value> = (0..)
            .zip(&self.words)
            .map(|(id, word)| (if id < SPECIAL { (*word).to_owned() } else { format!("▁{word}") }, json!(id)))
            .collect();
        let added = |id: i64, content: &str| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        };
        let spaced = brackets::KINDS.as_flattened().iter().chain(&[",", "."]);
        let spaced = spaced.map(|sign| replace(&json!({"String": sign}), &format!(" {sign} ")));
        let single = [
            replace(&json!({"Regex": "\\s+"}), " "),
            json!({"type": "Strip", "strip_left": true, "strip_right": true}),
        ];
        let metaspace =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [added(BOS, "<bos>"), added(1, "<unk>")],
            "normalizer": {"type": "Sequence", "normalizers": spaced.chain(single).collect::<Vec<_>>()},
            "pre_tokenizer": metaspace,
            "post_processor": null,
            "decoder": metaspace,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        });
        format!("{json:#}\n")
    }

    /// The text of `tokenizer_config.json`.
    #[must_use]
    pub fn tokenizer_config_json(&self, n_ctx: usize) -> String {
        let json = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<bos>",
            "pad_token": "<bos>",
            "unk_token": "<unk>",
            "model_max_length": n_ctx,
            "clean_up_tokenization_spaces": false,
        });
        format!("{json:#}\n")
    }
}

fn replace(pattern: &Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}
