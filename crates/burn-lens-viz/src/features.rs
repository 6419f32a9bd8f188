//! Pages of features: one file for one feature, or a list with a file of data for each.
//!
//! What is drawn is the JSON that `docs/feature-data.md` describes, whatever wrote it.

use minijinja::{Environment, context};
use serde::Serialize;

use crate::{VizError, json};

/// A feature in the list of [`feature_index`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FeatureRow {
    /// Which feature.
    pub feature: usize,
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// `dead`, `constant`, `dense` or `sparse`.
    pub kind: String,
    /// The share of tokens at which it is active.
    pub density: f64,
    /// How many these are.
    pub n_active: u64,
    /// The largest activation.
    pub max: f64,
    /// The token of its strongest activation.
    pub top: String,
}

/// What a page of one feature holds.
#[derive(Serialize)]
struct One<'a, R, V, F> {
    run: &'a R,
    vocabulary: &'a V,
    feature: &'a F,
}

/// What the list of features holds.
#[derive(Serialize)]
struct Many<'a, R> {
    run: &'a R,
    features: &'a [FeatureRow],
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<usize>,
}

/// The data of one feature, beside the list.
#[derive(Serialize)]
struct Beside<'a, V, F> {
    vocabulary: &'a V,
    feature: &'a F,
}

/// One feature as one HTML file that needs nothing else.
///
/// `run`, `vocabulary` and `feature` are the parts of that name of the JSON of feature data.
///
/// ```
/// use burn_lens_viz::feature_page;
/// use serde_json::json;
///
/// let run = json!({ "model": "m", "sae": "s", "hook": "h", "n_prompts": 1, "n_positions": 1 });
/// let html = feature_page("Feature 3", &run, &json!({}), &json!({ "feature": 3, "kind": "dead" }))?;
/// assert!(html.starts_with("<!doctype html>"));
/// # Ok::<(), burn_lens_viz::VizError>(())
/// ```
///
/// # Errors
///
/// If the data cannot be written as JSON.
pub fn feature_page(
    title: &str,
    run: &impl Serialize,
    vocabulary: &impl Serialize,
    feature: &impl Serialize,
) -> Result<String, VizError> {
    page(title, &json::for_script(&One { run, vocabulary, feature })?)
}

/// The list of features, as the file `index.html`. The data of each is [`feature_script`], in the file
/// `features/NUMBER.js` beside it, and is read when it is looked at; no server is needed. `first` is
/// shown first.
///
/// # Errors
///
/// If the data cannot be written as JSON.
pub fn feature_index(
    title: &str,
    run: &impl Serialize,
    features: &[FeatureRow],
    first: Option<usize>,
) -> Result<String, VizError> {
    page(title, &json::for_script(&Many { run, features, first })?)
}

/// The data of one feature, as the file `features/NUMBER.js`.
///
/// # Errors
///
/// If the data cannot be written as JSON.
pub fn feature_script(vocabulary: &impl Serialize, feature: &impl Serialize) -> Result<String, VizError> {
    Ok(format!("burnLensFeature({});\n", json::for_script(&Beside { vocabulary, feature })?))
}

fn page(title: &str, data: &str) -> Result<String, VizError> {
    let mut environment = Environment::new();
    environment.add_template("features.html", include_str!("../templates/features.html"))?;
    Ok(environment.get_template("features.html")?.render(context! {
        title,
        data,
        style => include_str!("../templates/features.css"),
        script => include_str!("../templates/features.js"),
    })?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOSTILE: &str = "</script><script>alert(\"x\")</script>'\u{2028}<!--&";

    #[test]
    fn hostile_text_is_inert_everywhere() {
        let plain = json!({});
        let hostile = json!({ "7": { "text": HOSTILE } });
        let row =
            FeatureRow { top: HOSTILE.to_owned(), label: Some(HOSTILE.to_owned()), ..FeatureRow::default() };
        let pages = [
            (feature_page(HOSTILE, &hostile, &hostile, &hostile), feature_page("", &plain, &plain, &plain)),
            (feature_index(HOSTILE, &hostile, &[row], None), feature_index("", &plain, &[], None)),
        ];
        for (page, empty) in pages {
            let (page, empty) = (page.unwrap(), empty.unwrap());
            for markup in ["<script", "</script>", "<!--", "alert(\""] {
                assert_eq!(page.matches(markup).count(), empty.matches(markup).count(), "{markup}");
            }
        }
        assert!(!feature_script(&hostile, &hostile).unwrap().contains(['<', '\u{2028}']));
    }

    #[test]
    fn a_page_asks_for_nothing_else() {
        let page = feature_page("t", &json!({}), &json!({}), &json!({})).unwrap();
        // A name of SVG, not an address.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        for address in ["http:", "https:", "//cdn", "@import", "url(", " src=\""] {
            assert!(!page.contains(address), "{address}");
        }
    }

    #[test]
    fn drawing_twice_gives_the_same_and_changes_nothing() {
        let (run, feature) = (json!({ "sae": "s" }), json!({ "feature": 1, "groups": [] }));
        let once = feature_page("t", &run, &json!({}), &feature).unwrap();
        assert_eq!(once, feature_page("t", &run, &json!({}), &feature).unwrap());
        assert_eq!(feature, json!({ "feature": 1, "groups": [] }));
    }
}
