//! A dictionary's configuration as JSON: typed reads whose errors name the file and the key.

use burn_lens_tensor::nearest;
use serde_json::{Map, Value};

use crate::SaeError;

/// The keys of a configuration file.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    origin: String,
    values: Map<String, Value>,
}

impl Settings {
    /// Settings of `origin`, which errors name.
    #[must_use]
    pub fn new<V: Into<Value>>(
        origin: impl Into<String>,
        values: impl IntoIterator<Item = (String, V)>,
    ) -> Self {
        let values = values.into_iter().map(|(key, value)| (key, value.into())).collect();
        Self { origin: origin.into(), values }
    }

    /// Reads the text of a JSON file.
    ///
    /// # Errors
    ///
    /// If it is not a JSON object.
    pub fn parse(origin: impl Into<String>, text: &str) -> Result<Self, SaeError> {
        let origin = origin.into();
        match serde_json::from_str(text) {
            Ok(Value::Object(values)) => Ok(Self { origin, values }),
            Ok(_) => Err(SaeError::Json { origin, source: None }),
            Err(source) => Err(SaeError::Json { origin, source: Some(source) }),
        }
    }

    /// The file that they are from.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The value of a key; `None` where it is missing or null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there, with a value.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// All keys and values.
    #[must_use]
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// Gives a key another value.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.values.insert(key.to_owned(), value.into());
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key)
    }

    /// The object under a key, empty where there is none.
    ///
    /// # Errors
    ///
    /// If it is something else than an object.
    pub fn object(&self, key: &str) -> Result<Self, SaeError> {
        let origin = format!("{}, `{key}`", self.origin);
        match self.get(key) {
            None => Ok(Self { origin, values: Map::new() }),
            Some(Value::Object(values)) => Ok(Self { origin, values: values.clone() }),
            Some(value) => Err(self.wrong(key, value, "an object")),
        }
    }

    /// The error for a value that makes no sense.
    #[must_use]
    pub fn wrong(&self, key: &str, found: &Value, expected: &str) -> SaeError {
        SaeError::Value {
            origin: self.origin.clone(),
            key: key.to_owned(),
            found: found.to_string(),
            expected: expected.to_owned(),
        }
    }

    fn missing(&self, key: &str) -> SaeError {
        let nearest = nearest(key, self.values.keys());
        SaeError::MissingKey { origin: self.origin.clone(), key: key.to_owned(), nearest }
    }

    /// A size, from 1 to 2^40.
    ///
    /// # Errors
    ///
    /// If it is missing or no such number.
    pub fn size(&self, key: &str) -> Result<usize, SaeError> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key))
    }

    /// A size that can be missing.
    ///
    /// # Errors
    ///
    /// If it is no number from 1 to 2^40.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, SaeError> {
        const MOST: u64 = 1 << 40;
        let Some(value) = self.get(key) else { return Ok(None) };
        let whole = value.as_u64().or_else(|| {
            // Some writers make floats of everything; a whole one is meant.
            value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=MOST as f64).contains(x)).map(|x| x as u64)
        });
        match whole.filter(|size| (1..=MOST).contains(size)) {
            Some(size) => Ok(Some(size as usize)),
            None => Err(self.wrong(key, value, "a whole number of at least 1")),
        }
    }

    /// A number.
    ///
    /// # Errors
    ///
    /// If it is missing, or not a finite number.
    pub fn number(&self, key: &str) -> Result<f64, SaeError> {
        self.optional_number(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number that can be missing.
    ///
    /// # Errors
    ///
    /// If it is not a finite number.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>, SaeError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| self.wrong(key, value, "a number"))
    }

    /// A yes or no, `default` where it is missing.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, SaeError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false")),
        }
    }

    /// A text that can be missing.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, SaeError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.wrong(key, value, "a text")),
        }
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// If it is missing or something else.
    pub fn required_text(&self, key: &str) -> Result<&str, SaeError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }
}
