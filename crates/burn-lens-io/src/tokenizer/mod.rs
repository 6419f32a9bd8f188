//! Text to token ids and back, with `TransformerLens`'s meanings.

mod load;
mod options;
mod pieces;

use std::path::Path;

use crate::IoError;
use load::{Added, Special, Template};
use pieces::Spelling;

pub use options::{Occurrence, PaddingSide, StrToken, TokenBatch, TokenInput, TokenOptions, TokenRef};

/// The tokenizer of a model folder.
///
/// # The BOS token
///
/// A tokenized prompt starts with exactly one BOS token or with none, as `prepend_bos` says,
/// whatever the tokenizer's own post-processor does (its `add_bos_token` is not consulted).
/// What decides is the argument, else [`set_default_prepend_bos`](Self::set_default_prepend_bos),
/// else `true`. A BOS token that is *written* in the text is a token of the text and is kept.
///
/// Where the folder names no BOS token it is the EOS token; where it names no EOS token that is
/// `<|endoftext|>`, if the vocabulary has it; padding is the EOS token unless named.
///
/// ```no_run
/// use burn_lens_io::{TokenOptions, Tokenizer};
///
/// let tokenizer = Tokenizer::from_folder("models/gpt2")?;
/// let batch = tokenizer.to_tokens(&["Hello", "When Mary and John"], TokenOptions::default())?;
/// assert_eq!(batch.ids[0], [50256, 15496, 50256, 50256, 50256]);
/// assert_eq!(batch.attention_mask[0], [1, 1, 0, 0, 0]);
/// assert_eq!(tokenizer.to_single_token(" Mary")?, 5335);
/// # Ok::<(), burn_lens_io::IoError>(())
/// ```
///
/// Source: `HookedTransformer.to_tokens` … `get_token_position`, `TransformerLens`.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    origin: String,
    spelling: Spelling,
    special: Special,
    template: Template,
    added: Added,
    default_prepend_bos: bool,
    padding_side: PaddingSide,
}

