//! What is optimised: the likelihood of answers, or preferences between them.

use candle_core::Result;
use gap_contract::{DpoLoss, Job, Method};
use gap_lm::training::{Batch, Keep, Pass, TrainableDecoder};

/// What one forward pass measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    /// Sum of the losses of its units: tokens that count, or pairs.
    pub loss: f64,
    /// How many units.
    pub units: u64,
    /// Tokens that were gone through.
    pub tokens: u64,
    /// Of pairs: sums of the rewards of chosen and rejected answers, and how many were the right way round.
    pub rewards: Option<[f64; 3]>,
}

impl Measured {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let both = |a: [f64; 3], b: [f64; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
        Self {
            loss: self.loss + other.loss,
            units: self.units + other.units,
            tokens: self.tokens + other.tokens,
            rewards: match (self.rewards, other.rewards) {
                (Some(a), Some(b)) => Some(both(a, b)),
                (a, b) => a.or(b),
            },
        }
    }

    /// The mean loss of a unit.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "units are far below 2^52")]
    pub fn mean(&self) -> f64 {
        self.loss / self.units.max(1) as f64
    }
}

/// Units of a batch: what the loss is the mean of.
#[must_use]
pub fn units(batch: &Batch, job: &Job) -> u64 {
    match job.method {
        Method::Supervised => batch.targets().len() as u64,
        Method::Dpo => batch.sequences() as u64 / 2,
    }
}

/// The model, and what it is held near to in preference training.
#[derive(Debug)]
pub struct Objective {
    /// What is trained.
    pub model: TrainableDecoder,
    /// The model as it was, where all of it is trained; without it the model with the adapters that it began with, if any.
    pub reference: Option<TrainableDecoder>,
}

impl Objective {
    /// Measures a batch without changing anything.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn measure(&mut self, batch: &Batch, job: &Job) -> Result<Measured> {
        let passed = self.model.forward(batch, Pass::ANSWER, Keep::Nothing)?;
        let logs = self.model.log_probabilities(batch, &passed)?;
        match job.method {
            Method::Supervised => Ok(likelihood(&logs, batch)),
            Method::Dpo => {
                let reference = self.reference(batch)?;
                Ok(preferences(&logs, &reference, batch, job).0)
            }
        }
    }

    /// Measures a batch and accumulates gradients of its loss over `units`, those of the whole step.
    ///
    /// # Errors
    /// Where the device fails.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "slopes are of 32 bits")]
    pub fn train(&mut self, batch: &Batch, job: &Job, pass: Pass, units: u64) -> Result<Measured> {
        let unit = 1.0 / units.max(1) as f64;
        match job.method {
            Method::Supervised => {
                let passed = self.model.forward(batch, pass, Keep::ForBackward)?;
                let logs = self.model.backward(batch, passed, &vec![-unit as f32; batch.targets().len()])?;
                Ok(likelihood(&logs, batch))
            }
            Method::Dpo => {
                let reference = self.reference(batch)?;
                let passed = self.model.forward(batch, pass, Keep::ForBackward)?;
                let logs = self.model.log_probabilities(batch, &passed)?;
                let (measured, slopes) = preferences(&logs, &reference, batch, job);
                let slopes: Vec<f32> = slopes.into_iter().map(|slope| (slope * unit) as f32).collect();
                self.model.backward(batch, passed, &slopes)?;
                Ok(measured)
            }
        }
    }

    fn reference(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let (model, pass) = match &mut self.reference {
            Some(reference) => (reference, Pass::ANSWER),
            None => (&mut self.model, Pass::START),
        };
        let passed = model.forward(batch, pass, Keep::Nothing)?;
        model.log_probabilities(batch, &passed)
    }
}

fn likelihood(logs: &[f32], batch: &Batch) -> Measured {
    Measured {
        loss: -logs.iter().map(|log| f64::from(*log)).sum::<f64>(),
        units: logs.len() as u64,
        tokens: batch.tokens().len() as u64,
        rewards: None,
    }
}

