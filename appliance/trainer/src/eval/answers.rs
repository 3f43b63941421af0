//! Answers as files: recorded ones, and those of this evaluation, which an interrupted run finds again.

use super::example::{self, ExampleError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Reads recorded answers: JSON Lines with `id` and `answer` (or `response`, `output`).
///
/// # Errors
/// [`ExampleError`].
pub fn recorded(path: &Path) -> Result<BTreeMap<String, String>, ExampleError> {
    let mut answers = BTreeMap::new();
    for (line, row) in example::rows(path)? {
        let wrong = |what: &str| ExampleError::Row { path: path.to_owned(), line, what: what.to_owned() };
        let id = match row.get("id") {
            Some(Value::String(id)) => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => return Err(wrong("has no `id`")),
        };
        let answer = ["answer", "response", "output"].iter().find_map(|name| row.get(*name).and_then(Value::as_str));
        let answer = answer.ok_or_else(|| wrong("has no `answer`"))?;
        if answers.insert(id, answer.to_owned()).is_some() {
            return Err(wrong("answers an example for the second time"));
        }
    }
    if answers.is_empty() { Err(ExampleError::Empty(path.to_owned())) } else { Ok(answers) }
}

/// One answer of this evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The example.
    pub id: String,
    /// The answer.
    pub answer: String,
    /// −log p of the reference, summed over its tokens, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Tokens of the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Ratings by the judge, if it gave any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<[f64; 3]>,
}

/// The file that answers of one candidate are added to as they come. Its first row says what they are answers of.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    of: String,
}

impl Written {
    /// Opens the file, with the answers that an interrupted run left if they are of the same: `of` is a digest over
    /// everything that decides about answers. Others are thrown away.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn open(path: &Path, of: &str) -> io::Result<(Self, BTreeMap<String, Answer>)> {
        let left = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            left => left?,
        };
        let mut rows = left.split_inclusive(|&byte| byte == b'\n').filter(|row| row.ends_with(b"\n"));
        let same =
            rows.next().and_then(|row| serde_json::from_slice::<Head>(row).ok()).is_some_and(|head| head.of == of);
        let mut answers = BTreeMap::new();
        if same {
            let rows = rows.map_while(|row| serde_json::from_slice::<Answer>(row).ok());
            answers = rows.map(|answer| (answer.id.clone(), answer)).collect();
        }
        // Written beside and put in its place whole: what is kept is never away.
        let mut bytes = row(&Head { of: of.to_owned() })?;
        for answer in answers.values() {
            bytes.extend(row(answer)?);
        }
        super::put(path, &bytes)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok((Self { path: path.to_owned(), file }, answers))
    }

    /// Adds an answer.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add(&mut self, answer: &Answer) -> io::Result<()> {
        self.file.write_all(&row(answer)?)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn row(row: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(row)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: &str) -> Answer {
        Answer { id: id.to_owned(), answer: "a".to_owned(), loss: Some(1.5), tokens: Some(2), judged: None }
    }

    #[test]
    fn an_interrupted_run_finds_its_answers_again_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let (mut written, left) = Written::open(&path, "x").unwrap();
        assert!(left.is_empty());
        written.add(&answer("1")).unwrap();
        written.add(&answer("2")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let (_, left) = Written::open(&path, "x").unwrap();
        assert_eq!(left.into_values().collect::<Vec<_>>(), [answer("1")]);
        let (_, left) = Written::open(&path, "y").unwrap();
        assert!(left.is_empty());
    }

    #[test]
    fn answers_that_are_kept_are_never_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let (mut written, _) = Written::open(&path, "x").unwrap();
        written.add(&answer("1")).unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        let mut held = File::open(&path).unwrap();
        let (mut written, left) = Written::open(&path, "x").unwrap();
        assert_eq!(left.len(), 1);
        // The file that was there was replaced and never cut short.
        assert_ne!(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap()), inode);
        let mut before = String::new();
        io::Read::read_to_string(&mut held, &mut before).unwrap();
        assert!(before.contains("\"id\":\"1\""), "{before}");
        written.add(&answer("2")).unwrap();
        assert_eq!(Written::open(&path, "x").unwrap().1.len(), 2);
    }

    #[test]
    fn recorded_answers_need_an_id_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.jsonl");
        std::fs::write(&path, "{\"id\": 1, \"answer\": \"a\"}\n{\"id\": \"x\", \"response\": \"b\"}\n").unwrap();
        let answers = recorded(&path).unwrap();
        assert_eq!((answers["1"].as_str(), answers["x"].as_str()), ("a", "b"));
        std::fs::write(&path, "{\"answer\": \"a\"}\n").unwrap();
        assert!(recorded(&path).unwrap_err().to_string().contains("line 1"));
    }
}
