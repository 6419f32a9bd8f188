//! A web page in one file: no network, no fonts, no scripts of others.

use minijinja::{Environment, context, value::Serde};
use serde::Serialize;

use crate::{Figure, VizError, error::finite, json, visible};

mod grid;
mod scatter;

use grid::GridView;
pub use grid::{Cell, Grid};
use scatter::ScatterView;
pub use scatter::{Point, Scatter};

/// A page of sections.
///
/// All text is escaped, whatever it holds. The page follows the reader's light or dark theme,
/// and everything that a mouse can do a keyboard can do too.
///
/// ```
/// use burn_lens_viz::{Attention, Page, Section};
///
/// let tokens = vec!["<s>".to_owned(), " Mary".to_owned()];
/// let attention = Attention { tokens, layers: vec![vec![vec![1.0, 0.0, 0.4, 0.6]]], causal: true, first: (0, 0) };
/// let page = Page {
///     title: "One head".to_owned(),
///     lead: "What it attends to.".to_owned(),
///     sections: vec![Section::new("Attention", "Move over the picture.").attention(attention)],
///     ..Page::default()
/// };
/// let html = page.to_html()?;
/// assert!(html.starts_with("<!doctype html>"));
/// assert!(!html.contains("https:") && !html.contains("src="));
/// # Ok::<(), burn_lens_viz::VizError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The heading, and the window's title.
    pub title: String,
    /// A sentence or two under the heading.
    pub lead: String,
    /// The sections, in order.
    pub sections: Vec<Section>,
    /// A line at the end.
    pub footer: String,
}

/// One section: a heading, a paragraph and things to look at.
#[derive(Clone, Debug, Default)]
pub struct Section {
    title: String,
    text: String,
    bodies: Vec<Body>,
}

#[derive(Clone, Debug)]
enum Body {
    Tokens(Vec<Token>),
    Table { columns: Vec<Column>, rows: Vec<Vec<String>> },
    Bars(Vec<Bar>),
    Grid(Grid),
    Scatter(Scatter),
    Attention(Attention),
    Figure(Figure),
}

/// A token of a text, with a background where it has a strength.
#[derive(Clone, Debug, Default)]
pub struct Token {
    /// The token's text; white space is made visible.
    pub text: String,
    /// From 0 (no background) to 1.
    pub strength: f64,
    /// Shown on hover and focus; nothing if empty.
    pub note: String,
}

/// The head of a table's column.
#[derive(Clone, Debug, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether its cells are numbers, which are aligned on the right.
    pub number: bool,
}

/// One bar of a bar chart.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its length; bars are drawn from 0, on one scale, negative ones in another color.
    pub value: f64,
    /// How the value is written beside it.
    pub text: String,
    /// Whether it stands out.
    pub strong: bool,
}

/// Attention patterns of one text, by layer and head.
#[derive(Clone, Debug)]
pub struct Attention {
    /// The text's tokens.
    pub tokens: Vec<String>,
    /// `[layer][head][query_pos · n_tokens + key_pos]`, from 0 to 1.
    pub layers: Vec<Vec<Vec<f64>>>,
    /// Whether sources after the destination are left out of the picture.
    pub causal: bool,
    /// The layer and head shown first.
    pub first: (usize, usize),
}

impl Column {
    /// A column of text.
    #[must_use]
    pub fn text(name: &str) -> Self {
        Self { name: name.to_owned(), number: false }
    }

    /// A column of numbers.
    #[must_use]
    pub fn number(name: &str) -> Self {
        Self { name: name.to_owned(), number: true }
    }
}

impl Section {
    /// A section with nothing to look at yet.
    #[must_use]
    pub fn new(title: &str, text: &str) -> Self {
        Self { title: title.to_owned(), text: text.to_owned(), bodies: Vec::new() }
    }

    fn with(mut self, body: Body) -> Self {
        self.bodies.push(body);
        self
    }

    /// Adds a text, token by token.
    #[must_use]
    pub fn tokens(self, tokens: Vec<Token>) -> Self {
        self.with(Body::Tokens(tokens))
    }

    /// Adds a table.
    #[must_use]
    pub fn table(self, columns: Vec<Column>, rows: Vec<Vec<String>>) -> Self {
        self.with(Body::Table { columns, rows })
    }

    /// Adds a bar chart.
    #[must_use]
    pub fn bars(self, bars: Vec<Bar>) -> Self {
        self.with(Body::Bars(bars))
    }

    /// Adds points in a plane, such as eigenvalues.
    #[must_use]
    pub fn scatter(self, scatter: Scatter) -> Self {
        self.with(Body::Scatter(scatter))
    }

    /// Adds a grid of cells, such as a heat map.
    #[must_use]
    pub fn grid(self, grid: Grid) -> Self {
        self.with(Body::Grid(grid))
    }

    /// Adds a plot.
    #[must_use]
    pub fn figure(self, figure: Figure) -> Self {
        self.with(Body::Figure(figure))
    }

    /// Adds attention patterns.
    #[must_use]
    pub fn attention(self, attention: Attention) -> Self {
        self.with(Body::Attention(attention))
    }
}

/// What the template sees of a [`Body`].
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum View {
    Tokens { tokens: Vec<TokenView> },
    Table { columns: Vec<Column>, rows: Vec<Vec<String>> },
    Bars { bars: Vec<BarView> },
    Grid { grid: GridView },
    Scatter { scatter: ScatterView },
    Attention { json: String },
    Figure { svg: String, alt: String },
}

#[derive(Serialize)]
struct TokenView {
    text: String,
    percent: f64,
    note: String,
}

