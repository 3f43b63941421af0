//! What a job writes into `events.jsonl` (docs/jobs.md), taken over line by line.

use gap_jobs::{Level, News};
use serde_json::json;
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 64 << 10;
/// Most lines in one go.
const MAX_LINES: usize = 200;
/// Longest sentence that is kept, in characters.
const MAX_MESSAGE: usize = 2000;

/// Follows the events of one job. How far it came is kept in a file, so that the next agent goes on there.
#[derive(Debug)]
pub struct Follower {
    events: PathBuf,
    kept: PathBuf,
    position: u64,
}

impl Follower {
    /// Goes on where the last one stopped.
    pub fn new(events: PathBuf, kept: PathBuf) -> Self {
        let position = fs::read_to_string(&kept).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { events, kept, position }
    }

    /// The complete lines that were added. What is no event is passed over.
    pub fn news(&mut self) -> Vec<News> {
        let (news, position) = read(&self.events, self.position).unwrap_or_default();
        if position > self.position {
            self.position = position;
            // Lost, some events are told twice after a crash.
            drop(fs::write(&self.kept, position.to_string()));
        }
        news
    }
}

fn read(path: &Path, from: u64) -> io::Result<(Vec<News>, u64)> {
    // The job may put anything in the place of the file; only a regular file is read.
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok((Vec::new(), from));
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    let (mut news, mut position) = (Vec::new(), from);
    let mut line = Vec::new();
    while news.len() < MAX_LINES {
        line.clear();
        let len = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        let is_too_long = u64::try_from(len).is_ok_and(|len| len == MAX_LINE);
        if len == 0 || (line.last() != Some(&b'\n') && !is_too_long) {
            break;
        }
        position = position.saturating_add(u64::try_from(len).unwrap_or(0));
        news.extend(understood(&line));
    }
    Ok((news, position))
}

fn understood(line: &[u8]) -> Option<News> {
    let event: gap_contract::Event = serde_json::from_slice(line).ok()?;
    let level = match event.level {
        gap_contract::Level::Info => Level::Info,
        gap_contract::Level::Warn => Level::Warn,
        gap_contract::Level::Error => Level::Error,
    };
    let message = event.message.chars().take(MAX_MESSAGE).collect();
    let data = json!({"topic": event.topic, "data": event.data, "error": event.error});
    Some(News { level, message, data: Some(data.to_string()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn event(n: u64) -> String {
        format!(
            r#"{{"id":"event-{n}","created_at":1,"level":"warn","message":"m{n}","type":"data","data":{{"n":{n}}}}}"#
        )
    }

    #[test]
    fn each_event_is_told_once_and_only_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let (events, kept) = (directory.path().join("events.jsonl"), directory.path().join("told"));
        let mut follower = Follower::new(events.clone(), kept.clone());
        assert!(follower.news().is_empty());
        let mut file = File::create(&events).unwrap();
        write!(file, "{}\nno event\n{}", event(1), event(2)).unwrap();
        let news = follower.news();
        assert_eq!((news.len(), news[0].message.as_str(), news[0].level), (1, "m1", Level::Warn));
        writeln!(file).unwrap();
        let mut next = Follower::new(events, kept);
        assert_eq!(next.news()[0].message, "m2");
        assert!(next.news().is_empty());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        fs::write(&secret, format!("{}\n", event(1))).unwrap();
        let events = directory.path().join("events.jsonl");
        std::os::unix::fs::symlink(&secret, &events).unwrap();
        assert!(Follower::new(events, directory.path().join("told")).news().is_empty());
    }
}
