//! `gapimage inspect`.

use super::{Failure, InspectArgs, Outcome, failure::failed};
use crate::report::{
    contents::{Contents, ContentsError, Indexes},
    files,
    output::{ascii_json, print},
    summary::Summary,
};
use serde::Serialize;

/// The files of one image, for programs.
#[derive(Serialize)]
struct FileList<'a> {
    image: &'a str,
    files: Vec<files::Listed>,
}

/// Shows what an artifact says it holds, or the files of one image.
pub fn run(args: &InspectArgs) -> Outcome {
    let contents = Contents::open(&args.file).map_err(failure)?;
    let text = match &args.files {
        Some(image) => list(&contents, image, args.json)?,
        None if args.json => ascii_json(&Summary::of(&contents)).map_err(failed("writing JSON"))?,
        None => Summary::of(&contents).to_string(),
    };
    print(&text).map_err(failed("writing to standard output"))
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
            let refused = run(&InspectArgs { file, files: None, json: false });
            assert!(matches!(refused, Err(Failure::CouldNotRun(_))), "{refused:?}");
        }
    }
}
