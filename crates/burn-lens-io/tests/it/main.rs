//! Everything that `burn-lens-io` does to files and sockets, through its public interface.

mod checkpoint;
mod hostile;
#[cfg(feature = "hub")]
mod hub;
mod saving;
mod support;
mod tokenizer;
mod torch;
