//! Reading all inputs: what format they have, and one row after the other through the workers.

use super::{
    Options,
    work::{Worked, Worker},
};
use crate::{
    Error, Input, Json, Stage, Watch,
    card::InputCard,
    container::{Container, Content, Row, Rows},
    duplicates::{Near, Sketcher},
    format::{FormatError, Sample, Schema, recognise},
    pii::{Detector, PiiAction},
};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use std::{fs, sync::Arc};

/// Rows of an input whose columns are looked at, and inputs that are looked at.
const SAMPLE: usize = 100;
const SAMPLED_INPUTS: usize = 50;
/// Rows and bytes that are worked on at once.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 16 << 20;

/// Takes what became of a row of the input with that name.
type Sink<'a> = &'a mut dyn FnMut(&Arc<str>, Worked) -> Result<(), Error>;

/// Inputs whose format is known, and what their rows are worked with.
pub(crate) struct Intake<'a> {
    inputs: &'a [Input],
    pub options: &'a Options,
    pub schema: Schema,
    pub sketcher: Option<Sketcher>,
    detector: Option<Detector>,
    pool: ThreadPool,
    bytes: u64,
}

impl<'a> Intake<'a> {
    pub fn open(inputs: &'a [Input], options: &'a Options) -> Result<Self, Error> {
        let schema = schema(inputs, options)?;
        let threads = options.threads.map_or(0, std::num::NonZeroUsize::get);
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Threads { threads, reason: error.to_string() })?;
        let mut bytes = 0;
        for input in inputs {
            let unreadable = Error::io(format!("read {}", input.path.display()));
            bytes += fs::metadata(&input.path).map_err(unreadable)?.len();
        }
        let detector = match options.pii {
            PiiAction::Off => None,
            _ => Some(Detector::new(options.patterns.clone())?),
        };
        let sketcher = (options.dedupe.near != Near::Off).then(|| Sketcher::new(&options.dedupe));
        Ok(Self { inputs, options, schema, sketcher, detector, pool, bytes })
    }

    /// Does parallel work on the threads of this intake.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// Gives each row to `sink`, in the order of the inputs; tells what the inputs were.
    pub fn run(&self, watch: &mut Watch<'_>, sink: Sink<'_>) -> Result<Vec<InputCard>, Error> {
        let worker = Worker {
            schema: &self.schema,
            detector: self.detector.as_ref(),
            action: self.options.pii,
            sketcher: self.sketcher.as_ref(),
            tokenizer: self.options.tokenizer.as_deref(),
        };
        let (mut cards, mut before, mut rows_before) = (Vec::new(), 0, 0);
        for input in self.inputs {
            let mut rows = Rows::open(input, &self.options.reading, &self.options.limits)?;
            let mut count = 0u64;
            loop {
                watch.at(Stage::Read, before + rows.bytes_read(), self.bytes)?;
                let batch = batch(&mut rows)?;
                if batch.is_empty() {
                    break;
                }
                count += batch.len() as u64;
                let limit = self.options.limits.rows;
                if rows_before + count > u64::from(limit) {
                    return Err(Error::TooManyRows { limit });
                }
                let worked: Vec<_> = self.pool.install(|| batch.into_par_iter().map(|row| worker.work(row)).collect());
                for worked in worked {
                    sink(&input.name, worked?)?;
                }
            }
            let detected = rows.detected.clone();
            let (size, sha256) = rows.finish()?;
            before += size;
            rows_before += count;
            cards.push(InputCard {
                name: input.name.to_string(),
                size,
                sha256,
                container: detected.container.name().to_owned(),
                because: detected.because,
                rows: count,
            });
        }
        Ok(cards)
    }
}

fn batch(rows: &mut Rows) -> Result<Vec<Row>, Error> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
        let Some(row) = rows.next_row()? else { break };
        bytes += row.content.weight();
        batch.push(row);
    }
    Ok(batch)
}

/// Recognises the format by the first rows of the inputs.
fn schema(inputs: &[Input], options: &Options) -> Result<Schema, Error> {
    let mut samples = Vec::new();
    let mut first_problem = None;
    for input in inputs.iter().take(SAMPLED_INPUTS) {
        let mut rows = Rows::open(input, &options.reading, &options.limits)?;
        let text = rows.detected.container == Container::Text;
        for _ in 0..SAMPLE {
            let Some(row) = rows.next_row()? else { break };
            match sample(row.content) {
                Ok(sample) => samples.push(sample),
                Err(fault) => {
                    first_problem.get_or_insert_with(|| format!("{}: {fault}", input.name));
                }
            }
            if text {
                break;
            }
        }
    }
    if samples.is_empty() {
        let file = inputs.first().map_or_else(String::new, |input| input.name.to_string());
        return match first_problem {
            Some(first) => Err(FormatError::Unreadable { file, first }.into()),
            None => Err(Error::Empty),
        };
    }
    Ok(recognise(&samples, options.format, &options.columns)?)
}

fn sample(content: Content) -> Result<Sample, String> {
    let value = match content {
        Content::Text(_) => return Ok(Sample::Text),
        Content::Fields(value) => value,
        Content::Json(bytes) => Json::parse(&bytes).map_err(|fault| fault.to_string())?,
        Content::Broken(broken) => return Err(broken.message().to_owned()),
    };
    match value {
        Json::Object(entries) => Ok(Sample::Fields(entries)),
        other => Err(format!("{} where an object is expected", other.kind())),
    }
}
