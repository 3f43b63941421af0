//! From scores of single answers to numbers about candidates and pairs of them.

use super::{
    answers::Answer,
    bootstrap::{self, Interval},
    example::Example,
    judge,
    score::Rules,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// One number about one candidate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Who answered.
    pub candidate: String,
    /// What was measured.
    pub metric: String,
    /// The value; accuracies are shares, judgements run from 1 to 5.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
    /// Examples that it was measured on.
    pub examples: usize,
}

/// How the second of two candidates does against the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Measured against.
    pub first: String,
    /// Measured.
    pub second: String,
    /// What was measured.
    pub metric: String,
    /// The second's value less the first's, on the examples that both were measured on.
    pub difference: f64,
    /// Its 95 % interval; the difference is more than chance where it does not contain 0.
    pub interval: Option<Interval>,
    /// Examples on which the second is better.
    pub wins: usize,
    /// Examples on which both are the same.
    pub ties: usize,
    /// Examples on which the first is better.
    pub losses: usize,
}

/// A score of an example, and how much it weighs (tokens for perplexity, else 1).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    score: f64,
    weight: f64,
}

/// The scores of all candidates: metric, candidate, index of the example.
#[derive(Debug, Default)]
pub struct Scores(BTreeMap<String, BTreeMap<String, BTreeMap<usize, Point>>>);

const PERPLEXITY: &str = "perplexity";

impl Scores {
    /// Scores the answers of one candidate.
    pub fn add(&mut self, candidate: &str, examples: &[Example], answers: &BTreeMap<String, Answer>, rules: &Rules) {
        for (index, example) in examples.iter().enumerate() {
            let Some(answer) = answers.get(&example.id) else { continue };
            if let (Some(loss), Some(tokens)) = (answer.loss, answer.tokens) {
                #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 tokens")]
                let weight = tokens as f64;
                self.put(PERPLEXITY, candidate, index, Point { score: loss, weight });
            }
            if !example.asks() {
                continue;
            }
            for (rule, kept) in rules.judge(&answer.answer, example.reference.as_deref()) {
                self.put(rule, candidate, index, Point { score: f64::from(u8::from(kept)), weight: 1.0 });
            }
            for (aspect, score) in judge::ASPECTS.iter().zip(answer.judged.iter().flatten()) {
                self.put(&format!("judge_{aspect}"), candidate, index, Point { score: *score, weight: 1.0 });
            }
        }
    }

    fn put(&mut self, metric: &str, candidate: &str, index: usize, point: Point) {
        let candidates = self.0.entry(metric.to_owned()).or_default();
        candidates.entry(candidate.to_owned()).or_default().insert(index, point);
    }

    /// Every metric of every candidate.
    #[must_use]
    pub fn measured(&self, resamples: usize, seed: u64) -> Vec<Measured> {
        let mut found = Vec::new();
        for (metric, candidates) in &self.0 {
            for (candidate, points) in candidates {
                let points: Vec<Point> = points.values().copied().collect();
                let every: Vec<usize> = (0..points.len()).collect();
                let statistic = |indices: &[usize]| value(metric, &points, indices);
                found.push(Measured {
                    candidate: candidate.clone(),
                    metric: metric.clone(),
                    value: statistic(&every),
                    interval: bootstrap::interval(points.len(), resamples, seed, statistic),
                    examples: points.len(),
                });
            }
        }
        found
    }

    /// Every metric of two candidates against each other.
    #[must_use]
    pub fn compared(&self, first: &str, second: &str, resamples: usize, seed: u64) -> Vec<Compared> {
        let mut found = Vec::new();
        for (metric, candidates) in &self.0 {
            let (Some(one), Some(other)) = (candidates.get(first), candidates.get(second)) else { continue };
            let shared: BTreeSet<usize> = one.keys().filter(|index| other.contains_key(index)).copied().collect();
            let of = |points: &BTreeMap<usize, Point>| {
                shared.iter().filter_map(|index| points.get(index).copied()).collect::<Vec<Point>>()
            };
            let (one, other) = (of(one), of(other));
            if one.is_empty() {
                continue;
            }
            let every: Vec<usize> = (0..one.len()).collect();
            let statistic = |indices: &[usize]| value(metric, &other, indices) - value(metric, &one, indices);
            let lower_is_better = metric == PERPLEXITY;
            let better = |a: &Point, b: &Point| if lower_is_better { b.score < a.score } else { b.score > a.score };
            let pairs = || one.iter().zip(&other);
            found.push(Compared {
                first: first.to_owned(),
                second: second.to_owned(),
                metric: metric.clone(),
                difference: statistic(&every),
                interval: bootstrap::interval(one.len(), resamples, seed, statistic),
                wins: pairs().filter(|(a, b)| better(a, b)).count(),
                ties: pairs().filter(|(a, b)| !better(a, b) && !better(b, a)).count(),
                losses: pairs().filter(|(a, b)| better(b, a)).count(),
            });
        }
        found
    }
}

/// The value of a metric on some of the points: a mean, or for perplexity e to the loss of a token.
fn value(metric: &str, points: &[Point], indices: &[usize]) -> f64 {
    let chosen = || indices.iter().filter_map(|&index| points.get(index));
    let mean = chosen().map(|point| point.score).sum::<f64>() / chosen().map(|point| point.weight).sum::<f64>();
    if metric == PERPLEXITY { mean.exp() } else { mean }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::example::Prompt;
    use serde_json::json;

    fn scores() -> Scores {
        let rules = Rules::new(&serde_json::from_value(json!({"exact_match": {}})).unwrap()).unwrap();
        let example = |id: usize| Example {
            id: id.to_string(),
            prompt: Prompt::Text("q".to_owned()),
            reference: Some("a".to_owned()),
        };
        let examples: Vec<Example> = (0..40).map(example).collect();
        let answers = |right: usize, loss: f64| {
            let answer = |id: usize| Answer {
                id: id.to_string(),
                answer: if id < right { "a" } else { "b" }.to_owned(),
                loss: Some(loss * 2.0),
                tokens: Some(2),
                judged: None,
            };
            (0..40).map(|id| (id.to_string(), answer(id))).collect()
        };
        let mut scores = Scores::default();
        scores.add("base", &examples, &answers(10, 2.0), &rules);
        scores.add("new", &examples, &answers(30, 1.0), &rules);
        scores
    }

    #[test]
    fn shares_and_perplexities_are_what_they_should_be() {
        let measured = scores().measured(500, 1);
        let value = |candidate: &str, metric: &str| {
            measured.iter().find(|entry| entry.candidate == candidate && entry.metric == metric).unwrap().value
        };
        assert_eq!((value("base", "exact_match"), value("new", "exact_match")), (0.25, 0.75));
        assert!((value("base", "perplexity") - 2f64.exp()).abs() < 1e-9);
    }

    #[test]
    fn a_real_difference_has_an_interval_without_zero() {
        let compared = scores().compared("base", "new", 500, 1);
        let exact = compared.iter().find(|entry| entry.metric == "exact_match").unwrap();
        assert_eq!((exact.difference, exact.wins, exact.ties, exact.losses), (0.5, 20, 20, 0));
        assert!(exact.interval.unwrap().0 > 0.3);
        let perplexity = compared.iter().find(|entry| entry.metric == "perplexity").unwrap();
        assert_eq!((perplexity.wins, perplexity.losses), (40, 0));
        assert!(perplexity.interval.unwrap().1 < 0.0);
    }
}
