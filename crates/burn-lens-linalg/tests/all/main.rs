//! Factored matrices against dense `f64` arithmetic, over shapes.

mod algebra;
mod compare;
mod decompose;
mod dense;
mod index;
mod refusals;
mod stream;
