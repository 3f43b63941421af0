//! `gapimage boot`.

use super::{
    BootArgs, Bus, Outcome,
    failure::{Failure, failed},
    sign::load_key,
    site,
    terminal::{Terminal, line, say},
    verify::{load_trust, now, verify_file},
};
use crate::{
    boot::{
        check::{CheckError, check},
        qemu::{Accelerator, Attach, Machine, Options, QemuError},
    },
    interruption,
};
use gap_format::release::Policy;
use std::time::Duration;

/// Longest that `gapimage boot` without --check lets a machine run.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Verifies if asked to, then boots.
pub fn run(args: &BootArgs) -> Outcome {
    let terminal = Terminal::new(false);
    if let Some(trust) = &args.trust {
        let accounted = verify_file(&args.file, &load_trust(trust)?, &Policy::at(now()?), false, &terminal)?;
        let release = &accounted.release.statement().release;
        terminal.note(&format!("verified {} {} on this machine", release.name, release.version));
    }
    // What a machine is started with lies in a directory for temporary files until the end, the site's key too.
    interruption::heed().map_err(failed("heeding Ctrl-C"))?;
    let accelerator = Accelerator::detect().map_err(failed("looking for a way to run virtual machines"))?;
    let options = Options {
        memory: args.memory,
        block_size: args.block_size,
        attach: match args.attach {
            Bus::Virtio => Attach::Virtio,
            Bus::Nvme => Attach::Nvme,
            Bus::Sata => Attach::Ahci,
            Bus::Usb => Attach::Usb,
        },
        port: args.port,
        data: args.data.clone(),
        site_key: args.site_key.as_deref().map(load_key).transpose()?,
        site: args.site.as_deref().map(site::read).transpose()?.map(|text| text.to_string()),
        ..Options::new(&args.file, accelerator)
    };
    if args.check { run_check(args, &options, &terminal) } else { run_console(&options) }
}

fn run_check(args: &BootArgs, options: &Options, terminal: &Terminal) -> Outcome {
    let limit = Duration::from_secs(args.timeout);
    let checked =
        check(options, limit, args.wait_for_scrub, &args.program, |line| terminal.note(line)).map_err(|error| {
            match error {
                CheckError::NotTrusted(_) => {
                    Failure::not_trusted(error, "the console above says what the appliance found")
                }
                error => failed(format!("booting `{}`", args.file.display()))(error),
            }
        })?;
    terminal.note(&format!("healthy {:.1} s after power-on", checked.healthy_after.as_secs_f64()));
    if args.program.is_empty() {
        line(format_args!("{}", checked.system))?;
    }
    Ok(())
}

/// The console on this terminal until the machine is switched off.
fn run_console(options: &Options) -> Outcome {
    let options = Options { port: options.port.or(Some(0)), ..options.clone() };
    let mut machine = Machine::start(&options).map_err(failed("starting the virtual machine"))?;
    if let Some(port) = machine.port() {
        say(&format!("the API will be at https://127.0.0.1:{port}; end with Ctrl-C"));
    }
    let ended = machine.wait_for(FOREVER, |text| -> Option<()> {
        // The machine runs on when nobody reads its console any more.
        let _ = line(format_args!("{text}"));
        None
    });
    match ended {
        // Which is how it ends.
        Err(QemuError::Interrupted) => Ok(()),
        ended => ended.map_err(failed("running the virtual machine")),
    }
}
