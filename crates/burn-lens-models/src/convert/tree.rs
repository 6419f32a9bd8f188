//! Dotted names as a tree.

use std::fmt;

use indexmap::IndexMap;

/// Values by dotted names, as a tree: a node has a value, parts below it, or both.
///
/// ```
/// use burn_lens_models::convert::NameTree;
///
/// let tree: NameTree<u8> = [("h.0", 1), ("h.0.attn", 2), ("ln_f", 3)].into_iter().collect();
/// assert_eq!(tree.get("h.0.attn").and_then(NameTree::value), Some(&2));
/// assert_eq!(tree.get("h.0").and_then(NameTree::value), Some(&1));
/// assert_eq!(tree.get("h").and_then(NameTree::value), None);
/// assert_eq!(tree.get("h").unwrap().children().map(|(name, _)| name).collect::<Vec<_>>(), ["0"]);
/// assert_eq!(tree.to_string(), "h\n  0: 1\n    attn: 2\nln_f: 3\n");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NameTree<T> {
    value: Option<T>,
    children: IndexMap<String, NameTree<T>>,
}

impl<T> Default for NameTree<T> {
    fn default() -> Self {
        Self { value: None, children: IndexMap::new() }
    }
}

impl<T> NameTree<T> {
    /// The value at this very name.
    #[must_use]
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// What is below, in the order in which it came.
    pub fn children(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.children.iter().map(|(name, child)| (name.as_str(), child))
    }

    /// The part of the tree at a dotted name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        name.split('.').try_fold(self, |node, part| node.children.get(part))
    }

    fn insert(&mut self, name: &str, value: T) {
        let node = name.split('.').fold(self, |node, part| node.children.entry(part.to_owned()).or_default());
        node.value = Some(value);
    }
}

impl<N: AsRef<str>, T> FromIterator<(N, T)> for NameTree<T> {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(names: I) -> Self {
        let mut tree = Self::default();
        for (name, value) in names {
            tree.insert(name.as_ref(), value);
        }
        tree
    }
}

impl<T: fmt::Display> NameTree<T> {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        for (name, child) in &self.children {
            write!(f, "{:width$}{name}", "", width = 2 * depth)?;
            match &child.value {
                None => writeln!(f)?,
                Some(value) => writeln!(f, ": {value}")?,
            }
            child.write(f, depth + 1)?;
        }
        Ok(())
    }
}

impl<T: fmt::Display> fmt::Display for NameTree<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}
