//! Which sequences are computed next. Tokens of running answers and pieces of new prompts go through the model together.

use super::{
    request::{Delta, Event, Finish, Request, TokenLogprobs},
    sampler::Sampler,
    stop::StopWatch,
};
use crate::{
    codec::{Codec, TextStream},
    metrics::Meters,
};
use gap_lm::inference::{Allocation, Decoder, KvCache, Piece};
use std::{
    collections::VecDeque,
    ops::ControlFlow,
    slice,
    sync::{Arc, mpsc},
    time::Instant,
};

/// Bounds of a scheduler.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Sequences that are computed at once.
    pub running: usize,
    /// Tokens of prompts that go through the model at once.
    pub prompt_piece: usize,
}

/// A request with its place in the count of those that are taken.
pub struct Ticket {
    /// What is asked.
    pub request: Request,
    /// Gives the place back.
    pub _place: super::Place,
    /// When it was taken.
    pub since: Instant,
}

/// Runs until nobody can send requests any more.
pub fn run(
    decoder: &Decoder,
    codec: &Codec,
    cache: KvCache,
    bounds: Bounds,
    inbox: &mpsc::Receiver<Ticket>,
    meters: &Arc<Meters>,
) {
    let mut scheduler =
        Scheduler { decoder, codec, cache, bounds, meters, waiting: VecDeque::new(), running: Vec::new() };
    loop {
        if scheduler.is_idle() {
            match inbox.recv() {
                Ok(ticket) => scheduler.waiting.push_back(Sequence::new(ticket, scheduler.codec)),
                Err(_) => return,
            }
        }
        while let Ok(ticket) = inbox.try_recv() {
            scheduler.waiting.push_back(Sequence::new(ticket, scheduler.codec));
        }
        scheduler.drop_abandoned();
        scheduler.admit();
        scheduler.step();
        scheduler.report();
    }
}

struct Scheduler<'a> {
    decoder: &'a Decoder,
    codec: &'a Codec,
    cache: KvCache,
    bounds: Bounds,
    meters: &'a Meters,
    /// In the order in which they came; what had to make room comes first.
    waiting: VecDeque<Sequence>,
    /// In the order in which they began.
    running: Vec<Sequence>,
}

/// What of a running sequence goes through the model in a pass.
struct Share {
    /// Which sequence.
    index: usize,
    /// How many tokens.
    count: usize,
    /// Whether these are all that are not computed yet, so that the next can be chosen.
    whole: bool,
}

struct Sequence {
    request: Request,
    _place: super::Place,
    since: Instant,
    /// The prompt and the answer so far.
    tokens: Vec<u32>,
    /// How many of them are in the cache.
    cached: usize,
    allocation: Allocation,
    sampler: Sampler,
    text: TextStream,
    stop: StopWatch,
    began: bool,
}

impl Sequence {
    fn new(ticket: Ticket, codec: &Codec) -> Self {
        let Ticket { mut request, _place, since } = ticket;
        let text = if request.continues { TextStream::after(codec, &request.prompt) } else { TextStream::default() };
        Self {
            tokens: request.prompt.clone(),
            cached: 0,
            allocation: Allocation::default(),
            sampler: Sampler::new(request.sampling.clone()),
            text,
            stop: StopWatch::new(std::mem::take(&mut request.stop)),
            began: false,
            request,
            _place,
            since,
        }
    }

    const fn answered(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }
}

