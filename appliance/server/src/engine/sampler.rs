//! The choice of the next token.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use std::collections::BTreeMap;

/// How tokens are chosen.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// Zero: always the likeliest.
    pub temperature: f32,
    /// Only the likeliest tokens that together have this probability.
    pub top_p: f32,
    /// Only so many of the likeliest, if not zero.
    pub top_k: usize,
    /// Only tokens that are at least so likely as this part of the likeliest.
    pub min_p: f32,
    /// Taken from tokens that were there already.
    pub presence_penalty: f32,
    /// Taken from tokens for each time that they were there.
    pub frequency_penalty: f32,
    /// Added to tokens.
    pub bias: BTreeMap<u32, f32>,
    /// The same seed gives the same text.
    pub seed: u64,
    /// For how many tokens beside the chosen one probabilities are told, if at all.
    pub logprobs: Option<usize>,
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// Logarithm of its probability by the model itself, and the likeliest tokens with theirs, if asked for.
    pub logprobs: Option<(f32, Vec<(u32, f32)>)>,
}

/// Chooses the tokens of one answer.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha12Rng,
    seen: BTreeMap<u32, u32>,
}

impl Sampler {
    /// At the beginning of an answer.
    pub fn new(sampling: Sampling) -> Self {
        Self { random: ChaCha12Rng::seed_from_u64(sampling.seed), sampling, seen: BTreeMap::new() }
    }

    /// Chooses from the model's logits; `allowed` says what a grammar takes. None where nothing is left to choose from.
    pub fn choose(&mut self, logits: &[f32], allowed: Option<&dyn Fn(u32) -> bool>) -> Option<Chosen> {
        let mut scores = logits.to_vec();
        self.adjust(&mut scores, allowed);
        let token = if self.sampling.temperature > 0.0 { self.sample(&scores)? } else { likeliest(&scores)? };
        *self.seen.entry(token).or_default() += 1;
        Some(Chosen { token, logprobs: self.sampling.logprobs.map(|count| logprobs(logits, token, count)) })
    }

    fn adjust(&self, scores: &mut [f32], allowed: Option<&dyn Fn(u32) -> bool>) {
        let Sampling { presence_penalty, frequency_penalty, ref bias, .. } = self.sampling;
        let mut add = |token: u32, value: f32| {
            if let Some(score) = scores.get_mut(token as usize) {
                *score += value;
            }
        };
        for (token, value) in bias {
            add(*token, *value);
        }
        if presence_penalty != 0.0 || frequency_penalty != 0.0 {
            for (token, count) in &self.seen {
                add(*token, -presence_penalty - frequency_penalty * *count as f32);
            }
        }
        if let Some(allowed) = allowed {
            for (token, score) in (0..).zip(scores) {
                if !allowed(token) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }

    fn sample(&mut self, scores: &[f32]) -> Option<u32> {
        let Sampling { temperature, top_p, top_k, min_p, .. } = self.sampling;
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if most == f32::NEG_INFINITY {
            return None;
        }
        let weight = |score: &f32| ((score - most) / temperature).exp();
        let mut candidates: Vec<(u32, f32)> = (0..).zip(scores.iter().map(weight)).filter(|(_, w)| *w > 0.0).collect();
        if min_p > 0.0 {
            candidates.retain(|(_, weight)| *weight >= min_p);
        }
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k, by_weight);
            candidates.truncate(top_k);
        }
        if top_p < 1.0 {
            candidates = nucleus(candidates, top_p);
        } else {
            // So that the same draw means the same token however the candidates were found.
            candidates.sort_unstable_by_key(|(token, _)| *token);
        }
        let total: f64 = candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let mut draw = self.random.r#gen::<f64>() * total;
        for (token, weight) in &candidates {
            draw -= f64::from(*weight);
            if draw < 0.0 {
                return Some(*token);
            }
        }
        candidates.last().map(|(token, _)| *token)
    }
}

