//! The bytes that a token stands for, from how its vocabulary spells them.
//!
//! Decoding tokens one by one loses bytes: half of a character becomes `U+FFFD`, and
//! `SentencePiece` decoders drop leading spaces. The vocabulary itself is exact.

use serde_json::Value;

/// `SentencePiece`'s spelling of a space.
const META: char = '\u{2581}';

/// How a vocabulary spells bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Byte-level BPE (GPT-2): each byte is one printable character.
    ByteLevel,
    /// `SentencePiece` (Llama): spaces are `▁`, rare bytes are tokens such as `<0xE2>`.
    SentencePiece {
        /// Whether `<0xE2>` is a byte; otherwise it is six characters.
        byte_fallback: bool,
        /// Whether encoding puts a space before the text that decoding takes away.
        dummy_space: bool,
    },
    /// Anything else: tokens are what they say.
    Plain,
}

impl Spelling {
    /// Reads the spelling off a `tokenizer.json`.
    pub(super) fn of(json: &Value) -> Self {
        let decoder = steps(&json["decoder"]);
        let has = |steps: &[&Value], kind: &str| steps.iter().any(|step| step["type"] == kind);
        let encoder: Vec<&Value> = steps(&json["pre_tokenizer"]);
        if has(&decoder, "ByteLevel") || (decoder.is_empty() && has(&encoder, "ByteLevel")) {
            return Self::ByteLevel;
        }
        let replaces =
            |step: &&Value| step["type"] == "Replace" && step["pattern"]["String"] == META.to_string();
        if !has(&decoder, "Metaspace") && !decoder.iter().any(replaces) {
            return Self::Plain;
        }
        Self::SentencePiece {
            byte_fallback: has(&decoder, "ByteFallback") || json["model"]["byte_fallback"] == true,
            dummy_space: decoder.iter().any(|step| takes_space(step)),
        }
    }

    /// The bytes of a token of the vocabulary.
    pub(super) fn bytes(self, token: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel => token
                .chars()
                .map(byte_level)
                .collect::<Option<_>>()
                .unwrap_or_else(|| token.as_bytes().to_vec()),
            Self::SentencePiece { byte_fallback, .. } => match fallback_byte(token) {
                Some(byte) if byte_fallback => vec![byte],
                _ => token.replace(META, " ").into_bytes(),
            },
            Self::Plain => token.as_bytes().to_vec(),
        }
    }

    /// Whether decoding drops a space at the very start.
    pub(super) fn drops_first_space(self) -> bool {
        matches!(self, Self::SentencePiece { dummy_space: true, .. })
    }
}

/// A component of a `tokenizer.json`, with sequences flattened.
fn steps(component: &Value) -> Vec<&Value> {
    match component["type"].as_str() {
        Some("Sequence") => ["decoders", "pretokenizers", "normalizers"]
            .iter()
            .filter_map(|key| component[*key].as_array())
            .flatten()
            .flat_map(steps)
            .collect(),
        Some(_) => vec![component],
        None => Vec::new(),
    }
}

/// Whether a decoder step removes the space that encoding put before the text.
fn takes_space(step: &Value) -> bool {
    match step["type"].as_str() {
        Some("Strip") => step["content"] == " " && step["start"].as_u64().is_some_and(|start| start > 0),
        Some("Metaspace") => {
            step["prepend_scheme"].as_str().map_or(step["add_prefix_space"] != false, |s| s != "never")
        }
        _ => false,
    }
}

/// `0xE2` of `<0xE2>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_byte { u8::from_str_radix(hex, 16).ok() } else { None }
}

/// The byte behind a character of GPT-2's alphabet: printable Latin-1 characters are
/// themselves; the other 68 bytes, in order, are the characters from `U+0100` on.
fn byte_level(c: char) -> Option<u8> {
    const OTHERS: [u8; 68] = others();
    let code = u32::from(c);
    match u8::try_from(code) {
        Ok(byte) => is_itself(byte).then_some(byte),
        Err(_) => OTHERS.get(usize::try_from(code - 256).ok()?).copied(),
    }
}

const fn is_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

const fn others() -> [u8; 68] {
    let mut found = [0; 68];
    let (mut byte, mut next) = (0_u8, 0);
    loop {
        if !is_itself(byte) {
            found[next] = byte;
            next += 1;
        }
        if byte == u8::MAX {
            return found;
        }
        byte += 1;
    }
}

/// Makes the pieces of a text spell exactly that text, by taking away the spaces that encoding
/// put there. Stops at the first piece that the text does not continue with, which is where the
/// tokenizer's normaliser changed it.
pub(super) fn align(pieces: &mut [Vec<u8>], text: &str) {
    let mut rest = text.as_bytes();
    for piece in pieces {
        if let Some(after) = rest.strip_prefix(piece.as_slice()) {
            rest = after;
        } else if piece.first() == Some(&b' ')
            && let Some(after) = rest.strip_prefix(&piece[1..])
        {
            piece.remove(0);
            rest = after;
        } else {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_a_bijection() {
        let mut bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_level).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
        assert_eq!((byte_level('Ġ'), byte_level('Ċ'), byte_level(' ')), (Some(b' '), Some(b'\n'), None));
    }

    #[test]
    fn byte_fallback_tokens() {
        assert_eq!(fallback_byte("<0xE2>"), Some(0xe2));
        assert_eq!(
            (fallback_byte("<0x+2>"), fallback_byte("<0xE2E2>"), fallback_byte("<s>")),
            (None, None, None)
        );
    }

    #[test]
    fn alignment_takes_only_the_spaces_that_the_text_lacks() {
        let mut pieces: Vec<Vec<u8>> = [" ", " a", " b"].map(|piece| piece.as_bytes().to_vec()).to_vec();
        align(&mut pieces, "a b");
        assert_eq!(pieces.concat(), b"a b");
    }
}
