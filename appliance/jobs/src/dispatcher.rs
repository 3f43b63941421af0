//! Takes jobs from the queue, has them run, and writes back how they ended.
//!
//! One thread decides, in turns: after each request, each end of a program, and once a second. Each program has a thread
//! that waits for it. What is decided is in the database before it is done.

use crate::{
    identifier::JobId,
    job::{Job, Kind},
    placement::Machine,
    queue::{Outcome, Queue, QueueError},
    runtime::{CannotStart, Control, End, Runtime, Started},
    state::{Ending, State},
};
use std::{
    collections::BTreeMap,
    io, mem,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Longest wait between two turns.
const TURN: Duration = Duration::from_secs(1);
/// Most looks at what a program told before its end is kept.
const LAST_LOOKS: usize = 50;
/// How often the time that a job has run is kept.
const NOTE_EVERY: Duration = Duration::from_secs(30);

/// How long programs may take to end once they are told to.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the checkpoint of a pause, or at the end of a time limit.
    pub pause: Duration,
    /// When the job is not wanted any more, or no training and out of time.
    pub cancel: Duration,
    /// For the requests that a server is still answering.
    pub drain: Duration,
    /// When the agent itself ends.
    pub shutdown: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        // PID 1 gives ten seconds at shutdown.
        Self { pause: seconds(300), cancel: seconds(30), drain: seconds(150), shutdown: seconds(8) }
    }
}

impl Patience {
    /// How long a program of this kind may take to end, whose checkpoint is worth waiting for or not.
    const fn of(&self, kind: Kind, has_checkpoint: bool) -> Duration {
        match kind {
            Kind::Serve => self.drain,
            _ if has_checkpoint => self.pause,
            _ => self.cancel,
        }
    }
}

/// Told of what goes wrong with the queue itself.
pub type Complain = dyn Fn(String) + Send + Sync;

/// The running dispatcher.
pub struct Dispatcher {
    queue: Queue,
    runtime: Arc<dyn Runtime>,
    machine: Machine,
    messages: Mutex<Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    /// Something in the queue changed.
    Look,
    /// A program ended.
    Ended(JobId, End),
    /// End this program at once, whatever comes of it.
    Kill(JobId),
    /// A job is over without a program having run.
    Over(Box<Job>),
    /// End everything and return.
    Stop,
}

impl Dispatcher {
    /// Puts the queue back in order after the last agent and begins.
    ///
    /// # Errors
    /// [`QueueError`] when the queue cannot be put in order, or no thread can be had (as a database error).
    pub fn start(
        queue: Queue,
        runtime: Arc<dyn Runtime>,
        machine: Machine,
        patience: Patience,
        complain: Box<Complain>,
    ) -> Result<Self, StartError> {
        runtime.sweep();
        queue.recover(now())?;
        let (sender, receiver) = mpsc::channel();
        let mut turns = Turns {
            queue: queue.clone(),
            runtime: Arc::clone(&runtime),
            machine: machine.clone(),
            patience,
            complain,
            sender: sender.clone(),
            running: BTreeMap::new(),
            unwritten: Vec::new(),
            is_stopping: false,
        };
        let thread = thread::Builder::new().name("dispatcher".into()).spawn(move || {
            loop {
                turns.turn();
                if turns.is_stopping && turns.running.is_empty() {
                    return;
                }
                match receiver.recv_timeout(TURN) {
                    Ok(message) => turns.take(message),
                    Err(RecvTimeoutError::Timeout) => turns.idle(),
                    Err(RecvTimeoutError::Disconnected) => turns.take(Message::Stop),
                }
                while let Ok(message) = receiver.try_recv() {
                    turns.take(message);
                }
            }
        })?;
        Ok(Self { queue, runtime, machine, messages: Mutex::new(sender), thread: Mutex::new(Some(thread)) })
    }

    /// The queue. Whoever submits a job there says so by [`Dispatcher::look`].
    pub const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What each job waits for that could start if there were room.
    ///
    /// # Errors
    /// As for [`Queue::waits`].
    pub fn waits(&self) -> Result<BTreeMap<JobId, String>, QueueError> {
        self.queue.waits(&self.machine.without(&self.runtime.failed_slots()), now())
    }

    /// Says that something in the queue changed.
    pub fn look(&self) {
        self.send(Message::Look);
    }

