//! Rating sheets: answers of two candidates side by side, without their names; and what people made of them.
//!
//! `sheet.csv` is filled in and comes back, `sheet.html` shows the same for reading. Which answer is whose stands in
//! `sheet.key.json` alone, in an order that follows from the seed.

use super::{
    bootstrap::{self, Interval},
    example::Example,
    report::html::escape,
};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

const COLUMNS: [&str; 6] = ["id", "question", "answer_1", "answer_2", "better", "comment"];

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

/// Writes a sheet of at most `count` examples to `dir`.
///
/// # Errors
/// [`SheetError::Io`].
pub fn write(
    dir: &Path,
    between: &(String, String),
    examples: &[Example],
    answers: &dyn Fn(&str, &str) -> Option<String>,
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
    let mut key = Key { between: between.clone(), in_order: BTreeMap::new() };
    let mut sheet = csv::Writer::from_writer(Vec::new());
    let mut page = String::from(PAGE);
    let sheet_path = dir.join("sheet.csv");
    let wrong = |error: csv::Error| SheetError::Io { path: sheet_path.clone(), source: io::Error::other(error) };
    sheet.write_record(COLUMNS).map_err(wrong)?;
    for (example, first, second) in rows {
        let in_order = random.r#gen::<bool>();
        key.in_order.insert(example.id.clone(), in_order);
        let (left, right) = if in_order { (first, second) } else { (second, first) };
        let cells = [example.id.as_str(), example.question(), &left, &right, "", ""].map(harmless);
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
    put(&sheet_path, &bytes)?;
    put(&dir.join("sheet.html"), page.as_bytes())?;
    let json = serde_json::to_vec_pretty(&key).unwrap_or_default();
    put(&dir.join("sheet.key.json"), &json)
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

/// Reads filled-in sheets of one key; several people may have filled in the same.
///
/// # Errors
/// [`SheetError`].
pub fn read(key: &Path, sheets: &[PathBuf], resamples: usize, seed: u64) -> Result<Ratings, SheetError> {
    let bytes = std::fs::read(key).map_err(|source| SheetError::Io { path: key.to_owned(), source })?;
    let key: Key = serde_json::from_slice(&bytes).map_err(|source| SheetError::Key { path: key.to_owned(), source })?;
    let mut ratings = Ratings {
        between: key.between.clone(),
        first: 0,
        second: 0,
        ties: 0,
        open: 0,
        difference: 0.0,
        interval: None,
    };
    let mut judgements = Vec::new();
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
            judgements.push(if in_order { judgement } else { -judgement });
        }
    }
    let count = |wanted: f64| judgements.iter().filter(|&&judgement| judgement == wanted).count();
    (ratings.first, ratings.second, ratings.ties) = (count(-1.0), count(1.0), count(0.0));
    if !judgements.is_empty() {
        let every: Vec<usize> = (0..judgements.len()).collect();
        ratings.difference = bootstrap::mean(&judgements, &every);
        let difference = |indices: &[usize]| bootstrap::mean(&judgements, indices);
        ratings.interval = bootstrap::interval(judgements.len(), resamples, seed, difference);
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
    let (id, better) = (column("id")?, column("better")?);
    let mut found = BTreeMap::new();
    for (index, record) in reader.records().enumerate() {
        let row = index + 2;
        let record = record.map_err(|error| wrong(row, error.to_string()))?;
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

    fn sheet(dir: &Path) -> Key {
        let between = ("a".to_owned(), "b".to_owned());
        let answers = |name: &str, id: &str| Some(format!("{name} says {id}"));
        write(dir, &between, &examples(), &answers, 30, 7).unwrap();
        serde_json::from_slice(&std::fs::read(dir.join("sheet.key.json")).unwrap()).unwrap()
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
        let mut rows = vec!["id;better;comment".to_owned()];
        rows.extend(key.in_order.iter().map(|(id, order)| format!("{id};{};", if *order { 2 } else { 1 })));
        let path = dir.path().join("back.csv");
        std::fs::write(&path, format!("\u{feff}{}", rows.join("\n"))).unwrap();
        let ratings = read(&dir.path().join("sheet.key.json"), &[path], 100, 1).unwrap();
        assert_eq!((ratings.first, ratings.second, ratings.ties, ratings.open), (0, 30, 0, 0));
        assert_eq!((ratings.difference, ratings.interval), (1.0, Some((1.0, 1.0))));
    }

    #[test]
    fn rows_that_were_not_on_the_sheet_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = sheet(dir.path());
        let id = key.in_order.keys().next().unwrap();
        for (rows, expected) in [
            ("id,better\n99,1".to_owned(), "row 2"),
            (format!("id,better\n{id},both"), "1, 2 or tie"),
            (format!("id,better\n{id},1\n{id},2"), "second time"),
            ("id,verdict\n".to_owned(), "no column `better`"),
        ] {
            let path = dir.path().join("back.csv");
            std::fs::write(&path, rows).unwrap();
            let found = read(&dir.path().join("sheet.key.json"), &[path], 10, 1).unwrap_err().to_string();
            assert!(found.contains(expected), "{found}");
        }
    }
}
