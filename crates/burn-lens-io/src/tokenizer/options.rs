//! What tokenization is asked for, and what it gives back.

use std::fmt;

/// Where the padding of a shorter prompt goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaddingSide {
    /// Before the prompt, so that all prompts end at the same position.
    Left,
    /// After the prompt, so that all prompts start at the same position.
    #[default]
    Right,
}

/// How to tokenize; `None` takes the tokenizer's own setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenOptions {
    /// Whether each prompt starts with the BOS token.
    pub prepend_bos: Option<bool>,
    /// Where shorter prompts are padded.
    pub padding_side: Option<PaddingSide>,
    /// The most tokens that a prompt may have, BOS included: the model's context length. What
    /// is beyond is cut off at the end. `None` keeps everything.
    pub truncate_to: Option<usize>,
}

impl TokenOptions {
    /// The defaults, with `prepend_bos` given.
    #[must_use]
    pub fn prepend_bos(prepend_bos: bool) -> Self {
        Self { prepend_bos: Some(prepend_bos), ..Self::default() }
    }
}

/// Tokenized prompts, padded to one length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Token ids, `[batch, pos]`.
    pub ids: Vec<Vec<i64>>,
    /// `[batch, pos]`: 1 where a token is part of the prompt, 0 where it is padding. Unlike a
    /// comparison with the padding id, this is right where padding, BOS and EOS share one id.
    pub attention_mask: Vec<Vec<i64>>,
}

/// One token as text, and exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StrToken {
    /// For display: the bytes as UTF-8, where a byte that is only a part of a character is
    /// written as an escape. The two tokens of `é` may be `\xc3` and `\xa9`.
    pub text: String,
    /// The bytes that the token stands for. Those of all tokens of a text, in order, are the
    /// text (as the tokenizer's normaliser left it), except for tokens that were added, as BOS.
    pub bytes: Vec<u8>,
}

impl StrToken {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                // Writing to a string does not fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        Self { text, bytes }
    }
}

impl fmt::Display for StrToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// A text, or one that is tokenized already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenInput<'a> {
    /// A text, to be tokenized.
    Text(&'a str),
    /// Token ids, taken as they are.
    Ids(&'a [i64]),
}

impl<'a> From<&'a str> for TokenInput<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for TokenInput<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [i64]> for TokenInput<'a> {
    fn from(ids: &'a [i64]) -> Self {
        Self::Ids(ids)
    }
}

impl<'a> From<&'a Vec<i64>> for TokenInput<'a> {
    fn from(ids: &'a Vec<i64>) -> Self {
        Self::Ids(ids)
    }
}

impl<'a, const N: usize> From<&'a [i64; N]> for TokenInput<'a> {
    fn from(ids: &'a [i64; N]) -> Self {
        Self::Ids(ids)
    }
}

/// A single token, by its text or its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRef<'a> {
    /// A text that is exactly one token, leading space included: `" Mary"`.
    Text(&'a str),
    /// A token id.
    Id(i64),
}

impl<'a> From<&'a str> for TokenRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for TokenRef<'_> {
    fn from(id: i64) -> Self {
        Self::Id(id)
    }
}

/// Which occurrence of a token is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Occurrence {
    /// The first one.
    #[default]
    First,
    /// The last one.
    Last,
}