impl Tokenizer {
    /// Reads `tokenizer.json` (or `vocab.json` and `merges.txt`), `tokenizer_config.json` and
    /// `special_tokens_map.json`.
    ///
    /// # Errors
    ///
    /// If the folder has no tokenizer, or its files are malformed.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, IoError> {
        load::load(folder.as_ref())
    }

    /// A tokenizer from the texts of `tokenizer.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// If either is malformed.
    pub fn from_json(tokenizer: &str, config: &str) -> Result<Self, IoError> {
        load::from_json(tokenizer, config)
    }

    /// Whether a folder has the files of a tokenizer.
    #[must_use]
    pub fn is_in(folder: impl AsRef<Path>) -> bool {
        load::is_in(folder.as_ref())
    }

    /// Tokenizes prompts, and pads them to one length.
    ///
    /// # Errors
    ///
    /// If there is no prompt, a prompt has no tokens, or a BOS or padding token is needed that the
    /// tokenizer does not have.
    pub fn to_tokens<S: AsRef<str>>(
        &self,
        texts: &[S],
        options: TokenOptions,
    ) -> Result<TokenBatch, IoError> {
        if texts.is_empty() {
            return Err(IoError::EmptyPrompt { index: 0 });
        }
        let prepend_bos = options.prepend_bos.unwrap_or(self.default_prepend_bos);
        let mut rows = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let ids = self.encode(text.as_ref(), prepend_bos, options.truncate_to)?;
            if ids.is_empty() {
                return Err(IoError::EmptyPrompt { index });
            }
            rows.push(ids);
        }
        self.padded(rows, options.padding_side.unwrap_or(self.padding_side))
    }

    /// The text of token ids, special tokens included.
    ///
    /// # Errors
    ///
    /// If an id is outside the vocabulary.
    pub fn to_string(&self, ids: &[i64]) -> Result<String, IoError> {
        let ids = ids.iter().map(|&id| self.checked(id)).collect::<Result<Vec<u32>, _>>()?;
        self.inner.decode(&ids, false).map_err(|source| self.failed(&format!("{ids:?}"), source))
    }

    /// The input token by token, exactly: see [`StrToken`]. A text is tokenized first.
    ///
    /// The space that a `SentencePiece` tokenizer puts before a text is left out, so that the
    /// bytes of the tokens are the text again.
    ///
    /// # Errors
    ///
    /// If an id is outside the vocabulary, or a BOS token is needed and there is none.
    pub fn to_str_tokens<'a>(
        &self,
        input: impl Into<TokenInput<'a>>,
        prepend_bos: Option<bool>,
    ) -> Result<Vec<StrToken>, IoError> {
        let (input, prepend_bos) = (input.into(), prepend_bos.unwrap_or(self.default_prepend_bos));
        let ids = self.ids_of(input, prepend_bos)?;
        let mut pieces = ids.iter().map(|&id| self.bytes_of(id)).collect::<Result<Vec<_>, _>>()?;
        match input {
            TokenInput::Text(text) => {
                let start = usize::from(prepend_bos) + self.template.prefix.len();
                let end = pieces.len() - self.template.suffix.len();
                pieces::align(&mut pieces[start..end], text);
            }
            TokenInput::Ids(ids) if self.spelling.drops_first_space() => {
                let first = ids.iter().position(|&id| !self.is_special(id));
                if let Some(piece) = first.map(|first| &mut pieces[first])
                    && piece.first() == Some(&b' ')
                {
                    piece.remove(0);
                }
            }
            TokenInput::Ids(_) => {}
        }
        Ok(pieces.into_iter().map(StrToken::new).collect())
    }

    /// The id of a text that is exactly one token, without BOS: `" Mary"`.
    ///
    /// # Errors
    ///
    /// If it is not exactly one token; the error says what it is split into.
    pub fn to_single_token(&self, text: &str) -> Result<i64, IoError> {
        match self.plain(text)?[..] {
            [id] => Ok(i64::from(id)),
            _ => Err(IoError::NotOneToken { text: text.to_owned(), pieces: self.texts(text, false)? }),
        }
    }

    /// What one token stands for, leading space included.
    ///
    /// # Errors
    ///
    /// If the id is outside the vocabulary.
    pub fn to_single_str_token(&self, id: i64) -> Result<StrToken, IoError> {
        self.bytes_of(id).map(StrToken::new)
    }

    /// The position of a token in the input, counting BOS where it is prepended.
    ///
    /// # Errors
    ///
    /// If it does not occur, or a text that should be a single token is not.
    pub fn get_token_position<'a>(
        &self,
        token: impl Into<TokenRef<'a>>,
        input: impl Into<TokenInput<'a>>,
        which: Occurrence,
        prepend_bos: Option<bool>,
    ) -> Result<usize, IoError> {
        let (input, prepend_bos) = (input.into(), prepend_bos.unwrap_or(self.default_prepend_bos));
        let token = match token.into() {
            TokenRef::Id(id) => id,
            TokenRef::Text(text) => self.to_single_token(text)?,
        };
        let ids = self.ids_of(input, prepend_bos)?;
        let found = match which {
            Occurrence::First => ids.iter().position(|&id| id == token),
            Occurrence::Last => ids.iter().rposition(|&id| id == token),
        };
        match found {
            Some(position) => Ok(position),
            None => Err(IoError::TokenAbsent {
                token: self.to_single_str_token(token)?.text,
                pieces: self.texts(input, prepend_bos)?,
            }),
        }
    }

    /// How many tokens there are, added ones included. A model may have more embeddings.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of the BOS token.
    #[must_use]
    pub fn bos(&self) -> Option<i64> {
        self.special.bos.map(i64::from)
    }

    /// The id of the EOS token.
    #[must_use]
    pub fn eos(&self) -> Option<i64> {
        self.special.eos.map(i64::from)
    }

    /// The id of the padding token.
    #[must_use]
    pub fn pad(&self) -> Option<i64> {
        self.special.pad.map(i64::from)
    }

    /// The id of the token for what the vocabulary cannot spell.
    #[must_use]
    pub fn unk(&self) -> Option<i64> {
        self.special.unk.map(i64::from)
    }

    /// Whether BOS is prepended where a call does not say.
    #[must_use]
    pub fn default_prepend_bos(&self) -> bool {
        self.default_prepend_bos
    }

    /// Sets whether BOS is prepended where a call does not say; a model family knows.
    pub fn set_default_prepend_bos(&mut self, prepend_bos: bool) {
        self.default_prepend_bos = prepend_bos;
    }

    /// The side on which prompts are padded where a call does not say. At first it is that of
    /// `tokenizer_config.json`, or the right.
    #[must_use]
    pub fn padding_side(&self) -> PaddingSide {
        self.padding_side
    }

    /// Sets the side on which prompts are padded where a call does not say.
    pub fn set_padding_side(&mut self, side: PaddingSide) {
        self.padding_side = side;
    }
}

