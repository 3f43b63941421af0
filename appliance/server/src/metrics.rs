//! What is measured, as Prometheus reads it.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// An answered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// The path of the API.
    pub path: &'static str,
    /// The status.
    pub status: u16,
}

/// Everything that is measured.
#[derive(Debug)]
pub struct Meters {
    registry: Registry,
    /// Requests by path and status.
    pub requests: Family<Answered, Counter>,
    /// Tokens of prompts that went through a model.
    pub prompt_tokens: Counter,
    /// Tokens that were chosen.
    pub answer_tokens: Counter,
    /// Tokens that encoders read.
    pub encoder_tokens: Counter,
    /// Places that requests for text hold, running and waiting ones together.
    pub taken: Gauge,
    /// Answers that are being computed.
    pub running: Gauge,
    /// Requests that wait for a place.
    pub waiting: Gauge,
    /// Positions of the cache in use.
    pub positions: Gauge,
    /// Grammars that were prepared.
    pub grammars: Counter,
    /// Requests that were refused for want of a place.
    pub refused: Counter,
    /// Answers whose client went away.
    pub abandoned: Counter,
    /// Answers that had to make room in the cache and began anew.
    pub preempted: Counter,
    /// Seconds to the first token.
    pub first_token: Histogram,
    /// Seconds to the last.
    pub duration: Histogram,
    /// How long answers took lately.
    typical: Typical,
}

/// How long something took lately.
#[derive(Debug, Default)]
pub struct Typical {
    /// A moving average, in milliseconds.
    milliseconds: AtomicU64,
}

impl Typical {
    /// It took so long.
    pub fn took(&self, duration: Duration) {
        let now = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let update = |old: u64| Some(if old == 0 { now } else { old - old / 8 + now / 8 });
        let _ = self.milliseconds.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
    }

    /// In whole seconds, at least one.
    pub fn seconds(&self) -> u64 {
        self.milliseconds.load(Ordering::Acquire).div_ceil(1000).clamp(1, 600)
    }
}

impl Default for Meters {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.005, 2.0, 18));
        let mut meters = Self {
            registry: Registry::with_prefix("gap_serve"),
            requests: Family::default(),
            prompt_tokens: Counter::default(),
            answer_tokens: Counter::default(),
            encoder_tokens: Counter::default(),
            taken: Gauge::default(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            positions: Gauge::default(),
            grammars: Counter::default(),
            refused: Counter::default(),
            abandoned: Counter::default(),
            preempted: Counter::default(),
            first_token: seconds(),
            duration: seconds(),
            typical: Typical::default(),
        };
        let registry = &mut meters.registry;
        registry.register("requests", "Answered requests", meters.requests.clone());
        registry.register("prompt_tokens", "Tokens of prompts that went through a model", meters.prompt_tokens.clone());
        registry.register("answer_tokens", "Tokens that were chosen", meters.answer_tokens.clone());
        registry.register("encoder_tokens", "Tokens that encoders read", meters.encoder_tokens.clone());
        registry.register("taken", "Places that requests hold", meters.taken.clone());
        registry.register("running", "Answers that are being computed", meters.running.clone());
        registry.register("waiting", "Requests that wait for a place", meters.waiting.clone());
        registry.register("cache_positions", "Positions of the cache in use", meters.positions.clone());
        registry.register("grammars", "Grammars that were prepared", meters.grammars.clone());
        registry.register("refused", "Requests refused for want of a place", meters.refused.clone());
        registry.register("abandoned", "Answers whose client went away", meters.abandoned.clone());
        registry.register("preempted", "Answers that made room in the cache and began anew", meters.preempted.clone());
        registry.register("first_token_seconds", "Time to the first token", meters.first_token.clone());
        registry.register("duration_seconds", "Time to the last token", meters.duration.clone());
        meters
    }
}

impl Meters {
    /// An answer came to its end.
    pub fn finished(&self, after: Duration) {
        self.duration.observe(after.as_secs_f64());
        self.typical.took(after);
    }

    /// Seconds after which an answer is typically done, at least one.
    pub fn typical_seconds(&self) -> u64 {
        self.typical.seconds()
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// Never, in practice.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
