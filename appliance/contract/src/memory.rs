//! What memory a training by `gap-train` takes, from the sizes of the model alone: the trainer refuses a job by it, and
//! who plans an appliance goes by the same numbers.

use crate::Quantization;

/// The linear layers of each layer of a decoder.
const LINEARS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
/// Scores of attention are computed for so many rows of queries at a time, and so many bytes of them are there for each key:
/// six numbers of 32 bits in the backward pass.
const SCORE_ROWS: u64 = 128;
const SCORE_BYTES: u64 = 6 * 4;
/// Logits are computed for so many numbers at a time; they and their gradients are there, in 32 bits.
const LOGITS: u64 = (4 << 20) * 4 * 2;
/// Weights whose largest value is stored once where a matrix is held in four bits, and such values that have one themselves.
const NF4_BLOCK: u64 = 64;
const MAXIMA_BLOCK: u64 = 256;

/// The sizes of a decoder on which memory depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderSizes {
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width of the feed-forward part.
    pub intermediate: u64,
    /// Width of all queries.
    pub queries: u64,
    /// Width of all keys.
    pub keys: u64,
    /// Heads of queries.
    pub heads: u64,
    /// Number of layers.
    pub layers: u64,
    /// Number of tokens known.
    pub vocabulary: u64,
    /// Whether input and output share one matrix.
    pub tied: bool,
}

/// A training, as far as memory depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load<'a> {
    /// Rank of the adapters and the linear layers that have one; `None` where all weights are trained.
    pub adapter: Option<(u64, &'a [&'a str])>,
    /// How the frozen base is packed.
    pub quantization: Option<Quantization>,
    /// Whether what is trained stays beside it as it was at first (DPO of all weights, or going on from an adapter).
    pub reference: bool,
    /// Whether activations are computed again rather than kept.
    pub checkpointing: bool,
    /// Tokens of the longest batch.
    pub tokens: u64,
    /// Tokens of the longest sequence in any batch.
    pub longest: u64,
    /// Bytes of a frozen weight.
    pub weight: u64,
    /// Bytes of an activation.
    pub activation: u64,
}

/// What a training needs at its peak, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Estimate {
    /// The model's weights.
    pub weights: u64,
    /// What is trained beside them, gradients and the optimiser's state.
    pub training: u64,
    /// Activations of the longest batch.
    pub activations: u64,
}

impl Estimate {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.weights.saturating_add(self.training).saturating_add(self.activations)
    }
}

