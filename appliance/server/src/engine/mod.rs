//! Generates text: a thread that owns the model, and a door for requests.

mod grammar;
mod request;
mod sampler;
mod scheduler;
mod stop;

pub use grammar::{Grammar, Grammars, Shape, with_spaces};
pub use request::{Delta, Event, Finish, Refused, Request, TokenLogprobs};
pub use sampler::Sampling;
pub use scheduler::Bounds;

use crate::{codec::Codec, metrics::Meters};
use gap_lm::inference::{Decoder, KvCache};
use scheduler::Ticket;
use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

/// A model that generates text.
#[derive(Debug)]
pub struct Engine {
    inbox: mpsc::Sender<Ticket>,
    taken: Arc<AtomicUsize>,
    most: usize,
    codec: Arc<Codec>,
    meters: Arc<Meters>,
    grammars: OnceLock<Result<Grammars, String>>,
    ends: Vec<u32>,
    context: usize,
    capacity: usize,
    thread: thread::JoinHandle<()>,
}

/// A place among the answers that are taken; dropped, it is free again.
#[derive(Debug)]
pub struct Place {
    taken: Arc<AtomicUsize>,
    meters: Arc<Meters>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
        self.meters.taken.dec();
    }
}

impl Engine {
    /// Starts the thread. `most` requests are taken at once, running and waiting ones together.
    ///
    /// # Errors
    /// Where the system has no thread.
    pub fn start(
        decoder: Decoder,
        codec: Arc<Codec>,
        cache: KvCache,
        bounds: Bounds,
        most: usize,
        meters: Arc<Meters>,
    ) -> io::Result<Self> {
        let (inbox, requests) = mpsc::channel();
        let (ends, context, capacity) = (decoder.config().ends.clone(), decoder.config().context, cache.capacity());
        let (own_codec, own_meters) = (codec.clone(), meters.clone());
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || scheduler::run(&decoder, &own_codec, cache, bounds, &requests, &own_meters))?;
        let taken = Arc::new(AtomicUsize::new(0));
        Ok(Self { inbox, taken, most, codec, meters, grammars: OnceLock::new(), ends, context, capacity, thread })
    }

    /// Takes places for some answers, all of them or none. A request has them before anything costly is done for it.
    ///
    /// # Errors
    /// Where too many are taken already, or there are fewer in all.
    pub fn reserve(&self, wanted: usize) -> Result<Vec<Place>, Refused> {
        if wanted > self.most {
            return Err(Refused::NeverFits { wanted, most: self.most });
        }
        let more = |taken: usize| taken.checked_add(wanted).filter(|taken| *taken <= self.most);
        if self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            self.meters.refused.inc();
            return Err(Refused::Overloaded { retry_after: self.meters.typical_seconds() });
        }
        let place = |_| {
            self.meters.taken.inc();
            Place { taken: self.taken.clone(), meters: self.meters.clone() }
        };
        Ok((0..wanted).map(place).collect())
    }

    /// Hands over a request that has its place.
    ///
    /// # Errors
    /// Where the engine is gone.
    pub fn submit(&self, request: Request, place: Place) -> Result<(), Refused> {
        let ticket = Ticket { request, _place: place, since: Instant::now() };
        self.inbox.send(ticket).map_err(|_| Refused::Stopped)
    }

    /// Whether its thread still runs.
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Its tokenizer.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Most positions of a sequence: what the model was made for, and what the cache has room for.
    pub fn longest(&self) -> usize {
        self.context.min(self.capacity.saturating_sub(1))
    }

    /// Prepares a grammar.
    ///
    /// # Errors
    /// What is wrong with it, or that the model has no tokenizer for it.
    pub fn grammar(&self, shape: &Shape) -> Result<Grammar, String> {
        self.meters.grammars.inc();
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.codec, &self.ends));
        grammars.as_ref().map_err(Clone::clone)?.prepare(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::write_model;
    use candle_core::Device;
    use gap_lm::inference::{DecoderConfig, Loader, SafetensorsDirectory};
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    fn engine(most: usize) -> Engine {
        let directory = tempfile::tempdir().unwrap();
        write_model("llama", directory.path());
        let source = SafetensorsDirectory::open(directory.path()).unwrap();
        let config = DecoderConfig::read(directory.path()).unwrap();
        let codec = Codec::read(directory.path(), config.vocabulary).unwrap();
        let loader = Loader { source: &source, precision: None, device: &Device::Cpu };
        let decoder = Decoder::load(config, loader).unwrap();
        let cache = KvCache::new(decoder.config(), 1024, &Device::Cpu).unwrap();
        let bounds = Bounds { running: 4, prompt_piece: 512 };
        Engine::start(decoder, Arc::new(codec), cache, bounds, most, Arc::default()).unwrap()
    }

    fn ask(engine: &Engine, prompt: Vec<u32>, max_tokens: usize) -> UnboundedReceiver<Event> {
        let (events, answer) = unbounded_channel();
        let request = request(prompt, max_tokens, events);
        engine.submit(request, engine.reserve(1).unwrap().remove(0)).unwrap();
        answer
    }

    fn request(prompt: Vec<u32>, max_tokens: usize, events: UnboundedSender<Event>) -> Request {
        let sampling = Sampling {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            bias: std::collections::BTreeMap::new(),
            seed: 0,
            logprobs: None,
        };
        Request {
            prompt,
            max_tokens,
            sampling,
            stop: Vec::new(),
            ignore_end: true,
            grammar: None,
            shown: Vec::new(),
            continues: false,
            adapter: None,
            events,
        }
    }

    fn last(mut answer: UnboundedReceiver<Event>) -> Event {
        let mut last = None;
        while let Some(event) = answer.blocking_recv() {
            last = Some(event);
        }
        last.unwrap()
    }

    #[test]
    fn an_error_of_the_model_ends_the_answer_that_it_concerns_and_no_other() {
        let engine = engine(8);
        let before = ask(&engine, vec![40, 41, 42], 200);
        let wrong = ask(&engine, vec![40, 9_999_999], 200);
        let after = ask(&engine, vec![50, 51], 100);
        match last(wrong) {
            Event::Failed(reason) => assert!(reason.contains("9999999"), "{reason}"),
            other => panic!("{other:?}"),
        }
        for (answer, length) in [(before, 200), (after, 100)] {
            match last(answer) {
                Event::End { finish: Finish::Length, tokens } => assert_eq!(tokens, length),
                other => panic!("{other:?}"),
            }
        }
        assert!(engine.is_alive());
    }

    #[test]
    fn an_engine_whose_thread_has_ended_is_not_alive_and_takes_nothing() {
        let mut engine = engine(1);
        assert!(engine.is_alive());
        // Without a way to be asked anything the thread ends.
        engine.inbox = mpsc::channel().0;
        let since = Instant::now();
        while engine.is_alive() {
            assert!(since.elapsed().as_secs() < 120, "its thread does not end");
            thread::sleep(std::time::Duration::from_millis(5));
        }
        let (events, _answer) = unbounded_channel();
        assert_eq!(
            engine.submit(request(vec![40], 1, events), engine.reserve(1).unwrap().remove(0)).unwrap_err(),
            Refused::Stopped
        );
    }

    #[test]
    fn places_are_given_all_or_none_and_come_back() {
        let engine = engine(3);
        let two = engine.reserve(2).unwrap();
        assert!(matches!(engine.reserve(2), Err(Refused::Overloaded { .. })));
        assert_eq!(engine.reserve(4).unwrap_err(), Refused::NeverFits { wanted: 4, most: 3 });
        let one = engine.reserve(1).unwrap();
        drop((one, two));
        assert_eq!(engine.reserve(3).unwrap().len(), 3);
    }
}
