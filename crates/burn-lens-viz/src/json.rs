//! JSON that can stand inside a `<script>` element.

use serde::Serialize;

/// `value` as JSON in which no character can end the element or break a script.
///
/// `<`, `>` and `&` are written as escapes, so neither `</script>` nor `<!--` can occur; so are
/// U+2028 and U+2029, which were line ends in older JavaScript.
pub(crate) fn for_script(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(value)?;
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\u{2028}' => safe.push_str("\\u2028"),
            '\u{2029}' => safe.push_str("\\u2029"),
            other => safe.push(other),
        }
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped_and_comes_back() {
        for text in
            ["</script><script>alert(1)</script>", "<!--", "]]>", "\"'\\", "\u{2028}\u{2029}", "&amp;", "\0"]
        {
            let json = for_script(&text).unwrap();
            assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\0']), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
