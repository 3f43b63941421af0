//! `gapd`: the appliance's agent. It takes no options in the appliance; see `gap_agent::start::Options` for those that
//! let it run elsewhere.

#![forbid(unsafe_code)]

use gap_agent::{
    self_test::{self, SELF_TEST},
    start::{Options, run},
};
use gap_handover::control::EXIT_FAILED;
use gap_jobs::container::{KEEPER, keeper};
use std::{env, io, path::Path, process::ExitCode};

/// Threads that serve; the API is small, and a second one keeps it answering while one is busy with a handshake.
const THREADS: usize = 2;
/// Threads for what may block.
const BLOCKING_THREADS: usize = 16;
/// Exit code of a self-test that found something wrong: of those after which a job is not tried again.
const FAULTY: u8 = 2;
/// What is printed when the command line is not understood.
const USAGE: &str = "usage: gapd [--root DIRECTORY [--owns-machine]] [--listen ADDRESS:PORT]";

fn main() -> ExitCode {
    let status = act();
    gap_agent::console::flush();
    status
}

fn act() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [KEEPER] => return reported(keeper::wait()),
        [KEEPER, id, directory, ports @ ..] => return keep(id, Path::new(directory), ports),
        _ => {}
    }
    if let [SELF_TEST, memory, disk, directory] = words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        return test(memory, disk, Path::new(directory));
    }
    let Some(options) = parse(words.into_iter()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(EXIT_FAILED);
    };
    gap_agent::descriptors::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let status = runtime.block_on(run(options));
            runtime.shutdown_background();
            ExitCode::from(status)
        }
        Err(error) => {
            gap_agent::console::say(format_args!("failed: starting: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Keeps a job's container: this same program, started by the agent, with one thread.
fn keep(id: &str, directory: &Path, ports: &[&str]) -> ExitCode {
    let Ok(ports) = ports.iter().map(|port| port.parse()).collect::<Result<Vec<_>, _>>() else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    reported(keeper::run(id, directory, &ports))
}

fn reported(kept: io::Result<()>) -> ExitCode {
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the end of the job cannot be reported: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tests memory and disk: this same program in a job, in which there is nothing else of the agent.
fn test(memory: &str, disk: &str, directory: &Path) -> ExitCode {
    let (Ok(memory), Ok(disk)) = (memory.parse(), disk.parse()) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    match self_test::run(memory, disk, directory) {
        Ok(found) if found.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAULTY),
        Err(error) => {
            eprintln!("the report cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// In another root than `/` the machine is left alone, unless it is said to be the agent's own.
fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { root: "/".into(), listen: None, owns_machine: true };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--root" => {
                options.root = arguments.next()?.into();
                options.owns_machine = false;
            }
            "--owns-machine" => options.owns_machine = true,
            "--listen" => options.listen = Some(arguments.next()?.parse().ok()?),
            _ => return None,
        }
    }
    Some(options)
}
