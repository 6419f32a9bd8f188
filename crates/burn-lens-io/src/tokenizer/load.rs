//! Reading a tokenizer from the files of a model folder.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokenizers::{
    AddedToken, Tokenizer as HfTokenizer, decoders::byte_level::ByteLevel as Decoder, models::bpe::BPE,
    pre_tokenizers::byte_level::ByteLevel,
};

use super::{PaddingSide, Tokenizer, pieces::Spelling};
use crate::IoError;

/// What the files beside `tokenizer.json` say.
struct Config {
    /// `tokenizer_config.json`.
    tokenizer: Value,
    /// `special_tokens_map.json`, which older folders have.
    special: Value,
}

/// The ids of the special tokens, after the fallbacks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Special {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) pad: Option<u32>,
    pub(super) unk: Option<u32>,
}

/// What the tokenizer's own post-processor puts around a text, less a leading BOS.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    pub(super) prefix: Vec<u32>,
    pub(super) suffix: Vec<u32>,
}

pub(super) fn load(folder: &Path) -> Result<Tokenizer, IoError> {
    let config = Config {
        tokenizer: optional_json(&folder.join("tokenizer_config.json"))?,
        special: optional_json(&folder.join("special_tokens_map.json"))?,
    };
    let (inner, spelling, path) = match json_tokenizer(folder)? {
        Some(found) => found,
        None => (byte_level_bpe(folder, &config)?, Spelling::ByteLevel, folder.join(VOCAB)),
    };
    settled(inner, spelling, &config, &path, folder.display().to_string())
}

/// A tokenizer from the texts of `tokenizer.json` and `tokenizer_config.json`.
pub(super) fn from_json(tokenizer: &str, config: &str) -> Result<Tokenizer, IoError> {
    let (path, config_path) = (PathBuf::from("tokenizer.json"), PathBuf::from("tokenizer_config.json"));
    let config = serde_json::from_str(config).map_err(IoError::json(&config_path))?;
    let (inner, spelling) = parsed(tokenizer, &path)?;
    settled(inner, spelling, &Config { tokenizer: config, special: Value::Null }, &path, "memory".to_owned())
}

/// Whether a folder has a tokenizer.
pub(super) fn is_in(folder: &Path) -> bool {
    folder.join("tokenizer.json").is_file() || (folder.join(VOCAB).is_file() && folder.join(MERGES).is_file())
}

fn settled(
    mut inner: HfTokenizer,
    spelling: Spelling,
    config: &Config,
    path: &Path,
    origin: String,
) -> Result<Tokenizer, IoError> {
    let invalid = |source| IoError::Tokenizer { path: path.to_owned(), source };
    // Both are settings of whoever saved the file; ours are `TokenOptions`.
    inner.with_truncation(None).map_err(invalid)?;
    inner.with_padding(None);

    let special = Special::find(config, &inner);
    let template = Template::of(&inner, special.bos).map_err(invalid)?;
    let added = inner.get_added_tokens_decoder().into_iter().map(|(id, token)| (id, token.special)).collect();
    let padding_side = match config.tokenizer["padding_side"].as_str() {
        Some("left") => PaddingSide::Left,
        _ => PaddingSide::Right,
    };
    Ok(Tokenizer {
        inner,
        origin,
        spelling,
        special,
        template,
        added,
        default_prepend_bos: true,
        padding_side,
    })
}

const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";

/// The tokenizer of `tokenizer.json`, where the folder has that file.
fn json_tokenizer(folder: &Path) -> Result<Option<(HfTokenizer, Spelling, PathBuf)>, IoError> {
    let path = folder.join("tokenizer.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IoError::os("read", &path)(error)),
    };
    let (inner, spelling) = parsed(&text, &path)?;
    Ok(Some((inner, spelling, path)))
}

fn parsed(text: &str, path: &Path) -> Result<(HfTokenizer, Spelling), IoError> {
    let json: Value = serde_json::from_str(text).map_err(IoError::json(path))?;
    let inner = HfTokenizer::from_bytes(text.as_bytes())
        .map_err(|source| IoError::Tokenizer { path: path.to_owned(), source })?;
    Ok((inner, Spelling::of(&json)))
}

/// GPT-2's tokenizer from `vocab.json` and `merges.txt`, for folders from before
/// `tokenizer.json` (OPT).
fn byte_level_bpe(folder: &Path, config: &Config) -> Result<HfTokenizer, IoError> {
    let (vocab, merges) = (folder.join(VOCAB), folder.join(MERGES));
    if !vocab.is_file() || !merges.is_file() {
        let file = format!("tokenizer.json, nor {VOCAB} and {MERGES}");
        return Err(IoError::NoFile { folder: folder.to_owned(), file });
    }
    let invalid = |source| IoError::Tokenizer { path: vocab.clone(), source };
    let bpe = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy()).build().map_err(invalid)?;
    let prefix_space = config.tokenizer["add_prefix_space"] == true;
    let mut inner = HfTokenizer::new(bpe);
    inner.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
    inner.with_decoder(Some(Decoder::default()));
    let mut tokens: Vec<String> = ROLES.iter().filter_map(|role| config.token(role)).collect();
    // GPT-2's own folder names its special token nowhere.
    tokens.push(END_OF_TEXT.to_owned());
    tokens.retain(|token| inner.token_to_id(token).is_some());
    inner
        .add_special_tokens(tokens.iter().map(|token| AddedToken::from(token.as_str(), true)))
        .map_err(invalid)?;
    Ok(inner)
}

const ROLES: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];
const END_OF_TEXT: &str = "<|endoftext|>";

impl Config {
    /// The text of a special token: a string, or an object with `content`.
    fn token(&self, role: &str) -> Option<String> {
        [&self.tokenizer[role], &self.special[role]]
            .into_iter()
            .find_map(|value| value.as_str().or_else(|| value["content"].as_str()))
            .map(str::to_owned)
    }
}

impl Special {
    /// `TransformerLens`'s fallbacks: EOS is `<|endoftext|>` if nothing is named, BOS and
    /// padding are EOS. A token that is named but not in the vocabulary is not there at all:
    /// the id that would be invented for it has no embedding.
    fn find(config: &Config, inner: &HfTokenizer) -> Self {
        let id = |role| config.token(role).and_then(|token| inner.token_to_id(&token));
        let eos = id("eos_token").or_else(|| inner.token_to_id(END_OF_TEXT));
        Self { bos: id("bos_token").or(eos), eos, pad: id("pad_token").or(eos), unk: id("unk_token") }
    }
}

impl Template {
    /// Encodes a letter, and looks at what is put around it.
    fn of(inner: &HfTokenizer, bos: Option<u32>) -> tokenizers::Result<Self> {
        let encoding = inner.encode("a", true)?;
        let mask = encoding.get_special_tokens_mask();
        let ids = encoding.get_ids();
        let before = mask.iter().take_while(|&&special| special == 1).count();
        let after = mask.iter().skip(before).rev().take_while(|&&special| special == 1).count();
        let prefix = ids[..before].to_vec();
        let prefix = match prefix.split_first() {
            Some((first, rest)) if Some(*first) == bos => rest.to_vec(),
            _ => prefix,
        };
        Ok(Self { prefix, suffix: ids[ids.len() - after..].to_vec() })
    }
}

/// A JSON file, or `null` where it is missing.
fn optional_json(path: &Path) -> Result<Value, IoError> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(IoError::json(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(IoError::os("read", path)(error)),
    }
}

/// Ids of added tokens, and whether they are special.
pub(super) type Added = HashMap<u32, bool>;
