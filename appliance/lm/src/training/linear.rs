//! Linear layers, with or without an adapter, and their gradients.

use super::{
    noise::Key,
    parameter::{Parameter, add_product},
    weight::Weight,
};
use candle_core::{Result, Tensor};

/// `x · weightᵀ + bias`, and what the adapter adds.
#[derive(Debug)]
pub struct Linear {
    pub(super) weight: Weight,
    pub(super) bias: Option<Parameter>,
    pub(super) adapter: Option<Lora>,
}

/// A low-rank change: `scale · dropout(x) · aᵀ · bᵀ`.
#[derive(Debug)]
pub struct Lora {
    pub(super) a: Parameter,
    pub(super) b: Parameter,
    /// Both halves as they were when training began, where something is held near them.
    pub(super) start: Option<[Tensor; 2]>,
    pub(super) scale: f64,
    pub(super) dropout: f32,
    /// Tells its noise from that of others.
    pub(super) index: u64,
}

/// Which adapters take part in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapters {
    /// Those that are trained.
    Trained,
    /// What training began from: copies that were kept of the adapters, or the base where there are none.
    Start,
}

/// How a pass through the model is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Which adapters take part.
    pub adapters: Adapters,
    /// What inputs of adapters are dropped by; nothing is dropped without it.
    pub dropout: Option<Key>,
}

impl Pass {
    /// As the model answers.
    pub const ANSWER: Self = Self { adapters: Adapters::Trained, dropout: None };
    /// As it did before it was trained.
    pub const START: Self = Self { adapters: Adapters::Start, dropout: None };
}

/// What becomes of the gradient of a layer's input.
#[derive(Debug)]
pub enum Input {
    /// Nobody needs it.
    Ignored,
    /// It stands alone.
    New,
    /// It is added to another that nobody else holds.
    AddTo(Tensor),
}

impl Linear {
    /// The result, and the adapter's inner activations for the backward pass.
    ///
    /// # Errors
    /// Where shapes do not fit or the device has no room.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> Result<(Tensor, Option<Tensor>)> {
        let mut y = self.weight.forward(x)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(&bias.like(x)?)?;
        }
        let Some((adapter, [a, b])) = self.adapter.as_ref().and_then(|adapter| Some((adapter, adapter.halves(pass)?)))
        else {
            return Ok((y, None));
        };
        let inner = adapter.dropped(x, pass)?.matmul(&a.to_dtype(x.dtype())?.t()?)?;
        let y = add_product(y, &inner, &b.to_dtype(x.dtype())?.t()?, adapter.scale)?;
        Ok((y, Some(inner)))
    }

    /// Accumulates the gradients of its parameters from `dy`, that of the result; gives that of `x`.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn backward(
        &mut self,
        x: &Tensor,
        inner: Option<&Tensor>,
        dy: &Tensor,
        pass: Pass,
        input: Input,
    ) -> Result<Option<Tensor>> {
        if let Weight::Whole(weight) = &mut self.weight
            && weight.is_trainable()
        {
            weight.accumulate_product(dy, x, 1.0)?;
        }
        if let Some(bias) = self.bias.as_mut().filter(|bias| bias.is_trainable()) {
            bias.accumulate(&dy.sum(0)?)?;
        }
        let wanted = !matches!(input, Input::Ignored);
        let mut dx = self.weight.backward(dy, input)?;
        let trained = pass.adapters == Adapters::Trained;
        if let (Some(adapter), Some(inner)) = (self.adapter.as_mut().filter(|_| trained), inner) {
            let dropped = adapter.dropped(x, pass)?;
            let d_inner = (dy.matmul(&adapter.b.like(dy)?)? * adapter.scale)?;
            adapter.b.accumulate_product(dy, inner, adapter.scale)?;
            adapter.a.accumulate_product(&d_inner, &dropped, 1.0)?;
            if wanted {
                let a = adapter.a.like(dy)?;
                dx = match (dx, adapter.mask(x, pass)?) {
                    (Some(sum), None) => Some(add_product(sum, &d_inner, &a, 1.0)?),
                    (Some(sum), Some(mask)) => Some((sum + (d_inner.matmul(&a)? * mask)?)?),
                    (None, _) => None,
                };
            }
        }
        Ok(dx)
    }

    /// Calls `visit` with each of its parameters.
    pub(super) fn visit(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        if let Weight::Whole(weight) = &mut self.weight {
            visit(weight);
        }
        self.bias.iter_mut().for_each(&mut *visit);
        if let Some(adapter) = &mut self.adapter {
            visit(&mut adapter.a);
            visit(&mut adapter.b);
        }
    }
}

impl Lora {
    /// Keeps a copy of both halves as they are now. What is trained is changed in its place, so none of its memory is shared.
    pub(super) fn keep_start(&mut self) -> Result<()> {
        self.start = Some([self.a.value().copy()?, self.b.value().copy()?]);
        Ok(())
    }

    /// Both halves as a pass takes them; none where it goes without.
    fn halves(&self, pass: Pass) -> Option<[&Tensor; 2]> {
        match pass.adapters {
            Adapters::Trained => Some([self.a.value(), self.b.value()]),
            Adapters::Start => self.start.as_ref().map(|[a, b]| [a, b]),
        }
    }

    fn dropped(&self, x: &Tensor, pass: Pass) -> Result<Tensor> {
        match self.mask(x, pass)? {
            Some(mask) => x * mask,
            None => Ok(x.clone()),
        }
    }

    /// What inputs are multiplied by: 0, or what makes up for those that are.
    fn mask(&self, x: &Tensor, pass: Pass) -> Result<Option<Tensor>> {
        let Some(key) = pass.dropout.filter(|_| self.dropout > 0.0) else { return Ok(None) };
        let key = key.part(self.index);
        let kept = 1.0 / (1.0 - self.dropout);
        let value = |place| if key.unit(place) < self.dropout { 0.0 } else { kept };
        let mask: Vec<f32> = (0..x.elem_count() as u64).map(value).collect();
        Ok(Some(Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn lora(dropout: f32) -> Lora {
        let half = |name: &str, shape: (usize, usize)| {
            Parameter::trainable(name, &Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()).unwrap()
        };
        Lora { a: half("a", (2, 50)), b: half("b", (3, 2)), start: None, scale: 1.0, dropout, index: 1 }
    }

    #[test]
    fn what_is_left_of_an_input_makes_up_for_what_is_dropped() {
        let x = Tensor::ones((200, 50), DType::F32, &Device::Cpu).unwrap();
        let pass = Pass { adapters: Adapters::Trained, dropout: Some(Key::new(5)) };
        for share in [0.25_f32, 0.5] {
            let left = lora(share).dropped(&x, pass).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(left.iter().all(|value| *value == 0.0 || (*value - 1.0 / (1.0 - share)).abs() < 1e-6));
            let dropped = left.iter().filter(|value| **value == 0.0).count() as f32 / left.len() as f32;
            assert!((dropped - share).abs() < 0.03, "{dropped} of the inputs are dropped instead of {share}");
            let mean = left.iter().sum::<f32>() / left.len() as f32;
            assert!((mean - 1.0).abs() < 0.03, "the mean of ones is {mean}");
        }
        let answer = lora(0.5).dropped(&x, Pass::ANSWER).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(answer.iter().all(|value| *value == 1.0), "an answer drops nothing");
    }
}
