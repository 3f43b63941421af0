//! Rating sheets: answers of two candidates side by side, without their names; and what people made of them.
//!
//! `sheet.csv` is filled in and comes back, `sheet.html` shows the same for reading. Which answer is whose stands in
//! `sheet.key.json` alone, in an order that follows from the seed. Both carry a word for whose answers they are, so that no
//! judgement is put down to another.

use super::{
    bootstrap::{self, Interval},
    example::Example,
    report::html::escape,
};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

const COLUMNS: [&str; 7] = ["id", "question", "answer_1", "answer_2", "better", "comment", "sheet"];

/// Why a sheet cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SheetError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The key is damaged.
    #[error("{} is not the key of a rating sheet: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// A sheet of other answers lies where one is to be written; it may be filled in.
    #[error("{} is of other answers than the candidates give now, and may be filled in; move it and sheet.key.json away", .0.display())]
    InTheWay(PathBuf),
    /// The answers are no longer those on the sheet.
    #[error("{} is the key to other answers than the candidates give now; judgements of those say nothing about these", .0.display())]
    OtherAnswers(PathBuf),
    /// A filled-in sheet that is not as it was.
    #[error("row {row} of {} {what}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Which row, the head being 1.
        row: usize,
        /// What is wrong.
        what: String,
    },
}

/// Which answer on a sheet is whose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The two candidates.
    pub between: (String, String),
    /// For each example whether the first candidate's answer is the first on the sheet.
    pub in_order: BTreeMap<String, bool>,
    /// What stands in the column `sheet`: it follows from the candidates, the order and every answer.
    pub sheet: String,
}

/// What a candidate answered to an example.
pub type Answers<'a> = &'a dyn Fn(&str, &str) -> Option<String>;

/// A word for a sheet, which no spreadsheet takes for a number; none where an answer is missing.
fn word(between: &(String, String), in_order: &BTreeMap<String, bool>, answers: Answers<'_>) -> Option<String> {
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(&between.0);
    add(&between.1);
    for (id, in_order) in in_order {
        add(id);
        add(if *in_order { "1" } else { "2" });
        add(&answers(&between.0, id)?);
        add(&answers(&between.1, id)?);
    }
    let digest = hex::encode(hash.finalize());
    Some(format!("s{}", digest.get(..16)?))
}

/// What people made of a sheet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratings {
    /// The two candidates.
    pub between: (String, String),
    /// Judgements for the first.
    pub first: usize,
    /// Judgements for the second.
    pub second: usize,
    /// Judgements for neither.
    pub ties: usize,
    /// Rows without a judgement.
    pub open: usize,
    /// Share of the second less that of the first.
    pub difference: f64,
    /// 95 % interval of the difference.
    pub interval: Option<Interval>,
}

/// Writes a sheet of at most `count` examples to `dir`. Where the same lies there already, it stays: it may be filled in.
///
/// # Errors
/// [`SheetError::InTheWay`] where another lies there, and [`SheetError::Io`].
pub fn write(
    dir: &Path,
    between: &(String, String),
    examples: &[Example],
    answers: Answers<'_>,
    count: usize,
    seed: u64,
) -> Result<(), SheetError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut rows: Vec<(&Example, String, String)> = examples
        .iter()
        .filter(|example| example.asks())
        .filter_map(|example| Some((example, answers(&between.0, &example.id)?, answers(&between.1, &example.id)?)))
        .collect();
    rows.shuffle(&mut random);
    rows.truncate(count);
    let orders: Vec<bool> = rows.iter().map(|_| random.r#gen()).collect();
    let ids = rows.iter().map(|(example, ..)| example.id.clone());
    let mut key =
        Key { between: between.clone(), in_order: ids.zip(orders.iter().copied()).collect(), sheet: String::new() };
    key.sheet = word(between, &key.in_order, answers).unwrap_or_default();
    if !is_free(dir, &key)? {
        return Ok(());
    }
    let mut sheet = csv::Writer::from_writer(Vec::new());
    let mut page = String::from(PAGE);
    let sheet_path = dir.join("sheet.csv");
    let wrong = |error: csv::Error| SheetError::Io { path: sheet_path.clone(), source: io::Error::other(error) };
    sheet.write_record(COLUMNS).map_err(wrong)?;
    for ((example, first, second), in_order) in rows.into_iter().zip(orders) {
        let (left, right) = if in_order { (first, second) } else { (second, first) };
        let cells = [example.id.as_str(), example.question(), &left, &right, "", "", &key.sheet].map(harmless);
        sheet.write_record(&cells).map_err(wrong)?;
        let [id, question, left, right] = [example.id.as_str(), example.question(), &left, &right].map(escape);
        let _ = writeln!(
            page,
            "<section><h2>{id}</h2><pre>{question}</pre><table><tr><th>Answer 1</th><th>Answer 2</th></tr><tr><td><pre>{left}\
             </pre></td><td><pre>{right}</pre></td></tr></table><p>Better: ☐ 1 ☐ 2 ☐ tie</p></section>"
        );
    }
    page.push_str("</body></html>\n");
    let bytes = sheet.into_inner().map_err(|error| wrong(csv::Error::from(io::Error::other(error.to_string()))))?;
    let key_path = dir.join("sheet.key.json");
    let json = serde_json::to_vec_pretty(&key).map_err(|source| SheetError::Key { path: key_path.clone(), source })?;
    put(&key_path, &json)?;
    put(&dir.join("sheet.html"), page.as_bytes())?;
    // It comes last: where it lies, its key does.
    put(&sheet_path, &bytes)
}