#[derive(Serialize)]
struct BarView {
    label: String,
    percent: f64,
    text: String,
    strong: bool,
    negative: bool,
}

/// What the script sees of an [`Attention`].
#[derive(Serialize)]
struct AttentionData {
    tokens: Vec<String>,
    causal: bool,
    layer: usize,
    head: usize,
    /// Of each head the rows one after the other, without what `causal` leaves out.
    layers: Vec<Vec<Vec<f64>>>,
}

impl Page {
    /// The page as the text of an HTML file.
    ///
    /// # Errors
    ///
    /// If a table row, a pattern or the first head does not fit, or a number is not finite.
    pub fn to_html(&self) -> Result<String, VizError> {
        let mut environment = Environment::new();
        environment.add_template("page.html", include_str!("../templates/page.html"))?;
        let sections = self
            .sections
            .iter()
            .map(|section| {
                let bodies =
                    section.bodies.iter().map(|body| body.view(&section.title)).collect::<Result<Vec<_>, _>>()?;
                Ok(context! { title => section.title.as_str(), text => section.text.as_str(), bodies => Serde(bodies) })
            })
            .collect::<Result<Vec<_>, VizError>>()?;
        let html = environment.get_template("page.html")?.render(context! {
            title => self.title.as_str(),
            lead => self.lead.as_str(),
            footer => self.footer.as_str(),
            style => include_str!("../templates/page.css"),
            script => include_str!("../templates/page.js"),
            sections,
        })?;
        Ok(html)
    }
}

impl Body {
    fn view(&self, title: &str) -> Result<View, VizError> {
        Ok(match self {
            Self::Tokens(tokens) => {
                let strengths: Vec<f64> = tokens.iter().map(|token| token.strength).collect();
                finite(|| format!("the tokens of {title:?}"), &strengths)?;
                let view = |token: &Token| TokenView {
                    text: visible(&token.text),
                    percent: percent(token.strength),
                    note: token.note.clone(),
                };
                View::Tokens { tokens: tokens.iter().map(view).collect() }
            }
            Self::Table { columns, rows } => {
                if let Some(row) = rows.iter().position(|row| row.len() != columns.len()) {
                    let (expected, found) = (columns.len(), rows[row].len());
                    return Err(VizError::RowLength { title: title.to_owned(), row, expected, found });
                }
                View::Table { columns: columns.clone(), rows: rows.clone() }
            }
            Self::Bars(bars) => {
                let values: Vec<f64> = bars.iter().map(|bar| bar.value).collect();
                finite(|| format!("the bars of {title:?}"), &values)?;
                let longest = values.iter().fold(0.0f64, |longest, value| longest.max(value.abs()));
                let share = |value: f64| if longest > 0.0 { value / longest } else { 0.0 };
                let view = |bar: &Bar| BarView {
                    label: bar.label.clone(),
                    percent: percent(share(bar.value.abs())),
                    text: bar.text.clone(),
                    strong: bar.strong,
                    negative: bar.value < 0.0,
                };
                View::Bars { bars: bars.iter().map(view).collect() }
            }
            Self::Grid(grid) => View::Grid { grid: grid.view(title)? },
            Self::Scatter(scatter) => View::Scatter { scatter: scatter.view(title)? },
            Self::Figure(figure) => View::Figure { svg: figure.svg.clone(), alt: figure.alt.clone() },
            Self::Attention(attention) => {
                View::Attention { json: json::for_script(&attention.data(title)?)? }
            }
        })
    }
}

impl Attention {
    fn data(&self, title: &str) -> Result<AttentionData, VizError> {
        self.check(title)?;
        let n = self.tokens.len();
        let rows = |pattern: &Vec<f64>| {
            let kept = pattern.chunks(n).enumerate();
            let kept = kept.flat_map(|(row, values)| &values[..if self.causal { row + 1 } else { n }]);
            kept.map(|value| (value * 1e4).round() / 1e4).collect()
        };
        Ok(AttentionData {
            tokens: self.tokens.iter().map(|token| visible(token)).collect(),
            causal: self.causal,
            layer: self.first.0,
            head: self.first.1,
            layers: self.layers.iter().map(|heads| heads.iter().map(rows).collect()).collect(),
        })
    }

    fn check(&self, title: &str) -> Result<(), VizError> {
        let n = self.tokens.len();
        let expected = self.layers.first().map_or(0, Vec::len);
        if n == 0 || expected == 0 {
            return Err(VizError::Empty { what: format!("the attention of {title:?}") });
        }
        for (layer, heads) in self.layers.iter().enumerate() {
            if heads.len() != expected {
                let (title, found) = (title.to_owned(), heads.len());
                return Err(VizError::HeadCount { title, layer, expected, found });
            }
            for (head, pattern) in heads.iter().enumerate() {
                let what = || format!("the pattern of layer {layer}, head {head} in {title:?}");
                if pattern.len() != n * n {
                    return Err(VizError::MatrixSize {
                        what: what(),
                        rows: n,
                        columns: n,
                        found: pattern.len(),
                    });
                }
                finite(what, pattern)?;
            }
        }
        let (layer, head) = self.first;
        let (layers, heads) = (self.layers.len(), expected);
        if layer >= layers || head >= heads {
            return Err(VizError::NoSuchHead { title: title.to_owned(), layer, head, layers, heads });
        }
        Ok(())
    }
}

/// A share as a percentage that CSS can take.
fn percent(share: f64) -> f64 {
    (share.clamp(0.0, 1.0) * 1000.0).round() / 10.0
}

#[cfg(test)]
mod tests;