impl Scheduler<'_> {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Forgets answers that nobody waits for.
    fn drop_abandoned(&mut self) {
        self.waiting.retain(|sequence| !sequence.request.events.is_closed());
        for index in (0..self.running.len()).rev() {
            if self.running.get(index).is_some_and(|sequence| sequence.request.events.is_closed()) {
                self.meters.abandoned.inc();
                self.end(index);
            }
        }
    }

    /// Lets waiting sequences begin, in order, as long as the cache has room for all that they have so far.
    fn admit(&mut self) {
        while self.running.len() < self.bounds.running
            && let Some(mut next) = self.waiting.pop_front()
        {
            if !self.cache.reserve(&mut next.allocation, next.tokens.len() + 1) {
                self.waiting.push_front(next);
                return;
            }
            self.running.push(next);
        }
    }

    /// Takes a sequence out and gives its part of the cache back.
    fn end(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        self.cache.release(&mut sequence.allocation);
    }

    /// Makes sure that every sequence has room for its next token; the youngest make room for the others and wait.
    fn make_room(&mut self) {
        let mut index = 0;
        while let Some(sequence) = self.running.get_mut(index) {
            if self.cache.reserve(&mut sequence.allocation, sequence.tokens.len() + 1) {
                index += 1;
                continue;
            }
            let Some(mut youngest) = self.running.pop() else { return };
            self.cache.release(&mut youngest.allocation);
            youngest.cached = 0;
            self.meters.preempted.inc();
            self.waiting.push_front(youngest);
        }
    }

    /// One pass through the model.
    fn step(&mut self) {
        self.make_room();
        let shares = self.shares();
        if shares.is_empty() {
            return;
        }
        let computed = self.compute(&shares);
        self.advance(&shares, computed);
    }

    /// What goes through the model in the next pass.
    fn shares(&self) -> Vec<Share> {
        let mut left = self.bounds.prompt_piece;
        let share = |(index, sequence): (usize, &Sequence)| {
            let rest = sequence.tokens.len() - sequence.cached;
            // A running answer has one token to compute and always gets its turn.
            let count = if rest == 1 { 1 } else { rest.min(left) };
            if rest > 1 {
                left -= count;
            }
            (count > 0).then_some(Share { index, count, whole: count == rest })
        };
        self.running.iter().enumerate().filter_map(share).collect()
    }

    /// Logits for each share that is whole. An error of the model ends the answers that it concerns, and nothing else: after
    /// one every share goes through the model by itself, which gives the same numbers, and only what fails again has failed.
    fn compute(&self, shares: &[Share]) -> Vec<Result<Option<Vec<f32>>, String>> {
        if let Ok(rows) = self.forward(shares) {
            let mut rows = rows.into_iter();
            return shares.iter().map(|share| Ok(if share.whole { rows.next() } else { None })).collect();
        }
        let alone = |share| {
            let rows = self.forward(slice::from_ref(share));
            rows.map(|rows| rows.into_iter().next()).map_err(|error| format!("the model failed: {error}"))
        };
        shares.iter().map(alone).collect()
    }

    fn forward(&self, shares: &[Share]) -> candle_core::Result<Vec<Vec<f32>>> {
        let piece = |share: &Share| {
            let sequence = self.running.get(share.index)?;
            Some(Piece {
                tokens: sequence.tokens.get(sequence.cached..sequence.cached + share.count)?,
                start: sequence.cached,
                cached: &sequence.allocation,
                adapter: sequence.request.adapter.as_deref(),
                logits: usize::from(share.whole),
            })
        };
        let pieces: Vec<Piece<'_>> = shares.iter().filter_map(piece).collect();
        // One visit to the computing threads for the whole pass, and not one for each product.
        rayon::scope(|_| self.decoder.forward(&self.cache, &pieces)?.to_vec2::<f32>())
    }

    fn advance(&mut self, shares: &[Share], computed: Vec<Result<Option<Vec<f32>>, String>>) {
        let mut ended = Vec::new();
        for (share, computed) in shares.iter().zip(computed) {
            let Some(sequence) = self.running.get_mut(share.index) else { continue };
            let logits = match computed {
                Ok(logits) => logits,
                Err(reason) => {
                    drop(sequence.request.events.send(Event::Failed(reason)));
                    ended.push((share.index, false));
                    continue;
                }
            };
            sequence.cached += share.count;
            if sequence.answered() == 0 {
                self.meters.prompt_tokens.inc_by(share.count as u64);
            }
            let Some(logits) = logits else { continue };
            if next_token(sequence, &logits, self.decoder, self.codec, self.meters).is_break() {
                ended.push((share.index, true));
            }
        }
        for (index, answered) in ended.into_iter().rev() {
            if let (true, Some(sequence)) = (answered, self.running.get(index)) {
                self.meters.finished(sequence.since.elapsed());
            }
            self.end(index);
        }
    }

    fn report(&self) {
        self.meters.running.set(i64::try_from(self.running.len()).unwrap_or(i64::MAX));
        self.meters.waiting.set(i64::try_from(self.waiting.len()).unwrap_or(i64::MAX));
        let used = self.cache.capacity() - self.cache.free();
        self.meters.positions.set(i64::try_from(used).unwrap_or(i64::MAX));
    }
}

