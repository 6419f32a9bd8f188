//! Sparse autoencoders: dictionaries of features, run in a model, and what their features mean.

pub mod features;
