//! Passes that start in the middle of a model, from what an earlier run gave.
//!
//! An intervention in block 7 at position 5 changes nothing before it: with causal attention the
//! stream that enters block 7, and the keys and values of the first five positions in all later
//! blocks, are those of the run without it. A model that offers a [`PartialPass`] lets an analysis
//! compute only the rest; see [`HookedModel::partial`](crate::HookedModel::partial).

use burn_lens_tensor::burn::tensor::{Int, Tensor};

use crate::Hooks;

/// Which part of which prompts a partial pass computes.
#[derive(Clone, Debug)]
pub struct Frame {
    /// How many prompts the earlier run had.
    pub batch: usize,
    /// How many positions each has.
    pub pos: usize,
    /// The first position to compute. Anything but 0 needs causal attention.
    pub first_pos: usize,
    /// The first position whose stream is read at the end, at least `first_pos`.
    pub first_read: usize,
    /// `[batch, pos]` of the earlier run, where it had padding.
    pub attention_mask: Option<Tensor<2, Int>>,
}

/// The keys (as scores read them) and values of every position in one block of the earlier run:
/// `[batch, n_kv_heads, pos, d_head]` each.
#[derive(Clone, Debug)]
pub struct KeyValues {
    /// Keys, after norm, clamp and rotation.
    pub keys: Tensor<4>,
    /// Values, after the clamp.
    pub values: Tensor<4>,
}

/// With what a block starts. Rows are the prompts of the earlier run, once or several times one
/// after the other; positions are those of the frame.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one is made for each pass of a block")]
pub enum BlockEntry {
    /// The stream that enters it, `[rows, pos, d_model]`.
    ResidPre(Tensor<3>),
    /// That stream, and the values that its heads mixed, `[rows, pos, n_heads, d_head]`: attention
    /// is not computed.
    AttnZ {
        /// The stream.
        resid_pre: Tensor<3>,
        /// The mixed values.
        z: Tensor<4>,
    },
    /// The stream between attention and MLP, `[rows, pos, d_model]`, of a sequential block.
    ResidMid(Tensor<3>),
}

/// The blocks of a model, one at a time, over the positions of a [`Frame`].
///
/// Hooks fire as in a whole run, over the positions and rows that are computed; the destination
/// axis of scores and pattern is shortened, the source axis is not.
pub trait PartialPass {
    /// Keys and values, from the stream that entered block `layer` in the earlier run.
    ///
    /// # Shapes
    ///
    /// - `resid_pre`: `[batch, pos, d_model]`, every position
    fn key_values(&self, layer: usize, resid_pre: &Tensor<3>) -> KeyValues;

    /// Runs block `layer`; `past` is read at the positions before the frame, and may be left out
    /// where there are none.
    ///
    /// # Shapes
    ///
    /// - returns: the stream that leaves it, `[rows, pos - first_pos, d_model]`
    fn block(
        &self,
        layer: usize,
        entry: BlockEntry,
        past: Option<&KeyValues>,
        hooks: &mut Hooks<'_>,
    ) -> Tensor<3>;

    /// Runs block `layer` without hooks, for positions from `first_read` on alone.
    ///
    /// # Shapes
    ///
    /// - `resid_pre`: `[rows, pos - first_pos, d_model]`
    /// - returns: `[rows, pos - first_read, d_model]`
    fn block_at_reads(&self, layer: usize, resid_pre: Tensor<3>, past: Option<&KeyValues>) -> Tensor<3>;

    /// The final norm.
    ///
    /// # Shapes
    ///
    /// - `resid`: `[rows, _, d_model]`; returns the same
    fn final_norm(&self, resid: Tensor<3>) -> Tensor<3>;
}