/// Chooses the next token of an answer and tells it. Breaks where the answer ends.
fn next_token(
    sequence: &mut Sequence,
    logits: &[f32],
    decoder: &Decoder,
    codec: &Codec,
    meters: &Meters,
) -> ControlFlow<()> {
    let failed = |sequence: &Sequence, reason: String| {
        drop(sequence.request.events.send(Event::Failed(reason)));
        ControlFlow::Break(())
    };
    if !logits.iter().all(|logit| logit.is_finite()) {
        return failed(sequence, "the model's result is not a number".to_owned());
    }
    let allowed = match sequence.request.grammar.as_mut().map(super::grammar::Grammar::allowed).transpose() {
        Ok(allowed) => allowed,
        Err(reason) => return failed(sequence, reason),
    };
    let ends = &decoder.config().ends;
    let size = allowed.as_ref().map_or(0, |allowed| allowed.len());
    let permits =
        allowed.as_ref().map(|allowed| move |token: u32| (token as usize) < size && allowed.is_allowed(token));
    let permits = permits.as_ref().map(|permits| permits as &dyn Fn(u32) -> bool);
    let Some(chosen) = sequence.sampler.choose(logits, permits) else {
        return failed(sequence, "no token is left that the answer may go on with".to_owned());
    };
    if !sequence.began {
        sequence.began = true;
        meters.first_token.observe(sequence.since.elapsed().as_secs_f64());
    }
    meters.answer_tokens.inc();
    let is_end = ends.contains(&chosen.token) && !sequence.request.ignore_end;
    sequence.tokens.push(chosen.token);
    let mut delta = Delta::default();
    let mut finish = is_end.then_some(Finish::Stop);
    if !is_end {
        let shown = sequence.request.shown.contains(&chosen.token);
        if let Some((logprob, best)) = chosen.logprobs {
            delta.logprobs.push(TokenLogprobs {
                bytes: codec.bytes(chosen.token),
                written: shown || !codec.is_special(chosen.token),
                logprob,
                best: best.into_iter().map(|(token, logprob)| (codec.bytes(token), logprob)).collect(),
            });
        }
        match sequence.text.push(codec, chosen.token, shown) {
            Ok(text) => {
                let watched = sequence.stop.push(&text);
                delta.text = watched.text;
                if watched.stopped {
                    finish = Some(Finish::Stop);
                    sequence.stop.finish();
                }
            }
            Err(reason) => return failed(sequence, reason),
        }
        match sequence.request.grammar.as_mut().map(|grammar| grammar.take(chosen.token)).transpose() {
            Ok(Some(true)) => finish = finish.or(Some(Finish::Stop)),
            Ok(_) => {}
            Err(reason) => return failed(sequence, reason),
        }
        if finish.is_none() && sequence.answered() >= sequence.request.max_tokens {
            finish = Some(Finish::Length);
        }
    }
    let Some(finish) = finish else {
        return send(sequence, delta);
    };
    // A stop text in what was held back at the very end counts as well.
    let rest = sequence.text.finish(codec).unwrap_or_default();
    let watched = sequence.stop.push(&rest);
    delta.text += &watched.text;
    if !watched.stopped {
        delta.text += &sequence.stop.finish();
    }
    let tokens = sequence.answered();
    // Whether anybody receives it or not: this is the end.
    let _ = send(sequence, delta);
    drop(sequence.request.events.send(Event::End { finish, tokens }));
    ControlFlow::Break(())
}

/// Breaks where nobody receives any more.
fn send(sequence: &Sequence, delta: Delta) -> ControlFlow<()> {
    if delta.text.is_empty() && delta.logprobs.is_empty() {
        return ControlFlow::Continue(());
    }
    match sequence.request.events.send(Event::More(delta)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}
