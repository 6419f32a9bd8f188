//! The non-linearities of MLPs, by TransformerLens's names.

use std::{fmt, str::FromStr};

use burn::tensor::{Tensor, activation};
use burn_lens_tensor::{
    kernels::{self, Activation},
    nearest, numeric,
};

/// A neuron's non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActFn {
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0)²`
    Relu2,
    /// `x Φ(x)`, with the error function.
    Gelu,
    /// The tanh approximation of GELU (`gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`).
    GeluTanh,
    /// `x σ(x)`
    Silu,
    /// `x softmax(x)` over neurons.
    Solu,
    /// SoLU followed by a norm over neurons.
    SoluLn,
}

impl ActFn {
    /// Whether the MLP holds a norm behind the activation.
    #[must_use]
    pub fn has_inner_norm(self) -> bool {
        self == Self::SoluLn
    }

    /// Applies it to pre-activations `[batch, pos, d_mlp]`, without the inner norm.
    #[must_use]
    pub fn apply(self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Relu => activation::relu(x),
            Self::Relu2 => {
                let x = activation::relu(x);
                x.clone() * x
            }
            Self::Gelu => kernels::activation(x, Activation::Gelu),
            Self::GeluTanh => kernels::activation(x, Activation::GeluTanh),
            Self::Silu => kernels::activation(x, Activation::Silu),
            Self::Solu | Self::SoluLn => x.clone() * numeric::softmax(x),
        }
    }

    /// `act(x) ⊙ y`, of tensors `[batch, pos, d_mlp]`.
    pub(crate) fn gated(self, x: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Gelu => kernels::gated(x, y, Activation::Gelu),
            Self::GeluTanh => kernels::gated(x, y, Activation::GeluTanh),
            Self::Silu => kernels::gated(x, y, Activation::Silu),
            Self::Relu | Self::Relu2 | Self::Solu | Self::SoluLn => self.apply(x) * y,
        }
    }

    const NAMES: [(&'static str, Self); 14] = [
        ("relu", Self::Relu),
        ("relu2", Self::Relu2),
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_python", Self::Gelu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("solu", Self::Solu),
        ("solu_ln", Self::SoluLn),
        ("relu_squared", Self::Relu2),
        ("gelu_python_tanh", Self::GeluTanh),
        ("gelu_accurate", Self::GeluTanh),
    ];
}

impl fmt::Display for ActFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Relu => "relu",
            Self::Relu2 => "relu2",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::Silu => "silu",
            Self::Solu => "solu",
            Self::SoluLn => "solu_ln",
        })
    }
}

/// A name that is not an activation function's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown activation function `{name}`{}", if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(" or ")) })]
pub struct UnknownActFn {
    /// The name as given.
    pub name: String,
    /// The closest names.
    pub nearest: Vec<String>,
}

impl FromStr for ActFn {
    type Err = UnknownActFn;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name).map(|&(_, act_fn)| act_fn);
        found.ok_or_else(|| UnknownActFn {
            name: name.to_owned(),
            nearest: nearest(name, Self::NAMES.iter().map(|(known, _)| known)),
        })
    }
}
