//! Configurations in YAML, as far as they are texts under keys.

use std::{collections::BTreeMap, fs, path::Path};

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::IoError;

/// The texts of a YAML mapping. Values that are nested or null are left out, and no alias is followed,
/// so a file cannot make more of itself than it is.
///
/// # Errors
///
/// If the file cannot be read, is no YAML or no mapping, or gives a key twice.
pub fn read_yaml_texts(path: impl AsRef<Path>) -> Result<BTreeMap<String, String>, IoError> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).map_err(IoError::os("read", path))?;
    texts(&text).map_err(|source| IoError::Yaml { path: path.to_owned(), source })
}

fn texts(text: &str) -> Result<BTreeMap<String, String>, Box<dyn std::error::Error + Send + Sync>> {
    let mut found = BTreeMap::new();
    let mut depth = 0_usize;
    let mut key = None;
    let mut is_value = false;
    for event in Parser::new_from_str(text) {
        let (event, _) = event?;
        let scalar = match &event {
            Event::Scalar(value, style, ..) if !is_null(value, *style) => Some(value.to_string()),
            _ => None,
        };
        let opens = matches!(event, Event::SequenceStart(..) | Event::MappingStart(..));
        if matches!(event, Event::SequenceEnd | Event::MappingEnd) {
            depth = depth.saturating_sub(1);
        } else if opens || matches!(event, Event::Scalar(..) | Event::Alias(_)) {
            match depth {
                0 if scalar.is_some() => return Err("it is one text, not a mapping".into()),
                0 if matches!(event, Event::SequenceStart(..)) => {
                    return Err("it is a list, not a mapping".into());
                }
                1 if is_value => {
                    if let (Some(key), Some(value)) = (key.take(), scalar)
                        && let Some(_) = found.insert(key, value)
                    {
                        return Err("a key is given twice".into());
                    }
                    is_value = false;
                }
                // A key that is no text has no value that is wanted.
                1 => (key, is_value) = (scalar, true),
                _ => {}
            }
            depth += usize::from(opens);
        }
    }
    Ok(found)
}

fn is_null(value: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && ["", "~", "null", "Null", "NULL"].contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_whatever_lies_between() {
        let found = texts(
            "# a comment\nname: \"org/tiny\" # another\nkind: 'a: b'\nscan: [a, {b: c}]\nnested:\n  name: no\n\
             folded: >-\n  one\n  two\nnothing: ~\nempty:\nsize: 3\n? [x, y]\n: z\nlast: end\n",
        );
        let found = found.unwrap();
        let pairs =
            [("folded", "one two"), ("kind", "a: b"), ("last", "end"), ("name", "org/tiny"), ("size", "3")];
        assert_eq!(found, pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert_eq!(texts("").unwrap(), BTreeMap::new());
        assert_eq!(texts("# nothing\n").unwrap(), BTreeMap::new());
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        for (text, said) in [
            ("[a, b]", "a list"),
            ("text", "one text"),
            ("a: 1\na: 2", "given twice"),
            ("a: [1", ""),
            ("a: b: c", ""),
            ("\"open", ""),
        ] {
            let error = texts(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn aliases_are_not_expanded() {
        let ten = |name: char| [format!("*{name}"), ", ".to_owned()].concat().repeat(10);
        let line = |(before, name): (char, char)| format!("{name}: &{name} [{}]", ten(before));
        let mut lines = vec!["a: &a [x]".to_owned()];
        lines.extend(('a'..='y').zip('b'..='z').map(line));
        lines.extend(["last: *z".to_owned(), "name: end".to_owned()]);
        assert_eq!(texts(&lines.join("\n")).unwrap().len(), 1);
    }
}