    /// Stops a job for a while.
    ///
    /// # Errors
    /// As for [`Queue::pause`].
    pub fn pause(&self, id: &JobId) -> Result<Job, QueueError> {
        let job = self.queue.pause(id, now())?;
        self.look();
        Ok(job)
    }

    /// Lets a paused job go on.
    ///
    /// # Errors
    /// As for [`Queue::resume`].
    pub fn resume(&self, id: &JobId) -> Result<Job, QueueError> {
        let job = self.queue.resume(id, now())?;
        self.look();
        Ok(job)
    }

    /// Ends a job for good.
    ///
    /// # Errors
    /// As for [`Queue::cancel`].
    pub fn cancel(&self, id: &JobId) -> Result<Job, QueueError> {
        let job = self.queue.cancel(id, now())?;
        self.send(if job.state.is_final() { Message::Over(Box::new(job.clone())) } else { Message::Look });
        Ok(job)
    }

    /// Ends the program of a job that does not do its work any more. The job goes on as after any failure.
    pub fn kill(&self, id: &JobId) {
        self.send(Message::Kill(id.clone()));
    }

    /// Has every program write its checkpoint and end, and waits for that. What ran goes on at the next start.
    pub fn stop(&self) {
        self.send(Message::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that panicked has ended as well.
        drop(thread.map(JoinHandle::join));
    }

    fn send(&self, message: Message) {
        // The thread lives until `stop`, after which nothing is to be done any more.
        drop(self.messages.lock().unwrap_or_else(PoisonError::into_inner).send(message));
    }
}

/// Why the dispatcher does not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// There is no thread for it.
    #[error("starting the dispatcher: {0}")]
    Thread(#[from] io::Error),
}

/// What the deciding thread knows.
struct Turns {
    queue: Queue,
    runtime: Arc<dyn Runtime>,
    machine: Machine,
    patience: Patience,
    complain: Box<Complain>,
    sender: Sender<Message>,
    running: BTreeMap<JobId, Running>,
    /// Ends that the database did not take, as on a full disk; a job without its end would run for ever.
    unwritten: Vec<(JobId, Outcome)>,
    is_stopping: bool,
}

/// A program that runs.
struct Running {
    kind: Kind,
    control: Arc<dyn Control>,
    since: Instant,
    /// When the time that it has run was last kept.
    noted: Instant,
    time_limit: Option<Duration>,
    /// How long it had run before, and until `noted`.
    ran: Duration,
    wish: Option<Wish>,
}

/// Why a program was told to end.
#[derive(Debug, Clone, Copy)]
struct Wish {
    is_expiry: bool,
    kill_at: Instant,
    is_killed: bool,
}

impl Turns {
    fn take(&mut self, message: Message) {
        match message {
            Message::Look => {}
            Message::Ended(id, end) => self.end(&id, end),
            Message::Kill(id) => {
                if let Some(running) = self.running.get(&id) {
                    running.control.kill();
                }
            }
            Message::Over(job) => self.runtime.ended(&job),
            Message::Stop => {
                self.is_stopping = true;
                let patience = self.patience.shutdown;
                for running in self.running.values_mut() {
                    running.wish(patience, false);
                }
            }
        }
    }

    fn turn(&mut self) {
        for (id, outcome) in mem::take(&mut self.unwritten) {
            self.write(&id, outcome);
        }
        self.collect();
        self.press();
        if !self.is_stopping && self.runtime.is_ready() {
            let machine = self.machine.without(&self.runtime.failed_slots());
            match self.queue.claim(&machine, now()) {
                Ok(jobs) => jobs.into_iter().for_each(|job| self.start(&job)),
                Err(error) => (self.complain)(error.to_string()),
            }
        }
    }

    fn idle(&self) {
        if !self.is_stopping {
            self.runtime.idle();
        }
    }

    /// Keeps what programs tell, and how long they have run.
    fn collect(&mut self) {
        for (id, running) in &mut self.running {
            match self.queue.tell(id, &running.control.news(), now()) {
                Ok(()) => running.control.kept(),
                Err(error) => (self.complain)(error.to_string()),
            }
            let more = running.noted.elapsed();
            if more >= NOTE_EVERY {
                running.noted = Instant::now();
                running.ran = running.ran.saturating_add(more);
                self.queue.note_ran(id, more).unwrap_or_else(|error| (self.complain)(error.to_string()));
            }
        }
    }