/// The losses of the pairs of a batch, chosen answers first, and what each token's logarithm means for their sum.
fn preferences(logs: &[f32], reference: &[f32], batch: &Batch, job: &Job) -> (Measured, Vec<f64>) {
    let bounds = batch.counted_bounds();
    let pairs = batch.sequences() / 2;
    let span = |sequence: usize| Some(*bounds.get(sequence)?..*bounds.get(sequence + 1)?);
    let sum = |logs: &[f32], sequence: usize| -> f64 {
        let own = span(sequence).and_then(|span| logs.get(span)).unwrap_or_default();
        own.iter().map(|log| f64::from(*log)).sum()
    };
    let mut measured = Measured { units: pairs as u64, tokens: batch.tokens().len() as u64, ..Measured::default() };
    let mut rewards = [0.0; 3];
    let mut slopes = vec![0.0; logs.len()];
    for pair in 0..pairs {
        let ratio = |sequence: usize| {
            // IPO compares means over tokens.
            let length =
                if job.loss_type == DpoLoss::Ipo { span(sequence).map_or(1, |span| span.len()).max(1) } else { 1 };
            #[allow(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
            let length = length as f64;
            ((sum(logs, sequence) - sum(reference, sequence)) / length, length)
        };
        let ((chosen, chosen_length), (rejected, rejected_length)) = (ratio(pair), ratio(pairs + pair));
        let (loss, slope) = pair_loss(chosen - rejected, job);
        measured.loss += loss;
        rewards[0] += job.beta * chosen;
        rewards[1] += job.beta * rejected;
        rewards[2] += f64::from(u8::from(chosen > rejected));
        for (sequence, slope) in [(pair, slope / chosen_length), (pairs + pair, -slope / rejected_length)] {
            if let Some(own) = span(sequence).and_then(|span| slopes.get_mut(span)) {
                own.fill(slope);
            }
        }
    }
    measured.rewards = Some(rewards);
    (measured, slopes)
}

/// The loss of a pair whose log-ratios differ by `difference`, and its slope.
fn pair_loss(difference: f64, job: &Job) -> (f64, f64) {
    let (beta, smoothing) = (job.beta, job.label_smoothing);
    match job.loss_type {
        DpoLoss::Sigmoid => {
            let x = beta * difference;
            // −log σ(x) = log(1 + e⁻ˣ), without overflow.
            let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
            let sigmoid = 1.0 / (1.0 + (-x).exp());
            let loss = (1.0 - smoothing) * softplus(-x) + smoothing * softplus(x);
            (loss, beta * (smoothing * sigmoid - (1.0 - smoothing) * (1.0 - sigmoid)))
        }
        DpoLoss::Hinge => {
            let short = 1.0 - beta * difference;
            if short > 0.0 { (short, -beta) } else { (0.0, 0.0) }
        }
        DpoLoss::Ipo => {
            let off = difference - 1.0 / (2.0 * beta);
            (off * off, 2.0 * off)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pair_loss;
    use gap_contract::JobSpec;

    #[test]
    fn slopes_are_those_of_the_losses() {
        for more in [
            r#""loss_type": "sigmoid""#,
            r#""label_smoothing": 0.2"#,
            r#""loss_type": "hinge""#,
            r#""loss_type": "ipo""#,
        ] {
            let json = format!(
                r#"{{"model": "m", "training_file": "t", "output": "o", "max_steps": 1, "method": "dpo", "beta": 0.3, {more}}}"#
            );
            let job = JobSpec::parse(json.as_bytes()).unwrap().check().unwrap();
            for difference in [-7.0, -0.4, 0.0, 0.3, 2.0, 9.0] {
                let step = 1e-6;
                let slope =
                    (pair_loss(difference + step, &job).0 - pair_loss(difference - step, &job).0) / (2.0 * step);
                assert!((slope - pair_loss(difference, &job).1).abs() < 1e-5, "{more} at {difference}");
            }
        }
    }
}
