//! The forward pass: checks the input, prepares what all blocks share, runs them.

use burn::tensor::{Device, Int, Tensor};
use burn_lens_hooks::{HookPoint, Hooks, Input, Output, ReturnType, RunError, RunOptions};
use burn_lens_tensor::{Indices, Slice, SliceError};

use crate::{
    HookedTransformer,
    components::{Alibi, Embed, HookedNorm, Masks, PositionIds, Positions, RotaryTables, Unembed},
    kv_cache::KvCache,
    loss,
    transformer::Ends,
};

/// What all blocks of one pass share.
pub(crate) struct Pass {
    pub(crate) positions: PositionIds,
    pub(crate) masks: Masks,
    pub(crate) alibi: Option<Alibi>,
    pub(crate) rotary: Option<RotaryTables>,
}

impl Pass {
    /// How many positions it computes.
    pub(crate) fn len(&self) -> usize {
        self.positions.rows().first().map_or(0, Vec::len)
    }
}

/// Which blocks run: `start..stop`.
pub(crate) struct Layers {
    pub(crate) start: usize,
    pub(crate) stop: usize,
    /// The pass ends with the residual stream.
    pub(crate) stopped: bool,
}

impl HookedTransformer {
    /// Runs the model, on top of the keys and values in `past` if given, to which it appends.
    ///
    /// # Errors
    ///
    /// If the input does not fit the model.
    pub fn forward_with_past(
        &self,
        input: &Input,
        options: &RunOptions,
        hooks: &mut Hooks<'_>,
        mut past: Option<&mut KvCache>,
    ) -> Result<Output, RunError> {
        let layers = self.layers(input, options)?;
        if let Some(past) = &past {
            past.check(self.config.n_layers, input.batch_pos()[0])?;
        }
        let offset = past.as_ref().map_or(0, |past| past.len());
        self.check_interface(input, options)?;
        self.check_input(input, offset)?;
        let read = self.tail(options, &layers, input.batch_pos()[1], |point| hooks.wants(point));
        let (pass, tail) = self.pass(input, options, past.as_deref_mut(), offset, read)?;
        hooks.set_pos_offset(offset);
        let mut resid = self.residual(input, hooks, &pass)?;
        for layer in layers.start..layers.stop {
            if hooks.failed() {
                return Ok(Output::default());
            }
            let past = past.as_mut().map(|past| past.layer(layer));
            let block = &self.blocks[layer];
            resid = match &tail {
                Some(tail) if layer + 1 == layers.stop => block.forward_tail(resid, &pass, tail, past),
                _ => block.forward(hooks, resid, &pass, past),
            };
        }
        if layers.stopped {
            return Ok(Output { resid: Some(resid), ..Output::default() });
        }
        let points = [HookPoint::LnFinalScale, HookPoint::LnFinalNormalized];
        let normed = self.ln_final.forward(hooks, points, resid);
        if options.return_type == ReturnType::None && !options.loss_per_token {
            return Ok(Output::default());
        }
        let normed = match tail {
            Some(_) => normed, // of the positions that are read
            None => at_positions(normed, options)?,
        };
        match &self.ends {
            Ends::Tokens { unembed, .. } => finish(unembed, hooks, normed, input, options),
            Ends::Vectors { read_out, .. } => {
                Ok(Output { logits: Some(read_out.forward(hooks, normed)), ..Output::default() })
            }
        }
    }

