//! Servers that run: where each listens, and whether it answers.

use super::left::Socket;
use futures::future::join_all;
use gap_jobs::JobId;
use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::{net::UnixStream, time::timeout};

/// How long a server may take to answer when it is asked how it is.
const PROBE: Duration = Duration::from_secs(5);
/// Probes in a row without an answer after which a server is not asked for answers any more.
const MISSED: u32 = 2;
/// How long a server may take to load its model.
const LOADING: Duration = Duration::from_secs(1800);
/// How long a server that answered once may be silent before it is started again.
const SILENT: Duration = Duration::from_secs(60);

/// The servers.
#[derive(Debug, Default)]
pub struct Serving(RwLock<BTreeMap<JobId, Server>>);

/// A server.
#[derive(Debug, Clone)]
struct Server {
    socket: PathBuf,
    since: Instant,
    /// When it last answered.
    answered: Option<Instant>,
    /// Probes in a row that it let pass.
    missed: u32,
    is_ready: bool,
    /// Whether it was told to end: what it does until then, or does not, is its own affair.
    is_leaving: bool,
}

/// How a server says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Bad,
    /// None in time: it may be busy.
    None,
}

impl Serving {
    /// A server was started and will listen there.
    pub fn started(&self, job: &JobId, socket: PathBuf) {
        let server = Server::new(socket, Instant::now());
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(job.clone(), server);
    }

    /// A server was told to end. It is asked for nothing any more, and may finish what it is answering.
    pub fn leaving(&self, job: &JobId) {
        if let Some(server) = self.0.write().unwrap_or_else(PoisonError::into_inner).get_mut(job) {
            server.is_leaving = true;
            server.is_ready = false;
        }
    }

    /// A job ended.
    pub fn ended(&self, job: &JobId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(job);
    }

    /// Where a server listens, if it answers.
    pub fn socket(&self, job: &JobId) -> Option<PathBuf> {
        let servers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        servers.get(job).filter(|server| server.is_ready).map(|server| server.socket.clone())
    }

    /// Whether a server answers.
    pub fn is_ready(&self, job: &JobId) -> bool {
        self.socket(job).is_some()
    }

    /// How many servers answer.
    pub fn ready(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().filter(|server| server.is_ready).count()
    }

    /// Asks every server how it is. Returns those that have to be started again.
    pub async fn probe(&self) -> Vec<JobId> {
        let servers = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = servers.into_iter().filter(|(_, server)| !server.is_leaving).map(async |(job, server)| {
            let answer = timeout(PROBE, ask(&server.socket)).await.unwrap_or(Answer::None);
            (job, server.since, answer)
        });
        let answers = join_all(asked).await;
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut lost = Vec::new();
        for (job, since, answer) in answers {
            // It may have ended meanwhile, been told to, or been started again.
            let current = all.get_mut(&job).filter(|current| current.since == since && !current.is_leaving);
            let Some(current) = current else { continue };
            current.take(answer, now);
            if answer != Answer::Good && current.is_lost(now) {
                // Told once: what follows is its end.
                current.since = now;
                current.answered = None;
                lost.push(job);
            }
        }
        lost
    }
}

impl Server {
    const fn new(socket: PathBuf, since: Instant) -> Self {
        Self { socket, since, answered: None, missed: 0, is_ready: false, is_leaving: false }
    }

    fn take(&mut self, answer: Answer, now: Instant) {
        self.missed = if answer == Answer::None { self.missed.saturating_add(1) } else { 0 };
        match answer {
            Answer::Good => {
                self.answered = Some(now);
                self.is_ready = true;
            }
            Answer::None if self.missed < MISSED => {}
            Answer::None | Answer::Bad => self.is_ready = false,
        }
    }

    fn is_lost(&self, now: Instant) -> bool {
        match self.answered {
            Some(answered) => now.saturating_duration_since(answered) > SILENT,
            None => now.saturating_duration_since(self.since) > LOADING,
        }
    }
}

/// How a server answers `GET /health`.
async fn ask(socket: &Path) -> Answer {
    let Ok(socket) = Socket::at(socket) else { return Answer::Bad };
    let Ok(stream) = UnixStream::connect(socket.path()).await else { return Answer::Bad };
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else { return Answer::Bad };
    let running = tokio::spawn(connection);
    let request = Request::get("/health").header("host", "localhost").body(Empty::<Bytes>::new());
    let status = match request {
        Ok(request) => sender.send_request(request).await.map(|response| response.status()),
        Err(_) => return Answer::Bad,
    };
    running.abort();
    if status.is_ok_and(|status| status == StatusCode::OK) { Answer::Good } else { Answer::Bad }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_server_is_ready_from_its_first_good_answer_on_and_gone_with_its_job() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("http.sock");
        let (serving, job) = (Serving::default(), JobId::new(JobId::OTHER));
        serving.started(&job, socket.clone());
        assert!(serving.probe().await.is_empty() && !serving.is_ready(&job));
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert!(serving.probe().await.is_empty());
        assert_eq!(serving.socket(&job), Some(socket));
        assert!(serving.probe().await.is_empty());
        assert!(!serving.is_ready(&job), "a bad answer is no answer");
        server.await.unwrap();
        serving.ended(&job);
        assert_eq!(serving.socket(&job), None);
    }

    #[tokio::test]
    async fn a_server_that_was_told_to_end_is_asked_for_nothing_and_not_called_lost() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("http.sock");
        let (serving, job) = (Serving::default(), JobId::new(JobId::OTHER));
        let long_ago = Instant::now().checked_sub(LOADING + SILENT).unwrap();
        let silent = || Server { answered: Some(long_ago), is_ready: true, ..Server::new(socket.clone(), long_ago) };
        serving.0.write().unwrap().insert(job.clone(), silent());
        assert_eq!(serving.probe().await, std::slice::from_ref(&job), "its listener is gone");
        serving.0.write().unwrap().insert(job.clone(), silent());
        serving.leaving(&job);
        assert!(!serving.is_ready(&job));
        assert!(serving.probe().await.is_empty());
        serving.started(&job, socket);
        assert!(!serving.0.read().unwrap()[&job].is_leaving, "it was started again");
    }

    #[test]
    fn a_server_that_is_busy_for_a_moment_stays_in_use() {
        let now = Instant::now();
        let mut server = Server::new(PathBuf::new(), now);
        let mut after = |answers: &[Answer]| {
            answers.iter().for_each(|&answer| server.take(answer, now));
            server.is_ready
        };
        assert!(!after(&[Answer::None]));
        assert!(after(&[Answer::Good, Answer::None]) && after(&[Answer::Good, Answer::None]));
        assert!(!after(&[Answer::None]));
        assert!(after(&[Answer::Good]) && !after(&[Answer::Bad]));
    }

    #[test]
    fn a_model_may_load_for_long_but_silence_after_that_is_the_end() {
        let since = Instant::now();
        let server = Server::new(PathBuf::new(), since);
        assert!(!server.is_lost(since + Duration::from_secs(600)));
        assert!(server.is_lost(since + LOADING + Duration::from_secs(1)));
        let server = Server { answered: Some(since), ..server };
        assert!(server.is_lost(since + SILENT + Duration::from_secs(1)));
    }
}
