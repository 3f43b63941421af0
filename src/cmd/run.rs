//! `gapimage run`.

use super::{Failure, Outcome, RunArgs, failure::failed, inspect::failure};
use crate::{
    interruption,
    report::contents::Contents,
    trial::{Bench, Trial},
};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

/// Runs a program in an image of an artifact; what it prints is passed on.
pub fn run(args: &RunArgs) -> Outcome {
    let (file, name) = args.image.rsplit_once(':').ok_or_else(|| {
        Failure::usage(
            format!("`{}` names no image", args.image),
            "write FILE:IMAGE; `gapimage inspect FILE` lists them",
        )
    })?;
    let contents = Contents::open(Path::new(file)).map_err(failure)?;
    let image = contents.image(name).map_err(failure)?;
    let over = args.with.iter().map(|name| contents.image(name)).collect::<Result<Vec<_>, _>>().map_err(failure)?;
    let tree = contents.laid(image, &over).map_err(failure)?;
    let program = std::env::current_exe().map_err(failed("finding the gapimage program"))?;
    interruption::heed().map_err(failed("heeding Ctrl-C"))?;
    let spool = tempfile::tempdir().map_err(failed("making a directory for the image"))?;
    let settings = contents.run_settings(image).map_err(failure)?;
    let env = settings.env.iter().filter_map(|variable| variable.split_once('='));
    let trial = Trial {
        name: name.to_owned(),
        command: args.command.clone(),
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>(),
        directory: settings.working_dir,
        time_limit: args.timeout,
        ..Trial::default()
    };
    let hear = |printed: &[u8]| {
        // Nobody reads any more; the program may still finish.
        let _ = io::stdout().write_all(printed).and_then(|()| io::stdout().flush());
    };
    trial
        .run(&tree, Bench { program: &program, spool: spool.path() }, &hear)
        .map_err(|error| failed(format!("running `{}` in `{}`", args.command.join(" "), args.image))(error))
}
