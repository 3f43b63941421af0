//! What is measured on the validation examples, and what follows from it.

use super::Run;
use crate::{
    data::{Examples, batch},
    error::Failed,
    journal::Journal,
    objective::Measured,
};
use gap_contract::{FailureCode, Level, Topic};
use gap_lm::training::Batch;
use serde_json::json;

/// The most tokens of validation examples that are measured at once, where a batch that is trained on has as many.
const MEASURED_TOKENS: usize = 8192;

impl Run<'_> {
    /// Whether the validation loss is measured after this step.
    pub(super) fn due(&self) -> bool {
        let every = self.job.eval_steps.unwrap_or_else(|| self.plan.epochs.steps()).max(1);
        self.plan.validation.is_some() && (self.state.step.is_multiple_of(every) || self.state.step == self.plan.total)
    }

    pub(super) fn validate(&mut self, journal: &mut Journal) -> Result<Option<f64>, Failed> {
        let Some(validation) = &self.plan.validation else { return Ok(None) };
        let mut measured = Measured::default();
        for batch in measured_batches(validation, self.plan.tokens.min(MEASURED_TOKENS)) {
            measured = measured.and(self.objective.measure(&batch, self.job)?);
        }
        let loss = measured.mean();
        let step = self.state.step;
        if !loss.is_finite() {
            let message = format!(
                "the validation loss after step {step} is {loss}, which is no number; lower `learning_rate` and resume"
            );
            return Err(Failed::new(FailureCode::NotFinite, message).about("learning_rate"));
        }
        let message = format!("validation loss {loss:.4} after step {step}");
        journal.event(Level::Info, Topic::Validation, message, json!({ "step": step, "valid_loss": loss }))?;
        let state = &mut self.state;
        state.rising = if state.valid_loss.is_some_and(|before| loss > before) { state.rising + 1 } else { 0 };
        if state.rising == 2 {
            let message = "the validation loss rose twice in a row: the model may be learning the examples by heart";
            journal.event(
                Level::Warn,
                Topic::ValidationLossRising,
                message,
                json!({ "step": step, "valid_loss": loss }),
            )?;
        }
        state.valid_loss = Some(loss);
        let threshold = self.job.early_stopping.map_or(0.0, |stopping| stopping.threshold);
        if state.best.is_none_or(|(best, _)| loss < best - threshold) {
            state.best = Some((loss, step));
            state.without_improvement = 0;
        } else {
            state.without_improvement += 1;
        }
        Ok(Some(loss))
    }

    pub(super) fn exhausted(&self) -> bool {
        self.job.early_stopping.is_some_and(|stopping| self.state.without_improvement >= stopping.patience)
    }
}

/// Validation examples in file order, as many at once as have at most `most` tokens, for which the estimate has room; an
/// example that has more stands alone.
fn measured_batches(examples: &Examples, most: usize) -> Vec<Batch> {
    let items: Vec<Vec<usize>> = (0..examples.sequences.len()).map(|index| vec![index]).collect();
    let (mut all, mut open, mut tokens) = (Vec::new(), Vec::new(), 0);
    for (index, item) in items.iter().enumerate() {
        let length = examples.length(index);
        if !open.is_empty() && tokens + length > most {
            all.push(batch(examples, &open));
            (open, tokens) = (Vec::new(), 0);
        }
        tokens += length;
        open.push(item);
    }
    all.push(batch(examples, &open));
    all
}