/// Whether there is no sheet yet; not where the one of this key lies there.
fn is_free(dir: &Path, key: &Key) -> Result<bool, SheetError> {
    let path = dir.join("sheet.csv");
    if !path.exists() {
        return Ok(true);
    }
    match read_key(&dir.join("sheet.key.json")) {
        Ok(found) if found == *key => Ok(false),
        _ => Err(SheetError::InTheWay(path)),
    }
}

fn read_key(path: &Path) -> Result<Key, SheetError> {
    let bytes = std::fs::read(path).map_err(|source| SheetError::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| SheetError::Key { path: path.to_owned(), source })
}

const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Rating sheet</title><style>body{font:15px \
sans-serif;max-width:70em;margin:2em auto}pre{white-space:pre-wrap;font:inherit}table{width:100%;border-collapse:collapse;\
table-layout:fixed}td,th{border:1px solid #999;padding:.5em;vertical-align:top;text-align:left}section{break-inside:avoid}\
</style><body><h1>Rating sheet</h1><p>For each question, which answer is better? Write <b>1</b>, <b>2</b> or <b>tie</b> into the \
column <b>better</b> of sheet.csv.</p>\n";

fn put(path: &Path, bytes: &[u8]) -> Result<(), SheetError> {
    super::put(path, bytes).map_err(|source| SheetError::Io { path: path.to_owned(), source })
}

/// Spreadsheets compute what begins like a formula; a model may write such things.
fn harmless(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell.to_owned() }
}

/// Reads filled-in sheets of one key; several people may have filled in the same. Examples are resampled with all that was
/// said about them: people agree with each other more than about other examples.
///
/// # Errors
/// [`SheetError`].
pub fn read(
    path: &Path,
    sheets: &[PathBuf],
    answers: Answers<'_>,
    resamples: usize,
    seed: u64,
) -> Result<Ratings, SheetError> {
    let key = read_key(path)?;
    if word(&key.between, &key.in_order, answers).as_ref() != Some(&key.sheet) {
        return Err(SheetError::OtherAnswers(path.to_owned()));
    }
    let mut ratings = Ratings {
        between: key.between.clone(),
        first: 0,
        second: 0,
        ties: 0,
        open: 0,
        difference: 0.0,
        interval: None,
    };
    let mut by_example: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for path in sheets {
        for (id, better) in filled_in(path, &key)? {
            let in_order = key.in_order.get(&id).copied().unwrap_or(true);
            let judgement = match better {
                Better::Open => {
                    ratings.open += 1;
                    continue;
                }
                Better::Tie => 0.0,
                Better::First => -1.0,
                Better::Second => 1.0,
            };
            by_example.entry(id).or_default().push(if in_order { judgement } else { -judgement });
        }
    }
    let by_example: Vec<Vec<f64>> = by_example.into_values().collect();
    let judgements: Vec<f64> = by_example.iter().flatten().copied().collect();
    let count = |wanted: f64| judgements.iter().filter(|&&judgement| judgement == wanted).count();
    (ratings.first, ratings.second, ratings.ties) = (count(-1.0), count(1.0), count(0.0));
    if !judgements.is_empty() {
        let every: Vec<usize> = (0..by_example.len()).collect();
        let difference = |indices: &[usize]| {
            let chosen = || indices.iter().filter_map(|&index| by_example.get(index)).flatten();
            #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 judgements")]
            let all = chosen().count() as f64;
            chosen().sum::<f64>() / all
        };
        ratings.interval = bootstrap::interval(by_example.len(), resamples, seed, difference);
        ratings.difference = difference(&every);
    }
    Ok(ratings)
}

