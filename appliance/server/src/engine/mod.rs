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

/// A place among the requests that are taken; dropped, it is free again.
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

    /// Takes a request, or says why not.
    ///
    /// # Errors
    /// Where too many are taken already.
    pub fn submit(&self, request: Request) -> Result<(), Refused> {
        let taken = self.taken.fetch_add(1, Ordering::AcqRel);
        self.meters.taken.inc();
        let place = Place { taken: self.taken.clone(), meters: self.meters.clone() };
        if taken >= self.most {
            self.meters.refused.inc();
            return Err(Refused::Overloaded { retry_after: self.meters.typical_seconds() });
        }
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
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.codec, &self.ends));
        grammars.as_ref().map_err(Clone::clone)?.prepare(shape)
    }
}
