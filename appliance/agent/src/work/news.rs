//! What a job writes into `events.jsonl` (docs/jobs.md), taken over line by line.

use super::left::{Left, Lines};
use gap_contract::Output;
use gap_jobs::{Level, News};
use serde_json::json;
use std::{
    fs,
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 64 << 10;
/// Most lines in one go.
const MAX_LINES: usize = 200;
/// Most bytes in one go: a job may write what it likes, as much as it likes, and the agent has others to look after.
const MAX_READ: u64 = 1 << 20;
/// Longest sentence that is kept, in characters.
const MAX_MESSAGE: usize = 2000;

/// Follows the events of one job. How far it came is kept in a file, so that the next agent goes on there.
#[derive(Debug)]
pub struct Follower {
    output: PathBuf,
    kept: PathBuf,
    /// Up to where what was told is kept.
    position: u64,
    /// Up to where it was told.
    told: u64,
}

impl Follower {
    /// Follows the job with this output directory, and goes on where the last one stopped.
    pub fn new(output: PathBuf, kept: PathBuf) -> Self {
        let position = fs::read_to_string(&kept).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { output, kept, position, told: position }
    }

    /// The complete lines that were added since what was last kept. What is no event is passed over.
    pub fn news(&mut self) -> Vec<News> {
        let (news, told) = read(&self.output, self.position).unwrap_or_default();
        self.told = told.max(self.position);
        news
    }

    /// What was last told is in the database. Only then the position is kept: a crash between the two has some events told twice,
    /// and none lost.
    pub fn keep(&mut self) {
        if self.told > self.position {
            self.position = self.told;
            let new = self.kept.with_extension("new");
            drop(fs::write(&new, self.position.to_string()).and_then(|()| fs::rename(&new, &self.kept)));
        }
    }
}

fn read(output: &Path, from: u64) -> io::Result<(Vec<News>, u64)> {
    let mut file = Left::open(output)?.file(&Output::new("").events())?;
    file.seek(SeekFrom::Start(from))?;
    let (mut news, mut position) = (Vec::new(), from);
    for line in Lines::new(file, MAX_LINE, MAX_READ) {
        let line = line?;
        position = position.saturating_add(u64::try_from(line.len()).unwrap_or(0));
        news.extend(understood(&line));
        if news.len() >= MAX_LINES {
            break;
        }
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
    use std::{fs::File, io::Write};

    fn event(n: u64) -> String {
        format!(
            r#"{{"id":"event-{n}","created_at":1,"level":"warn","message":"m{n}","type":"data","data":{{"n":{n}}}}}"#
        )
    }

    #[test]
    fn each_event_is_told_once_and_only_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let (events, kept) = (directory.path().join("events.jsonl"), directory.path().join("told"));
        let mut follower = Follower::new(directory.path().to_owned(), kept.clone());
        assert!(follower.news().is_empty());
        let mut file = File::create(&events).unwrap();
        write!(file, "{}\nno event\n{}", event(1), event(2)).unwrap();
        let news = follower.news();
        assert_eq!((news.len(), news[0].message.as_str(), news[0].level), (1, "m1", Level::Warn));
        follower.keep();
        writeln!(file).unwrap();
        let mut next = Follower::new(directory.path().to_owned(), kept);
        assert_eq!(next.news()[0].message, "m2");
        next.keep();
        assert!(next.news().is_empty());
    }

    #[test]
    fn an_event_that_was_told_and_not_kept_is_told_again() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("told");
        fs::write(directory.path().join("events.jsonl"), format!("{}\n", event(1))).unwrap();
        let follower = || Follower::new(directory.path().to_owned(), kept.clone());
        let mut first = follower();
        assert_eq!((first.news().len(), first.news().len()), (1, 1), "the database did not take it");
        let mut second = follower();
        assert_eq!(second.news().len(), 1, "the agent ended before the database took it");
        second.keep();
        assert!(second.news().is_empty() && follower().news().is_empty());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left there");
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        fs::write(&secret, format!("{}\n", event(1))).unwrap();
        let events = directory.path().join("events.jsonl");
        std::os::unix::fs::symlink(&secret, &events).unwrap();
        assert!(Follower::new(directory.path().to_owned(), directory.path().join("told")).news().is_empty());
    }

    #[test]
    fn what_is_no_event_is_passed_over_piece_by_piece_however_much_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("output");
        fs::create_dir(&output).unwrap();
        let mut file = File::create(output.join("events.jsonl")).unwrap();
        file.set_len(3 * MAX_READ).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        writeln!(file, "\n{}", event(1)).unwrap();
        let mut follower = Follower::new(output, directory.path().join("told"));
        for piece in 1..=3 {
            assert!(follower.news().is_empty());
            follower.keep();
            assert_eq!(follower.position, piece * MAX_READ);
        }
        assert_eq!(follower.news().len(), 1);
    }
}