enum Better {
    First,
    Second,
    Tie,
    Open,
}

fn filled_in(path: &Path, key: &Key) -> Result<Vec<(String, Better)>, SheetError> {
    let wrong = |row: usize, what: String| SheetError::Row { path: path.to_owned(), row, what };
    let bytes = std::fs::read(path).map_err(|source| SheetError::Io { path: path.to_owned(), source })?;
    // Spreadsheets write semicolons in many countries.
    let head = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let delimiter = if head.contains(&b';') && !head.contains(&b',') { b';' } else { b',' };
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(true).delimiter(delimiter).from_reader(bytes);
    let head = reader.headers().map_err(|error| wrong(1, error.to_string()))?.clone();
    let column = |name: &str| {
        let found = head.iter().position(|column| column.trim() == name);
        found.ok_or_else(|| wrong(1, format!("has no column `{name}`")))
    };
    let (id, better, sheet) = (column("id")?, column("better")?, column("sheet")?);
    let mut found = BTreeMap::new();
    for (index, record) in reader.records().enumerate() {
        let row = index + 2;
        let record = record.map_err(|error| wrong(row, error.to_string()))?;
        let of = record.get(sheet).unwrap_or("").trim();
        if of != key.sheet {
            return Err(wrong(row, format!("is of the sheet {of:?}, and the key is that of {:?}", key.sheet)));
        }
        let own = record.get(id).unwrap_or("").to_owned();
        let own = key.in_order.keys().find(|known| harmless(known) == own || **known == own).cloned();
        let own = own.ok_or_else(|| wrong(row, "has an id that is not on the sheet".to_owned()))?;
        let better = match record.get(better).unwrap_or("").trim().to_lowercase().as_str() {
            "" => Better::Open,
            "1" => Better::First,
            "2" => Better::Second,
            "tie" | "=" | "0" => Better::Tie,
            other => return Err(wrong(row, format!("says {other:?} under `better`; 1, 2 or tie can stand there"))),
        };
        if found.insert(own, better).is_some() {
            return Err(wrong(row, "rates an example for the second time".to_owned()));
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::example::Prompt;

    fn examples() -> Vec<Example> {
        let example = |id: i32| Example { id: id.to_string(), prompt: Prompt::Text("=q".to_owned()), reference: None };
        (1..=40).map(example).collect()
    }

    fn said(name: &str, id: &str) -> Option<String> {
        Some(format!("{name} says {id}"))
    }

    fn between() -> (String, String) {
        ("a".to_owned(), "b".to_owned())
    }

    fn sheet(dir: &Path) -> Key {
        write(dir, &between(), &examples(), &said, 30, 7).unwrap();
        read_key(&dir.join("sheet.key.json")).unwrap()
    }

    /// What comes back: a judgement of each example, by whether the answers stand in order.
    fn filled_in_by(dir: &Path, name: &str, key: &Key, judge: impl Fn(usize, bool) -> u8) -> PathBuf {
        let mut rows = vec!["id;better;comment;sheet".to_owned()];
        let all = key.in_order.iter().enumerate();
        rows.extend(all.map(|(index, (id, order))| format!("{id};{};;{}", judge(index, *order), key.sheet)));
        let path = dir.join(name);
        std::fs::write(&path, format!("\u{feff}{}", rows.join("\n"))).unwrap();
        path
    }

    #[test]
    fn a_sheet_comes_back_and_the_names_are_put_back_behind_the_answers() {
        let dir = tempfile::tempdir().unwrap();
        let key = sheet(dir.path());
        assert_eq!(key.in_order.len(), 30);
        assert!(key.in_order.values().any(|&order| order) && key.in_order.values().any(|&order| !order));
        let text = std::fs::read_to_string(dir.path().join("sheet.csv")).unwrap();
        assert!(text.contains(",'=q,"), "nothing begins like a formula");
        // Whoever answers as b does is better, in every row.
        let path = filled_in_by(dir.path(), "back.csv", &key, |_, order| if order { 2 } else { 1 });
        let ratings = read(&dir.path().join("sheet.key.json"), &[path], &said, 100, 1).unwrap();
        assert_eq!((ratings.first, ratings.second, ratings.ties, ratings.open), (0, 30, 0, 0));
        assert_eq!((ratings.difference, ratings.interval), (1.0, Some((1.0, 1.0))));
    }

    #[test]
    fn people_who_say_the_same_make_no_interval_narrower() {
        let dir = tempfile::tempdir().unwrap();
        let key = sheet(dir.path());
        let file = dir.path().join("sheet.key.json");
        let judge = |index: usize, order: bool| if index.is_multiple_of(3) == order { 1 } else { 2 };
        let one = filled_in_by(dir.path(), "one.csv", &key, judge);
        let alone = read(&file, std::slice::from_ref(&one), &said, 500, 1).unwrap();
        let three = read(&file, &[one.clone(), one.clone(), one], &said, 500, 1).unwrap();
        assert_eq!(three.first + three.second, 90);
        assert_eq!((three.difference, three.interval), (alone.difference, alone.interval));
        let (low, high) = alone.interval.unwrap();
        assert!(high - low > 0.3, "{low} {high}");
    }

    #[test]
    fn a_sheet_that_may_be_filled_in_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let key = sheet(dir.path());
        let path = dir.path().join("sheet.csv");
        std::fs::write(&path, "filled in").unwrap();
        assert_eq!(sheet(dir.path()), key, "the same is not written again");
        let other = |name: &str, id: &str| Some(format!("{name} says {id} anew"));
        let turned = ("b".to_owned(), "a".to_owned());
        let attempts: [(&(String, String), Answers<'_>, u64); 3] =
            [(&between(), &other, 7), (&turned, &said, 7), (&between(), &said, 8)];
        for (between, answers, seed) in attempts {
            let found = write(dir.path(), between, &examples(), answers, 30, seed).unwrap_err();
            assert!(matches!(found, SheetError::InTheWay(_)), "{found}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "filled in");
        assert_eq!(read_key(&dir.path().join("sheet.key.json")).unwrap(), key);
    }

    #[test]
    fn judgements_of_other_answers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = sheet(dir.path());
        let file = dir.path().join("sheet.key.json");
        let other = Key { sheet: "s0123456789abcdef".to_owned(), ..key.clone() };
        let path = filled_in_by(dir.path(), "other.csv", &other, |_, _| 1);
        let found = read(&file, &[path], &said, 10, 1).unwrap_err().to_string();
        assert!(
            found.contains("row 2") && found.contains("s0123456789abcdef") && found.contains(&key.sheet),
            "{found}"
        );
        let path = filled_in_by(dir.path(), "own.csv", &key, |_, _| 1);
        let other = |name: &str, id: &str| Some(format!("{name} says {id} anew"));
        let found = read(&file, &[path], &other, 10, 1).unwrap_err();
        assert!(matches!(found, SheetError::OtherAnswers(_)), "{found}");
    }

    #[test]
    fn rows_that_were_not_on_the_sheet_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = sheet(dir.path());
        let (id, of) = (key.in_order.keys().next().unwrap(), &key.sheet);
        for (rows, expected) in [
            (format!("id,better,sheet\n99,1,{of}"), "row 2"),
            (format!("id,better,sheet\n{id},both,{of}"), "1, 2 or tie"),
            (format!("id,better,sheet\n{id},1,{of}\n{id},2,{of}"), "second time"),
            ("id,verdict,sheet\n".to_owned(), "no column `better`"),
            (format!("id,better\n{id},1"), "no column `sheet`"),
        ] {
            let path = dir.path().join("back.csv");
            std::fs::write(&path, rows).unwrap();
            let found = read(&dir.path().join("sheet.key.json"), &[path], &said, 10, 1).unwrap_err().to_string();
            assert!(found.contains(expected), "{found}");
        }
    }
}
