//! Attention on sequences of examples, clustered and explained.
//!
//! A sequence `x₁ y₁ x₂ y₂ …` has two kinds of queries and of keys. The rows of a head's pattern
//! are distributions over keys; rows that are alike do alike. So
//!
//! - [`Quadrants`]: a pattern split into x and y queries by x and y keys
//! - [`k_means`], [`silhouette`]: rows put into clusters, and how well they stand apart
//! - [`LinearExplanation`]: what of the input tells the clusters apart, by a linear classifier
//! - [`dominant_literals`]: the signs that the members of a cluster share
//! - [`cluster_attention`]: how much clusters attend to each other, layer by layer
//! - [`attention_clusters`]: all of it for one head; [`sweep`]: for many heads, samples and
//!   checkpoints
//!
//! The steps are those of a notebook on learning in context (modelSelectInterp, 2023), which
//! never came to run; its numbers would be scikit-learn's, and so are these.

mod explain;
mod head;
mod k_means;
mod literals;
mod pathways;
mod quadrants;
mod rows;
mod silhouette;
mod sweep;

pub use explain::LinearExplanation;
pub use head::{Cluster, ClusterOptions, HeadClusters, RoleClusters, attention_clusters};
pub use k_means::{KMeans, KMeansOptions, k_means};
pub use literals::{Literal, dominant_literals};
pub use pathways::cluster_attention;
pub use quadrants::{Quadrants, Role};
pub use rows::Rows;
pub use silhouette::{silhouette, silhouette_samples};
pub use sweep::{Examples, Selection, Swept, sweep};
