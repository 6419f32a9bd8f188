//! Pictures of what a model does: text for a terminal, and web pages that need no network.
//!
//! - [`HeatMap`]: an attention pattern, or any matrix over tokens, in characters
//! - [`SignedMap`]: a matrix of effects of both signs, in characters
//! - [`LinePlot`], [`QuadrantFigure`]: plots as SVG, PNG, and inside a page
//! - [`Graph`]: parts in rows and what goes between them, as SVG and inside a page
//! - [`Page`]: one self-contained HTML file of [`Section`]s: tables, tokens, bars, grids and
//!   interactive attention patterns
//! - [`feature_page`], [`feature_index`]: what the features of a dictionary mean, to look through
//!
//! Everything here takes strings and numbers; no model, tensor or file is known.

mod error;
mod features;
mod graph;
mod heat_map;
mod json;
mod label;
mod page;
mod plot;
mod signed_map;

pub use error::VizError;
pub use features::{FeatureRow, feature_index, feature_page, feature_script};
pub use graph::{Graph, GraphEdge, GraphRow};
pub use heat_map::{HeatMap, Palette};
pub use label::visible;
pub use page::{Attention, Bar, Cell, Column, Grid, Page, Point, Scatter, Section, Token};
pub use plot::{Figure, Line, LinePlot, QuadrantFigure};
pub use signed_map::SignedMap;