    /// Keeps what an ended program told to the last: the reason of its end is among it.
    fn collect_last(&self, id: &JobId, control: &dyn Control) {
        for _ in 0..LAST_LOOKS {
            let news = control.news();
            if news.is_empty() {
                return;
            }
            match self.queue.tell(id, &news, now()) {
                Ok(()) => control.kept(),
                Err(error) => return (self.complain)(error.to_string()),
            }
        }
    }

    /// Has those end that shall, first by word and then by force.
    fn press(&mut self) {
        for (id, running) in &mut self.running {
            let state = self.queue.job(id).map(|job| job.state);
            match state {
                Ok(state @ (State::Pausing | State::Cancelling)) => {
                    running.wish(self.patience.of(running.kind, state == State::Pausing), false);
                }
                _ if running.is_over_time() => {
                    running.wish(self.patience.of(running.kind, running.kind == Kind::Train), true);
                }
                _ => {}
            }
            running.force();
        }
    }

    fn start(&mut self, job: &Job) {
        match self.runtime.start(job) {
            Ok(Started { control, wait }) => {
                let now = Instant::now();
                let running = Running {
                    kind: job.kind,
                    control: Arc::clone(&control),
                    since: now,
                    noted: now,
                    time_limit: job.time_limit,
                    ran: job.ran,
                    wish: None,
                };
                self.running.insert(job.id.clone(), running);
                let (sender, id) = (self.sender.clone(), job.id.clone());
                let waiting = thread::Builder::new()
                    .name("job".into())
                    .spawn(move || drop(sender.send(Message::Ended(id, wait()))));
                if let Err(error) = waiting {
                    control.kill();
                    (self.complain)(format!("no thread can be had to wait for {}: {error}", job.id));
                    self.end(&job.id, End::Unknown);
                }
            }
            Err(CannotStart { reason, is_passing }) => {
                let ending = if is_passing { Ending::Retry } else { Ending::Failure };
                let outcome = Outcome { ending, reason: Some(reason), ran: Duration::ZERO, lasted: Duration::ZERO };
                self.write(&job.id, outcome);
            }
        }
    }

    fn end(&mut self, id: &JobId, end: End) {
        let Some(running) = self.running.remove(id) else { return };
        self.collect_last(id, &*running.control);
        let (ending, reason) = match running.wish {
            Some(wish) if wish.is_expiry => (Ending::Failure, Some("its time limit has passed".to_owned())),
            // It may have been done before the word reached it.
            Some(_) if end == End::Exit(0) && running.kind != Kind::Serve => (Ending::Success, None),
            Some(wish) if wish.is_killed => {
                let reason = "it did not end in time when it was told to, and was ended by force";
                (Ending::Stopped, Some(reason.to_owned()))
            }
            Some(_) => (Ending::Stopped, None),
            None => end.meaning(running.kind != Kind::Serve),
        };
        let outcome = Outcome { ending, reason, ran: running.noted.elapsed(), lasted: running.since.elapsed() };
        self.write(id, outcome);
    }

    fn write(&mut self, id: &JobId, outcome: Outcome) {
        match self.queue.ended(id, &outcome, now()) {
            Ok(job) => self.runtime.ended(&job),
            Err(error) => {
                (self.complain)(error.to_string());
                if matches!(error, QueueError::Database(_)) {
                    self.unwritten.push((id.clone(), outcome));
                }
            }
        }
    }
}

impl Running {
    fn wish(&mut self, patience: Duration, is_expiry: bool) {
        let kill_at = Instant::now() + patience;
        match &mut self.wish {
            // Told already; a shorter patience counts.
            Some(wish) => wish.kill_at = wish.kill_at.min(kill_at),
            None => {
                self.wish = Some(Wish { is_expiry, kill_at, is_killed: false });
                self.control.stop();
            }
        }
    }

    fn force(&mut self) {
        if let Some(wish) = &mut self.wish
            && Instant::now() >= wish.kill_at
        {
            wish.is_killed = true;
            self.control.kill();
        }
    }

    fn is_over_time(&self) -> bool {
        self.time_limit.is_some_and(|limit| self.ran.saturating_add(self.noted.elapsed()) >= limit)
    }
}

/// Milliseconds since 1970 by the clock of the machine.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}