impl Tokenizer {
    /// The ids of a text alone: nothing put before or after it.
    fn plain(&self, text: &str) -> Result<Vec<u32>, IoError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|source| self.failed(text, source))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn encode(&self, text: &str, prepend_bos: bool, truncate_to: Option<usize>) -> Result<Vec<i64>, IoError> {
        let Template { prefix, suffix } = &self.template;
        let bos = match (prepend_bos, self.special.bos) {
            (false, _) => None,
            (true, Some(bos)) => Some(bos),
            (true, None) => return Err(self.lacks("BOS")),
        };
        let around = usize::from(prepend_bos) + prefix.len() + suffix.len();
        let mut plain = self.plain(text)?;
        plain.truncate(truncate_to.map_or(usize::MAX, |most| most.saturating_sub(around)));
        let ids = bos.iter().chain(prefix).chain(&plain).chain(suffix);
        Ok(ids.take(truncate_to.unwrap_or(usize::MAX)).map(|&id| i64::from(id)).collect())
    }

    fn ids_of(&self, input: TokenInput<'_>, prepend_bos: bool) -> Result<Vec<i64>, IoError> {
        match input {
            TokenInput::Text(text) => self.encode(text, prepend_bos, None),
            TokenInput::Ids(ids) => Ok(ids.to_vec()),
        }
    }

    fn padded(&self, mut rows: Vec<Vec<i64>>, side: PaddingSide) -> Result<TokenBatch, IoError> {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut attention_mask: Vec<Vec<i64>> = rows.iter().map(|row| vec![1; row.len()]).collect();
        for (row, mask) in rows.iter_mut().zip(&mut attention_mask) {
            let missing = longest - row.len();
            if missing > 0 {
                let pad = self.pad().ok_or_else(|| self.lacks("padding"))?;
                let at = match side {
                    PaddingSide::Left => 0,
                    PaddingSide::Right => row.len(),
                };
                row.splice(at..at, std::iter::repeat_n(pad, missing));
                mask.splice(at..at, std::iter::repeat_n(0, missing));
            }
        }
        Ok(TokenBatch { ids: rows, attention_mask })
    }

    fn bytes_of(&self, id: i64) -> Result<Vec<u8>, IoError> {
        let id = self.checked(id)?;
        let token = self.inner.id_to_token(id).unwrap_or_default();
        match (self.added.get(&id), self.spelling) {
            // Added tokens are written out, but those of `SentencePiece` may be runs of spaces.
            (Some(true), _) | (Some(false), Spelling::ByteLevel) => Ok(token.into_bytes()),
            _ => Ok(self.spelling.bytes(&token)),
        }
    }

    /// An id as the tokenizer counts, if there is such a token.
    fn checked(&self, id: i64) -> Result<u32, IoError> {
        u32::try_from(id)
            .ok()
            .filter(|&id| self.inner.id_to_token(id).is_some())
            .ok_or_else(|| IoError::TokenId { id, vocab_size: self.vocab_size() })
    }

    fn is_special(&self, id: i64) -> bool {
        u32::try_from(id).is_ok_and(|id| self.added.get(&id) == Some(&true))
    }

    fn texts<'a>(&self, input: impl Into<TokenInput<'a>>, prepend_bos: bool) -> Result<Vec<String>, IoError> {
        Ok(self.to_str_tokens(input, Some(prepend_bos))?.into_iter().map(|token| token.text).collect())
    }

    fn lacks(&self, role: &'static str) -> IoError {
        IoError::NoSpecialToken { origin: self.origin.clone(), role }
    }

    fn failed(&self, text: &str, source: tokenizers::Error) -> IoError {
        IoError::Tokenize { origin: self.origin.clone(), text: text.to_owned(), source }
    }
}