    /// Which blocks run with these options.
    pub(crate) fn layers_of(&self, options: &RunOptions) -> Result<Layers, RunError> {
        let n_layers = self.config.n_layers;
        let resolve = |what: &'static str, layer: Option<isize>, default: usize| match layer {
            None => Ok(default),
            Some(layer) => {
                let from_end = n_layers.checked_sub(layer.unsigned_abs());
                let resolved = if layer < 0 { from_end } else { Some(layer.unsigned_abs()) };
                resolved.filter(|&layer| layer <= n_layers).ok_or(RunError::LayerOutOfRange {
                    what,
                    layer,
                    n_layers,
                })
            }
        };
        let start = resolve("start_at_layer", options.start_at_layer, 0)?;
        let stop = resolve("stop_at_layer", options.stop_at_layer, n_layers)?;
        Ok(Layers { start, stop: stop.max(start), stopped: options.stop_at_layer.is_some() })
    }

    fn layers(&self, input: &Input, options: &RunOptions) -> Result<Layers, RunError> {
        match (options.start_at_layer, input) {
            (Some(_), Input::Tokens(_) | Input::Vectors(_) | Input::Embeds(_)) => Err(RunError::Options(
                "start_at_layer needs a residual stream as input (Input::Resid)".to_owned(),
            )),
            (None, Input::Resid(_)) => {
                Err(RunError::Options("a residual stream as input needs start_at_layer".to_owned()))
            }
            _ => self.layers_of(options),
        }
    }

    /// Tokens go into a model with a vocabulary, vectors into one without, which has no next
    /// token to take a loss of.
    fn check_interface(&self, input: &Input, options: &RunOptions) -> Result<(), RunError> {
        let refuse = |reason: String| Err(RunError::Options(reason));
        let wants_loss =
            options.loss_per_token || matches!(options.return_type, ReturnType::Loss | ReturnType::Both);
        match (self.config.readers(), input) {
            (Some(readers), Input::Tokens(_)) => refuse(format!(
                "this model has no vocabulary: give it vectors [batch, pos, {}] (Input::Vectors), not tokens",
                readers.d_in
            )),
            (None, Input::Vectors(_)) => refuse(
                "this model reads tokens: give it tokens, or Input::Embeds [batch, pos, d_model]".to_owned(),
            ),
            (Some(_), _) if wants_loss => refuse(
                "this model predicts no tokens: ask for its output (ReturnType::Logits) and take a loss of that"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    fn check_input(&self, input: &Input, offset: usize) -> Result<(), RunError> {
        let [batch, pos] = input.batch_pos();
        if batch == 0 || pos == 0 {
            return Err(RunError::EmptyInput { shape: vec![batch, pos] });
        }
        if offset + pos > self.config.n_ctx {
            return Err(RunError::TooLong { pos: offset + pos, n_ctx: self.config.n_ctx });
        }
        let device = match input {
            Input::Tokens(tokens) => tokens.device(),
            Input::Vectors(x) | Input::Embeds(x) | Input::Resid(x) => x.device(),
        };
        if !same_hardware(&device, &self.device) {
            return Err(RunError::Options(format!(
                "the input is on {device:?}, but the model is on {:?}",
                self.device
            )));
        }
        let (x, width) = match input {
            Input::Tokens(tokens) => return check_tokens(tokens, self.config.d_vocab).map(|_| ()),
            Input::Vectors(x) => (x, self.config.dims().d_in),
            Input::Embeds(x) | Input::Resid(x) => (x, self.config.d_model),
        };
        if x.dims()[2] != width {
            return Err(RunError::InputShape {
                what: "the input",
                expected: format!("[batch, pos, {width}]"),
                found: x.dims().to_vec(),
            });
        }
        if x.dtype() != self.dtype {
            return Err(RunError::Options(format!(
                "the input is of {:?}, but the model computes in {:?}",
                x.dtype(),
                self.dtype
            )));
        }
        Ok(())
    }

    fn pass(
        &self,
        input: &Input,
        options: &RunOptions,
        past: Option<&mut KvCache>,
        offset: usize,
        read: Option<usize>,
    ) -> Result<(Pass, Option<Pass>), RunError> {
        let [batch, pos] = input.batch_pos();
        let mask = match &options.attention_mask {
            None => None,
            Some(mask) => Some(read_mask(mask, batch, pos)?),
        };
        let mask = match past {
            None => mask,
            Some(past) => past.extend_mask(mask, batch, pos),
        };
        let tail = read.map(|read| self.pass_over(mask.as_deref(), offset + pos - read, read));
        Ok((self.pass_over(mask.as_deref(), offset, pos), tail))
    }

    /// A pass over `pos` positions behind `offset` others; `mask` is of all of them.
    pub(crate) fn pass_over(&self, mask: Option<&[Vec<bool>]>, offset: usize, pos: usize) -> Pass {
        let positions = match mask {
            None => PositionIds::plain(offset, pos),
            Some(mask) => PositionIds::masked(mask, pos),
        };
        let device = self.device.clone();
        let rotary = match &self.config.positions {
            Positions::Rotary(rotary) => Some(rotary.tables(positions.rows(), &device, self.dtype)),
            _ => None,
        };
        let attention = &self.config.attention;
        let masks =
            Masks::new(&attention.windows, attention.bidirectional, [pos, offset + pos], mask, &device);
        let alibi = (self.config.positions == Positions::Alibi)
            .then(|| Alibi::new(attention.n_heads, [pos, offset + pos]));
        Pass { positions, masks, alibi, rotary }
    }

    /// The stream that enters the first block.
    fn residual(&self, input: &Input, hooks: &mut Hooks<'_>, pass: &Pass) -> Result<Tensor<3>, RunError> {
        let embed = match (input, &self.ends) {
            (Input::Resid(resid), _) => return Ok(resid.clone()),
            (Input::Tokens(tokens), Ends::Tokens { embed, .. }) => self.embedded(embed, tokens, hooks)?,
            (Input::Vectors(x), Ends::Vectors { read_in, .. }) => read_in.forward(hooks, x.clone()),
            (Input::Embeds(embeds), _) => embeds.clone(),
            (Input::Tokens(_), Ends::Vectors { .. }) | (Input::Vectors(_), Ends::Tokens { .. }) => {
                return Err(RunError::Options("the input does not fit the model's ends".to_owned()));
            }
        };
        let embed = hooks.at(HookPoint::Embed, embed);
        Ok(match &self.pos_embed {
            None => embed,
            Some(pos_embed) => {
                let batch = embed.dims()[0];
                let pos = pos_embed.forward(&pass.positions, batch);
                embed + hooks.at(HookPoint::PosEmbed, pos)
            }
        })
    }

    fn embedded(
        &self,
        embed: &Embed,
        tokens: &Tensor<2, Int>,
        hooks: &mut Hooks<'_>,
    ) -> Result<Tensor<3>, RunError> {
        let (tokens, changed) = hooks.at_changed(HookPoint::Tokens, tokens.clone());
        if changed {
            check_tokens(&tokens, self.config.d_vocab)?;
        }
        let embed = embed.forward(tokens);
        Ok(match &self.embed_norm {
            None => embed,
            Some(norm) => norm.forward(hooks, [HookPoint::EmbedLnScale, HookPoint::EmbedLnNormalized], embed),
        })
    }
}

/// The logits and losses asked for.
fn finish(
    unembed: &Unembed,
    hooks: &mut Hooks<'_>,
    stream: Tensor<3>,
    input: &Input,
    options: &RunOptions,
) -> Result<Output, RunError> {
    let wants_loss =
        options.loss_per_token || matches!(options.return_type, ReturnType::Loss | ReturnType::Both);
    let wants_logits = matches!(options.return_type, ReturnType::Logits | ReturnType::Both);
    if !wants_loss {
        return Ok(Output { logits: Some(unembed.forward(hooks, stream)), ..Output::default() });
    }
    let [batch, pos, _] = stream.dims();
    let tokens = labels(input, options, [batch, pos, unembed.w_u.dims()[1]])?;
    let seen = hooks.wants(HookPoint::UnembedIn) || hooks.wants(HookPoint::UnembedOut);
    let (logits, per_token) = if wants_logits || seen || stream.is_autodiff() {
        let logits = unembed.forward(hooks, stream);
        (Some(logits.clone()), loss::per_token(logits, &tokens))
    } else {
        (None, loss::per_token_of_stream(unembed, stream, &tokens))
    };
    Ok(Output {
        loss: Some(loss::mean(per_token.clone(), options.attention_mask.as_ref())),
        loss_per_token: options.loss_per_token.then_some(per_token),
        logits: logits.filter(|_| wants_logits),
        resid: None,
    })
}

/// The positions of `stream` that logits are wanted for.
fn at_positions(stream: Tensor<3>, options: &RunOptions) -> Result<Tensor<3>, RunError> {
    let positions = &options.logits_pos;
    if *positions == Slice::All {
        return Ok(stream);
    }
    if options.loss_per_token || matches!(options.return_type, ReturnType::Loss | ReturnType::Both) {
        let reason = "a loss needs the logits of every position: leave RunOptions::logits_pos as it is";
        return Err(RunError::Options(reason.to_owned()));
    }
    let refuse = |error: SliceError| RunError::Options(format!("RunOptions::logits_pos: {error}"));
    Ok(match positions.resolve(stream.dims()[1]).map_err(refuse)? {
        Indices::Range(start, stop) => stream.narrow(1, start, stop - start),
        Indices::List(list) => {
            let list: Vec<i64> = list.into_iter().map(|at| at as i64).collect();
            let device = stream.device().without_autodiff();
            stream.select(1, Tensor::<1, Int>::from_data(list.as_slice(), &device))
        }
    })
}

/// The tokens to predict, `[batch · pos]`, checked.
fn labels(
    input: &Input,
    options: &RunOptions,
    [batch, pos, d_vocab_out]: [usize; 3],
) -> Result<Vec<i64>, RunError> {
    let tokens = match (&options.labels, input) {
        (Some(labels), _) => labels,
        (None, Input::Tokens(tokens)) => tokens,
        (None, _) => {
            let message = "a loss needs tokens to predict: give RunOptions::labels";
            return Err(RunError::Options(message.to_owned()));
        }
    };
    if tokens.dims() != [batch, pos] || pos < 2 {
        return Err(RunError::InputShape {
            what: "the tokens to predict",
            expected: format!("[{batch}, {pos}] with at least two positions"),
            found: tokens.dims().to_vec(),
        });
    }
    let ids = check_tokens(tokens, d_vocab_out)?;
    if let Some(mask) = &options.attention_mask {
        let mask = read_mask(mask, batch, pos)?;
        if !mask.iter().any(|row| row.windows(2).any(|pair| pair[0] && pair[1])) {
            return Err(RunError::Options(
                "the attention mask leaves no pair of neighboring tokens to take a loss of".to_owned(),
            ));
        }
    }
    Ok(ids)
}

/// The tokens on the host, each below `d_vocab`.
fn check_tokens(tokens: &Tensor<2, Int>, d_vocab: usize) -> Result<Vec<i64>, RunError> {
    let [_, pos] = tokens.dims();
    let ids = read_ints(tokens)?;
    match ids.iter().position(|&token| usize::try_from(token).map_or(true, |token| token >= d_vocab)) {
        None => Ok(ids),
        Some(at) => Err(RunError::TokenOutOfRange { token: ids[at], row: at / pos, pos: at % pos, d_vocab }),
    }
}

pub(crate) fn read_mask(mask: &Tensor<2, Int>, batch: usize, pos: usize) -> Result<Vec<Vec<bool>>, RunError> {
    if mask.dims() != [batch, pos] {
        return Err(RunError::InputShape {
            what: "the attention mask",
            expected: format!("[{batch}, {pos}]"),
            found: mask.dims().to_vec(),
        });
    }
    Ok(read_ints(mask)?.chunks(pos).map(|row| row.iter().map(|&token| token != 0).collect()).collect())
}

fn read_ints(tensor: &Tensor<2, Int>) -> Result<Vec<i64>, RunError> {
    tensor.try_to_vec_as::<i64>().map_err(|error| RunError::Device(format!("{error:?}")))
}

/// Whether two devices are the same one, autodiff aside.
#[must_use]
pub(crate) fn same_hardware(a: &Device, b: &Device) -> bool {
    a.clone().without_autodiff() == b.clone().without_autodiff()
}
