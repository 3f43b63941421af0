//! One layer of a decoder: attention and feed-forward block, forward with a tape, and backward along it.

use super::{
    activation::{gated, gated_backward},
    attention::{Sight, attend, attend_backward},
    heads::{Turn, from_heads, to_heads},
    linear::{Input, Linear, Pass},
    norm::{rms_norm, rms_norm_backward, rms_norm_weight_gradient},
    parameter::Parameter,
};
use candle_core::{Result, Tensor, bail};

/// A layer.
#[derive(Debug)]
pub struct Layer {
    pub(super) attention_norm: Parameter,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    /// Norms of the heads of queries and keys (Qwen3).
    pub(super) head_norms: Option<(Parameter, Parameter)>,
    pub(super) block_norm: Parameter,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) heads: usize,
    pub(super) key_heads: usize,
    pub(super) epsilon: f32,
}

/// What a pass through a layer depends on beside its input.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// How it is made.
    pub pass: Pass,
    /// Angles of the rows.
    pub turn: &'a Turn,
    /// What sees what.
    pub sight: Sight<'a>,
    /// The rows that are needed after attention; all of them if nothing is said.
    pub needed: Option<&'a Tensor>,
}

/// What the backward pass needs of the forward pass.
#[derive(Debug)]
pub struct Tape {
    x: Tensor,
    raw: Option<(Tensor, Tensor)>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attended: Tensor,
    middle: Tensor,
    gate: Tensor,
    up: Tensor,
    inner: [Option<Tensor>; 7],
}

impl Layer {
    /// The layer's result, and the tape for [`Layer::backward`].
    ///
    /// # Errors
    /// Where shapes do not fit or the device has no room.
    pub fn forward(&self, x: &Tensor, around: Surroundings<'_>) -> Result<(Tensor, Tape)> {
        let Surroundings { pass, turn, sight, needed } = around;
        let h = rms_norm(x, &self.attention_norm.like(x)?, self.epsilon)?;
        let (q, inner_q) = self.q.forward(&h, pass)?;
        let (k, inner_k) = self.k.forward(&h, pass)?;
        let (v, inner_v) = self.v.forward(&h, pass)?;
        drop(h);
        let (normed_q, normed_k, raw) = match &self.head_norms {
            None => (q, k, None),
            Some((norm_q, norm_k)) => {
                let normed_q = self.head_norm(&q, norm_q, self.heads)?;
                let normed_k = self.head_norm(&k, norm_k, self.key_heads)?;
                (normed_q, normed_k, Some((q, k)))
            }
        };
        let q = to_heads(&normed_q, self.heads, Some(turn))?;
        let k = to_heads(&normed_k, self.key_heads, Some(turn))?;
        let v = to_heads(&v, self.key_heads, None)?;
        let attended = from_heads(&attend(&q, &k, &v, sight)?, None)?;
        let (attended, rest) = match needed {
            None => (attended, x.clone()),
            Some(rows) => (attended.index_select(rows, 0)?, x.index_select(rows, 0)?),
        };
        let (o, inner_o) = self.o.forward(&attended, pass)?;
        let middle = (rest + o)?;
        let h = rms_norm(&middle, &self.block_norm.like(x)?, self.epsilon)?;
        let (gate, inner_gate) = self.gate.forward(&h, pass)?;
        let (up, inner_up) = self.up.forward(&h, pass)?;
        let (down, inner_down) = self.down.forward(&gated(&gate, &up)?, pass)?;
        let out = (&middle + down)?;
        let inner = [inner_q, inner_k, inner_v, inner_o, inner_gate, inner_up, inner_down];
        Ok((out, Tape { x: x.clone(), raw, q, k, v, attended, middle, gate, up, inner }))
    }