fn by_weight(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The fewest of the likeliest that together have at least a part `p` of the whole.
fn nucleus(mut candidates: Vec<(u32, f32)>, p: f32) -> Vec<(u32, f32)> {
    let total: f64 = candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
    // Mostly few tokens hold nearly everything: sorting the front is enough.
    let mut front = 256;
    loop {
        if front < candidates.len() {
            candidates.select_nth_unstable_by(front, by_weight);
        }
        let end = front.min(candidates.len());
        let mut sum = 0.0;
        if let Some(sorted) = candidates.get_mut(..end) {
            sorted.sort_unstable_by(by_weight);
            for (index, (_, weight)) in sorted.iter().enumerate() {
                sum += f64::from(*weight);
                if sum >= f64::from(p) * total {
                    candidates.truncate(index + 1);
                    return candidates;
                }
            }
        }
        if end == candidates.len() {
            return candidates;
        }
        front *= 4;
    }
}

/// The first of the largest.
fn likeliest(scores: &[f32]) -> Option<u32> {
    let best = (0u32..).zip(scores).fold(None, |best: Option<(u32, f32)>, (token, score)| match best {
        Some((_, most)) if *score <= most => best,
        _ if *score > f32::NEG_INFINITY => Some((token, *score)),
        _ => best,
    });
    best.map(|(token, _)| token)
}

fn logprobs(logits: &[f32], token: u32, count: usize) -> (f32, Vec<(u32, f32)>) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    let normal = most + sum.ln() as f32;
    let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY) - normal;
    let mut best: Vec<(u32, f32)> = (0..).zip(logits.iter().map(|logit| logit - normal)).collect();
    if count < best.len() {
        best.select_nth_unstable_by(count, by_weight);
        best.truncate(count);
    }
    best.sort_unstable_by(by_weight);
    (own, best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            bias: BTreeMap::new(),
            seed: 7,
            logprobs: None,
        }
    }

    fn draws(sampling: Sampling, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..count).map(|_| sampler.choose(logits, None).unwrap().token).collect()
    }

    #[test]
    fn zero_temperature_takes_the_first_of_the_likeliest() {
        assert_eq!(draws(Sampling { temperature: 0.0, ..sampling() }, &[1.0, 3.0, 3.0, -1.0], 2), [1, 1]);
    }

    #[test]
    fn a_seed_repeats_itself_and_another_differs() {
        let logits: Vec<f32> = (0..50).map(|token| (token % 7) as f32 / 3.0).collect();
        let first = draws(sampling(), &logits, 40);
        assert_eq!(first, draws(sampling(), &logits, 40));
        assert_ne!(first, draws(Sampling { seed: 8, ..sampling() }, &logits, 40));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let found = draws(sampling(), &logits, 20_000);
        for (token, expected) in [(0, 0.5), (1, 0.3), (2, 0.2)] {
            let part = found.iter().filter(|found| **found == token).count() as f64 / 20_000.0;
            assert!((part - expected).abs() < 0.02, "{token}: {part}");
        }
    }

    #[test]
    fn limits_leave_only_what_they_say() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let kinds = |sampling| draws(sampling, &logits, 500).into_iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(kinds(Sampling { top_k: 1, ..sampling() }), [0].into());
        assert_eq!(kinds(Sampling { top_k: 2, ..sampling() }), [0, 1].into());
        assert_eq!(kinds(Sampling { top_p: 0.5, ..sampling() }), [0].into());
        assert_eq!(kinds(Sampling { top_p: 0.75, ..sampling() }), [0, 1].into());
        assert_eq!(kinds(Sampling { min_p: 0.5, ..sampling() }), [0, 1].into());
        assert_eq!(kinds(Sampling { bias: [(0, -100.0)].into(), ..sampling() }), [1, 2].into());
    }

    #[test]
    fn a_large_nucleus_is_found_beyond_the_first_look() {
        let logits = vec![0.0; 1000];
        assert_eq!(draws(Sampling { top_p: 0.9, ..sampling() }, &logits, 3000).iter().max(), Some(&899));
    }

    #[test]
    fn what_a_grammar_forbids_is_never_chosen() {
        let mut sampler = Sampler::new(sampling());
        let chosen = sampler.choose(&[9.0, 0.0, 1.0], Some(&|token| token == 1)).unwrap();
        assert_eq!(chosen.token, 1);
        assert_eq!(sampler.choose(&[9.0, 0.0], Some(&|_| false)), None);
    }

    #[test]
    fn penalties_push_repeated_tokens_down() {
        let penalty = Sampling { temperature: 0.0, frequency_penalty: 1.0, presence_penalty: 0.5, ..sampling() };
        assert_eq!(draws(penalty, &[2.0, 1.0], 3), [0, 1, 0]);
    }

    #[test]
    fn logprobs_are_the_models_own() {
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, logprobs: Some(2), ..sampling() });
        let (own, best) = sampler.choose(&[0.0, 1.0, 2.0], None).unwrap().logprobs.unwrap();
        let normal = (1.0f32 + 1f32.exp() + 2f32.exp()).ln();
        assert!((own - (2.0 - normal)).abs() < 1e-6);
        assert_eq!(best.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 1]);
    }
}
