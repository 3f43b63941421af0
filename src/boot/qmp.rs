//! QEMU's control protocol: JSON objects, one a line (QEMU "QMP Protocol Specification").

use serde_json::{Value, json};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// Longest answer accepted, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Answers that may wait to be read; QEMU is held up beyond that.
const QUEUE: usize = 64;

/// Why QEMU did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// It could not be written to.
    #[error("cannot talk to qemu: {0}")]
    Io(#[from] io::Error),
    /// It did not answer in time.
    #[error("qemu did not answer `{0}` in time")]
    Timeout(String),
    /// It ended.
    #[error("qemu ended before it answered `{0}`")]
    Gone(String),
    /// It refused.
    #[error("qemu refused `{command}`: {reason}")]
    Refused {
        /// What it was told.
        command: String,
        /// What it said.
        reason: String,
    },
}

/// A connection to QEMU.
#[derive(Debug)]
pub struct Qmp<W> {
    sink: W,
    answers: Receiver<Value>,
    limit: Duration,
}

impl<W: Write> Qmp<W> {
    /// Takes up a connection: reads the greeting and leaves the negotiation. `limit` is the longest
    /// that any answer may take.
    ///
    /// # Errors
    /// [`QmpError`] when there is no greeting in time.
    pub fn new(source: impl Read + Send + 'static, sink: W, limit: Duration) -> Result<Self, QmpError> {
        let (sender, answers) = sync_channel(QUEUE);
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            // An end of the stream, a bad line and a gone receiver all end the thread; whoever waits
            // for an answer then learns that the connection is gone.
            while source.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                let Ok(answer) = serde_json::from_slice(&line) else { break };
                if sender.send(answer).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let mut qmp = Self { sink, answers, limit };
        qmp.receive("greeting", |answer| answer.get("QMP").cloned())?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Has QEMU execute a command and returns what that gave.
    ///
    /// # Errors
    /// [`QmpError`] when it refuses, ends or takes too long.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let sent = writeln!(self.sink, "{}", json!({ "execute": command, "arguments": arguments }))
            .and_then(|()| self.sink.flush());
        match sent {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(QmpError::Gone(command.to_owned())),
            sent => sent?,
        }
        let answer = self.receive(command, |answer| {
            // Anything else is an event.
            (answer.get("return").is_some() || answer.get("error").is_some()).then(|| answer.clone())
        })?;
        match answer.get("error") {
            Some(error) => {
                let reason = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
                Err(QmpError::Refused { command: command.to_owned(), reason })
            }
            None => Ok(answer.get("return").cloned().unwrap_or_default()),
        }
    }

    fn receive(&self, what: &str, wanted: impl Fn(&Value) -> Option<Value>) -> Result<Value, QmpError> {
        let deadline = Instant::now() + self.limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(answer) => {
                    if let Some(found) = wanted(&answer) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err(QmpError::Timeout(what.to_owned())),
                Err(RecvTimeoutError::Disconnected) => return Err(QmpError::Gone(what.to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const LIMIT: Duration = Duration::from_millis(200);

    fn connect(answers: &'static str) -> Result<Qmp<Vec<u8>>, QmpError> {
        Qmp::new(Cursor::new(answers), Vec::new(), LIMIT)
    }

    #[test]
    fn events_between_command_and_answer_are_passed_over() {
        let mut qmp =
            connect("{\"QMP\":{}}\n{\"return\":{}}\n{\"event\":\"RESUME\"}\n{\"return\":{\"running\":true}}\n")
                .unwrap();
        assert_eq!(qmp.execute("query-status", json!({})).unwrap(), json!({ "running": true }));
        let sent = String::from_utf8(qmp.sink).unwrap();
        let last: Value = serde_json::from_str(sent.lines().last().unwrap()).unwrap();
        assert_eq!(last, json!({ "execute": "query-status", "arguments": {} }));
    }

    #[test]
    fn a_refusal_gives_the_reason() {
        let mut qmp =
            connect("{\"QMP\":{}}\n{\"return\":{}}\n{\"error\":{\"class\":\"x\",\"desc\":\"no such thing\"}}\n")
                .unwrap();
        let error = qmp.execute("eject", json!({})).unwrap_err();
        assert_eq!(error.to_string(), "qemu refused `eject`: no such thing");
    }

    #[test]
    fn an_end_is_not_waited_for() {
        assert!(matches!(connect("{\"QMP\":{}}\n"), Err(QmpError::Gone(_))));
        assert!(matches!(connect("not json\n"), Err(QmpError::Gone(_))));
    }

    #[test]
    fn a_machine_that_is_gone_is_told_apart_from_one_that_cannot_be_reached() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let answers = Cursor::new("{\"QMP\":{}}\n");
        assert!(matches!(Qmp::new(answers, writer, LIMIT), Err(QmpError::Gone(_))));
    }

    #[test]
    fn silence_has_a_limit() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(matches!(Qmp::new(reader, Vec::new(), LIMIT), Err(QmpError::Timeout(_))));
    }
}
