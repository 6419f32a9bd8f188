//! Tokens as a reader can see them.

/// `token` with its white space and control characters made visible: `·` for a space, `↵` for a
/// line end, `⇥` for a tab, an escape for other controls, and `∅` for nothing at all.
///
/// ```
/// # use burn_lens_viz::visible;
/// assert_eq!(visible(" Mary"), "·Mary");
/// assert_eq!(visible("\n"), "↵");
/// assert_eq!(visible(""), "∅");
/// ```
#[must_use]
pub fn visible(token: &str) -> String {
    if token.is_empty() {
        return "∅".to_owned();
    }
    let mut text = String::with_capacity(token.len());
    for character in token.chars() {
        match character {
            ' ' => text.push('·'),
            '\n' => text.push('↵'),
            '\t' => text.push('⇥'),
            // Bidirectional controls would reorder the line that they stand in.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                text.extend(character.escape_unicode());
            }
            control if control.is_control() => text.extend(control.escape_unicode()),
            other => text.push(other),
        }
    }
    text
}

/// `text` in exactly `width` characters, cut with `…` or filled up on the left.
pub(crate) fn right_aligned(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return format!("{}{text}", " ".repeat(width - length));
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_the_width_asked_for() {
        assert_eq!(right_aligned("ab", 4), "  ab");
        assert_eq!(right_aligned("abcdef", 4), "abc…");
        assert_eq!(right_aligned("éàü", 3), "éàü");
    }

    #[test]
    fn controls_are_spelt_out() {
        assert_eq!(visible("a\u{1b}[31m"), "a\\u{1b}[31m");
        assert_eq!(visible("\u{202e}abc"), "\\u{202e}abc");
    }
}
