//! `gapimage inspect`.

use super::{Failure, InspectArgs, Outcome, failure::failed};
use crate::report::{
    contents::{Contents, ContentsError, Indexes},
    documents::Document,
    files,
    licences::Report,
    output::{ascii_json, print, print_bytes},
    summary::Summary,
};
use gap_format::escape::escaped;
use serde::Serialize;
use std::io::{self, IsTerminal};

/// The files of one image, for programs.
#[derive(Serialize)]
struct FileList<'a> {
    image: &'a str,
    files: Vec<files::Listed>,
}

/// Shows what an artifact says it holds, the files of one image, one of its documents, or its licences.
pub fn run(args: &InspectArgs) -> Outcome {
    let contents = Contents::open(&args.file).map_err(failure)?;
    if let Some(title) = &args.document {
        return document(&contents, title);
    }
    let text = match &args.files {
        Some(image) => list(&contents, image, args.json)?,
        None if args.licenses => licences(&contents, args.json)?,
        None => summary(&contents, args.json)?,
    };
    print(&text).map_err(failed("writing to standard output"))
}

fn summary(contents: &Contents, json: bool) -> Result<String, Failure> {
    let summary = Summary::of(contents).map_err(failure)?;
    if json {
        return ascii_json(&summary).map_err(failed("writing JSON"));
    }
    Ok(summary.to_string())
}

/// Byte for byte, so that its digest stays right; a terminal gets it escaped.
fn document(contents: &Contents, title: &str) -> Outcome {
    let bytes = Document::find(contents, title).and_then(|document| document.read(contents)).map_err(failure)?;
    let shown = match io::stdout().is_terminal() {
        true => print(&format!("{}\n", escaped(&String::from_utf8_lossy(&bytes)))),
        false => print_bytes(&bytes),
    };
    shown.map_err(failed("writing to standard output"))
}

fn licences(contents: &Contents, json: bool) -> Result<String, Failure> {
    let document = Document::find(contents, "licenses").map_err(failure)?;
    let report = Report::parse(&document.read(contents).map_err(failure)?);
    let report = report.map_err(failed(format!("reading the document `{}`", escaped(&document.title))))?;
    if json {
        return ascii_json(&report).map_err(failed("writing JSON"));
    }
    Ok(report.to_string())
}

fn list(contents: &Contents, name: &str, json: bool) -> Result<String, Failure> {
    let image = contents.image(name).map_err(failure)?;
    let files = files::list(&contents.tree(image, &mut Indexes::new()).map_err(failure)?);
    if json {
        return ascii_json(&FileList { image: &image.name, files }).map_err(failed("writing JSON"));
    }
    Ok(files::table(&files))
}

/// Exit code 1 with advice: what cannot be looked at was not judged either.
pub(super) fn failure(error: ContentsError) -> Failure {
    let advice = match &error {
        ContentsError::Open { .. } => "name a file that gapimage build made",
        ContentsError::NoImage { .. } => "`gapimage inspect FILE` lists all images",
        ContentsError::NoDocument { .. } => "`gapimage inspect FILE` lists all documents",
        _ => "`gapimage verify FILE --trust TRUST.TOML` says whether it is damaged",
    };
    Failure::could_not_run(error, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_artifact_could_not_be_inspected() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("text");
        std::fs::write(&file, [b'x'; 100_000]).unwrap();
        for file in [file, dir.path().join("absent"), dir.path().to_owned()] {
            let refused = run(&InspectArgs { file, files: None, document: None, licenses: false, json: false });
            assert!(matches!(refused, Err(Failure::CouldNotRun(_))), "{refused:?}");
        }
    }
}