    fn head_norm(&self, x: &Tensor, norm: &Parameter, heads: usize) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        rms_norm(&x.reshape((rows * heads, width / heads))?, &norm.like(x)?, self.epsilon)?.reshape((rows, width))
    }

    /// Accumulates the gradients of the layer's parameters from `dy`, that of its result; gives that of its input if
    /// something below is trained.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn backward(
        &mut self,
        tape: Tape,
        dy: &Tensor,
        around: Surroundings<'_>,
        below: bool,
    ) -> Result<Option<Tensor>> {
        let Surroundings { pass, turn, sight, needed } = around;
        let Tape { x, raw, q, k, v, attended, middle, gate, up, inner } = tape;
        let [inner_q, inner_k, inner_v, inner_o, inner_gate, inner_up, inner_down] = &inner;

        let product = gated(&gate, &up)?;
        let d_product = wanted(self.down.backward(&product, inner_down.as_ref(), dy, pass, Input::New)?)?;
        drop(product);
        let (d_gate, d_up) = gated_backward(&gate, &up, &d_product)?;
        drop((d_product, gate, up));
        let h = rms_norm(&middle, &self.block_norm.like(dy)?, self.epsilon)?;
        let dh = wanted(self.gate.backward(&h, inner_gate.as_ref(), &d_gate, pass, Input::New)?)?;
        let dh = wanted(self.up.backward(&h, inner_up.as_ref(), &d_up, pass, Input::AddTo(dh))?)?;
        let d_middle = (dy + through_norm(&mut self.block_norm, &middle, &dh, self.epsilon)?)?;

        let d_attended = wanted(self.o.backward(&attended, inner_o.as_ref(), &d_middle, pass, Input::New)?)?;
        let (d_attended, d_rest) = match needed {
            None => (d_attended, d_middle),
            Some(rows) => {
                let all = |gradient: &Tensor, like: usize| {
                    Tensor::zeros((x.dim(0)?, like), gradient.dtype(), gradient.device())?.index_add(rows, gradient, 0)
                };
                (all(&d_attended, d_attended.dim(1)?)?, all(&d_middle, d_middle.dim(1)?)?)
            }
        };
        let d_attended = to_heads(&d_attended, self.heads, None)?;
        let [dq, dk, dv] = attend_backward(&q, &k, &v, &d_attended, sight)?;
        drop((q, k, v, d_attended));
        let (mut dq, mut dk, dv) = (from_heads(&dq, Some(turn))?, from_heads(&dk, Some(turn))?, from_heads(&dv, None)?);
        if let (Some((norm_q, norm_k)), Some((raw_q, raw_k))) = (&mut self.head_norms, &raw) {
            dq = through_head_norm(norm_q, raw_q, &dq, self.heads, self.epsilon)?;
            dk = through_head_norm(norm_k, raw_k, &dk, self.key_heads, self.epsilon)?;
        }
        let h = rms_norm(&x, &self.attention_norm.like(dy)?, self.epsilon)?;
        let needed = below || self.attention_norm.is_trainable();
        let input = |sum: Option<Tensor>| match sum {
            Some(sum) => Input::AddTo(sum),
            None if needed => Input::New,
            None => Input::Ignored,
        };
        let dh = self.q.backward(&h, inner_q.as_ref(), &dq, pass, input(None))?;
        let dh = self.k.backward(&h, inner_k.as_ref(), &dk, pass, input(dh))?;
        let dh = self.v.backward(&h, inner_v.as_ref(), &dv, pass, input(dh))?;
        let Some(dh) = dh else { return Ok(None) };
        let dx = through_norm(&mut self.attention_norm, &x, &dh, self.epsilon)?;
        if below { Ok(Some((d_rest + dx)?)) } else { Ok(None) }
    }

    /// Its linear layers.
    pub(super) const fn linears(&self) -> [&Linear; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }

    /// The same, to be changed.
    pub(super) const fn linears_mut(&mut self) -> [&mut Linear; 7] {
        let Self { q, k, v, o, gate, up, down, .. } = self;
        [q, k, v, o, gate, up, down]
    }

    /// Calls `visit` with each of its parameters.
    pub(super) fn visit(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        visit(&mut self.attention_norm);
        for linear in [&mut self.q, &mut self.k, &mut self.v, &mut self.o] {
            linear.visit(visit);
        }
        if let Some((q, k)) = &mut self.head_norms {
            visit(q);
            visit(k);
        }
        visit(&mut self.block_norm);
        for linear in [&mut self.gate, &mut self.up, &mut self.down] {
            linear.visit(visit);
        }
    }
}

fn wanted(gradient: Option<Tensor>) -> Result<Tensor> {
    match gradient {
        Some(gradient) => Ok(gradient),
        None => bail!("a gradient that was asked for is missing"),
    }
}

fn through_norm(norm: &mut Parameter, x: &Tensor, dy: &Tensor, epsilon: f32) -> Result<Tensor> {
    if norm.is_trainable() {
        norm.accumulate(&rms_norm_weight_gradient(x, dy, epsilon)?)?;
    }
    rms_norm_backward(x, &norm.like(x)?, dy, epsilon)
}

fn through_head_norm(norm: &mut Parameter, x: &Tensor, dy: &Tensor, heads: usize, epsilon: f32) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let shape = (rows * heads, width / heads.max(1));
    through_norm(norm, &x.reshape(shape)?, &dy.reshape(shape)?, epsilon)?.reshape((rows, width))
}