impl DecoderSizes {
    /// The linear layers of each layer, with outputs and inputs.
    const fn linears(&self) -> [(&'static str, u64, u64); 7] {
        let [q, k, v, o, gate, up, down] = LINEARS;
        [
            (q, self.queries, self.hidden),
            (k, self.keys, self.hidden),
            (v, self.keys, self.hidden),
            (o, self.hidden, self.queries),
            (gate, self.intermediate, self.hidden),
            (up, self.intermediate, self.hidden),
            (down, self.hidden, self.intermediate),
        ]
    }

    /// Parameters of the linear layers of all layers.
    fn linear(&self) -> u64 {
        self.layers * self.linears().iter().map(|(_, outputs, inputs)| outputs * inputs).sum::<u64>()
    }

    /// Parameters of the model.
    fn parameters(&self) -> u64 {
        let tables = self.vocabulary * self.hidden * if self.tied { 1 } else { 2 };
        self.linear() + self.layers * 2 * self.hidden + tables + self.hidden
    }

    /// Parameters that `load` trains.
    #[must_use]
    pub fn trained(&self, load: &Load<'_>) -> u64 {
        let Some((rank, targets)) = load.adapter else { return self.parameters() };
        let own = self.linears().into_iter().filter(|(name, ..)| targets.contains(name));
        self.layers * own.map(|(_, outputs, inputs)| rank * (outputs + inputs)).sum::<u64>()
    }

    /// What `load` needs at its peak.
    #[must_use]
    pub fn estimate(&self, load: &Load<'_>) -> Estimate {
        let (base, trained) = (self.parameters(), self.trained(load));
        let first = if load.reference { trained * 4 } else { 0 };
        let (weights, training) = match load.adapter {
            // Value, gradient and two moments.
            Some(_) => (self.frozen(load), trained * 16 + first),
            None => (base * 4, trained * 12 + first),
        };
        let rank = load.adapter.map_or(0, |(rank, targets)| rank * targets.len() as u64);
        let kept = 2 * self.hidden + 2 * (self.queries + self.keys) + 2 * self.intermediate + rank;
        let passing = 4 * self.hidden + 3 * self.queries + 4 * self.intermediate;
        let row = match load.checkpointing {
            true => self.layers * self.hidden + kept + passing,
            false => self.layers * kept + passing,
        };
        let rows = load.tokens.saturating_mul(row).saturating_mul(load.activation);
        let scores = load.longest.saturating_mul(self.heads * SCORE_ROWS.min(load.longest) * SCORE_BYTES);
        let activations = rows.saturating_add(scores).saturating_add(LOGITS);
        Estimate { weights, training, activations }
    }

    /// Bytes of a frozen base. In four bits a block has its largest value as well, in 32 bits, or in eight and 32 for each
    /// block of them; one matrix of a layer is unpacked a piece at a time.
    fn frozen(&self, load: &Load<'_>) -> u64 {
        let packed = self.linear();
        let kept = (self.parameters() - packed) * load.weight;
        let maxima = packed / NF4_BLOCK;
        match load.quantization {
            None => self.parameters() * load.weight,
            Some(Quantization::Nf4) => kept + packed / 2 + maxima * 4,
            Some(Quantization::Nf4DoubleQuant) => kept + packed / 2 + maxima + maxima / MAXIMA_BLOCK * 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA_7B: DecoderSizes = DecoderSizes {
        hidden: 4096,
        intermediate: 11008,
        queries: 4096,
        keys: 4096,
        heads: 32,
        layers: 32,
        vocabulary: 32000,
        tied: false,
    };
    const LORA: Load<'_> = Load {
        adapter: Some((16, &LINEARS)),
        quantization: None,
        reference: false,
        checkpointing: true,
        tokens: 2048,
        longest: 0,
        weight: 2,
        activation: 4,
    };

    #[test]
    fn llama_7b_has_the_parameters_that_it_is_known_to_have() {
        assert_eq!(LLAMA_7B.trained(&Load { adapter: None, ..LORA }), 6_738_415_616);
        // PEFT counts as many with rank 16 on all linear layers.
        assert_eq!(LLAMA_7B.trained(&LORA), 39_976_960);
    }

    #[test]
    fn what_is_held_depends_on_the_method_alone_and_activations_on_tokens() {
        let estimate = |load: Load<'_>| LLAMA_7B.estimate(&load);
        let lora = estimate(LORA);
        assert_eq!((lora.weights, lora.training), (2 * 6_738_415_616, 16 * 39_976_960));
        let full = estimate(Load { adapter: None, ..LORA });
        assert_eq!(full.weights + full.training, 16 * 6_738_415_616);
        let dpo = estimate(Load { adapter: None, reference: true, ..LORA });
        assert_eq!(dpo.training - full.training, full.weights);
        let gone_on = estimate(Load { reference: true, ..LORA });
        assert_eq!(gone_on.training - lora.training, 4 * 39_976_960);
        let four_bits = estimate(Load { quantization: Some(Quantization::Nf4DoubleQuant), ..LORA });
        assert!(four_bits.weights < lora.weights / 3 && four_bits.training == lora.training);
        let twice = estimate(Load { tokens: 4096, ..LORA });
        assert_eq!(twice.activations - LOGITS, 2 * (lora.activations - LOGITS));
        assert!(estimate(Load { checkpointing: false, ..LORA }).activations > 5 * lora.activations);
        // Attention takes memory with the length of a sequence, and not with its square.
        let scores = |longest: u64| estimate(Load { longest, ..LORA }).activations - lora.activations;
        assert_eq!(scores(2048), 32 * 128 * 2048 * 24);
        assert_eq!(scores(8192), 4 * scores(2048));
    }
}
