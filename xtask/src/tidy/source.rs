//! One source file, split into what is code, what is text, and what is only for tests.

/// A Rust file with what the rules ask of it, line by line.
pub(super) struct Source {
    /// As in the file.
    lines: Vec<String>,
    /// The same lines with comments, strings and character literals blanked.
    code: Vec<String>,
    /// Whether the line belongs to a `#[cfg(test)]` item.
    test: Vec<bool>,
}

impl Source {
    pub(super) fn new(text: &str) -> Self {
        let blanked = blank(text);
        let code: Vec<String> = blanked.lines().map(str::to_owned).collect();
        let mut is_test = vec![false; code.len()];
        for (first, last) in test_items(&blanked) {
            is_test[first..=last].fill(true);
        }
        Self { lines: text.lines().map(str::to_owned).collect(), code, test: is_test }
    }

    /// Every line, as in the file.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Every line as `(index, code, belongs to a test item)`.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        self.code
            .iter()
            .zip(&self.test)
            .enumerate()
            .map(|(index, (code, test))| (index, code.as_str(), *test))
    }

    /// The line of that index, as in the file.
    pub(super) fn line(&self, index: usize) -> &str {
        self.lines.get(index).map_or("", String::as_str)
    }

    /// How many lines are outside `#[cfg(test)]` items.
    pub(super) fn len_without_tests(&self) -> usize {
        self.test.iter().filter(|test| !**test).count()
    }

    /// Every attribute as `(index of its first line, its code on one line)`.
    pub(super) fn attributes(&self) -> Vec<(usize, String)> {
        let code = self.code.join("\n");
        let starts = code.match_indices('#').filter_map(|(at, _)| {
            let rest = &code[at + 1..];
            let body = rest.strip_prefix('!').unwrap_or(rest);
            let length = body.starts_with('[').then(|| closing(body, '[', ']')).flatten()?;
            let line = code[..at].matches('\n').count();
            Some((line, body[1..length].split_whitespace().collect::<Vec<_>>().join(" ")))
        });
        starts.collect()
    }
}

/// `text` with everything but newlines blanked in comments, strings and character literals.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r' | 'b' | 'c', ..] if at == 0 || !is_word(chars[at - 1]) => raw_string(rest).unwrap_or(0),
            ['"', ..] => quoted(rest, '"'),
            ['\'', '\\', ..] => quoted(rest, '\''),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if length == 0 {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(rest[..length].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += length;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the block comment that `chars` starts with; block comments nest.
fn block_comment(chars: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the raw string that `chars` starts with, if it is one.
fn raw_string(chars: &[char]) -> Option<usize> {
    let prefix = usize::from(matches!(chars, ['b' | 'c', ..]));
    let rest = chars[prefix..].strip_prefix(&['r'])?;
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    let rest = rest[hashes..].strip_prefix(&['"'])?;
    let ends = |window: &[char]| window[0] == '"' && window[1..].iter().all(|c| *c == '#');
    let body = rest.windows(hashes + 1).position(ends).map_or(rest.len(), |body| body + hashes + 1);
    Some(prefix + 1 + hashes + 1 + body)
}

/// The length of the literal between `quote`s that `chars` starts with.
fn quoted(chars: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// First and last line of each item under `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let line_of = |at: usize| code[..at].matches('\n').count();
    let attributes = ["#[cfg(test)]", "#[cfg(all(test,"];
    let starts = attributes.iter().flat_map(|attribute| code.match_indices(attribute));
    let items = starts.map(|(start, _)| (line_of(start), line_of(item_end(code, start))));
    items.collect()
}

/// Where the item ends whose first attribute is at `start`: its `;` or closing brace.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            ';' | ',' if depth == 0 => return start + at,
            '{' if depth == 0 => {
                let body = &code[start + at..];
                return start + at + closing(body, '{', '}').unwrap_or(body.len() - 1);
            }
            _ => {}
        }
    }
    code.len()
}

/// Where the bracket closes that `code` starts with.
fn closing(code: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked_and_lines_kept() {
        #[track_caller]
        fn check(text: &str, code: &str) {
            assert_eq!(blank(text).split_whitespace().collect::<Vec<_>>().join(" "), code);
            assert_eq!(blank(text).matches('\n').count(), text.matches('\n').count());
        }
        check("a // b\nc", "a c");
        check("a /* b /* c */ d\n */ e", "a e");
        check(r#"f("x // \" y" , "\n")"#, "f( , )");
        check("f(r#\"a \" b\"# , c)", "f( , c)");
        check(r"let c = '\''; d", "let c = ; d");
        check("let c = '\"'; fn f<'a>(x: &'a str) {}", "let c = ; fn f<'a>(x: &'a str) {}");
        check("let b = br\"\\\"; d", "let b = ; d");
        check("var \"x\" b\"y\"", "var b");
    }

    #[test]
    fn unfinished_literals_end_with_the_file() {
        for text in ["\"a", "/* a", "r#\"a\"", "'\\", "#[cfg(test)]", "#[cfg(test)] mod a {", "#["] {
            Source::new(text).attributes();
        }
    }

    #[test]
    fn test_items_are_found_whole() {
        let source = Source::new(
            "fn a() {}\n#[cfg(test)]\nuse x;\nfn b() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n  fn c() {}\n}\nfn d() {}\n",
        );
        let test: Vec<bool> = source.code().map(|(_, _, test)| test).collect();
        assert_eq!(test, [false, true, true, false, true, true, true, true, true, false]);
        assert_eq!(source.len_without_tests(), 3);
    }

    #[test]
    fn attributes_span_lines() {
        let source =
            Source::new("#![no_std]\nfn f() {}\n#[allow(\n    unused,\n    reason = \"so\"\n)]\nfn g() {}\n");
        let expected = [(0, "no_std".to_owned()), (2, "allow( unused, reason = )".to_owned())];
        assert_eq!(source.attributes(), expected);
    }
}
