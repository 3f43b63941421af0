//! `gap-init`: the first process of the appliance. The library's documentation says what it promises to others.

use gap_format::Digest;
use gap_handover::boot_report::{BootReport, Clock, Layer, Medium, RollbackProtection, SecureBoot};
use gap_init::{
    Attempt, Stop, agent, clock, cmdline,
    console::Consoles,
    events::Events,
    handover,
    medium::{self, Found},
    modules::Modules,
    mounts, processes,
    release::{self, Trusted},
    secure_boot, shutdown,
    site::{self, Site},
    story::Story,
    supervise, sysroot,
};
use gap_mapping::Mapping;
use std::{
    env, fs, panic,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|argument| argument == agent::ENTER) {
        let Err(stop) = agent::enter();
        eprintln!("gap-init: {stop}");
        return ExitCode::FAILURE;
    }
    if !rustix::process::getpid().is_init() {
        eprintln!("gap-init is the first process of an appliance's initramfs and does nothing elsewhere");
        return ExitCode::from(2);
    }
    live(Path::new("/"))
}

/// From the first moment to the last. PID 1 must never end: the kernel would panic.
fn live(root: &Path) -> ! {
    let mounted = mounts::mount_for_initramfs(root);
    // Signals are blocked before there is a second thread, which would take them to itself.
    let events = Events::open_from(root);
    let mut story = Story::new(Arc::new(Consoles::open_from(root)));
    match events {
        Ok(mut events) => {
            let booted = mounted.and_then(|()| guarded(|| boot(root, &mut story)));
            let lived = booted.and_then(|Booted { image, site }| supervise::run(&mut events, &story, &image, site));
            let end = lived.unwrap_or_else(|stop| {
                // What was told before may fill the queue of a slow console, and this must not be what is left out.
                story.flush();
                story.announce(&stop);
                story.announce("halted; the power button switches the machine off");
                supervise::halted(&mut events)
            });
            shutdown::run(root, end, &mut events, &story);
        }
        Err(stop) => story.announce(stop),
    }
    story.flush();
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// A mistake in this program must not take the kernel down before it is told on the consoles.
fn guarded<T>(act: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
    panic::catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(Stop::Failed("gap-init itself went wrong; this is a mistake in it".into())))
}

/// A machine whose agent can be started.
struct Booted {
    /// The root of the OS image.
    image: PathBuf,
    site: Site,
}

/// The boot: everything up to the moment when the agent can be started.
fn boot(root: &Path, story: &mut Story) -> Result<Booted, Stop> {
    story.stage("kernel");
    processes::make_room(root, story);
    // Before what may well fail: a machine that halts needs its power button.
    let mut modules = Modules::read_from(root)?;
    let background = modules.begin(story)?;
    let wanted = cmdline::wanted_from(root)?;
    let raw_trust =
        fs::read(root.join("gap/trust.toml")).attempt(|| "reading the trust root /gap/trust.toml".into())?;
    let fingerprint = Digest::of(&raw_trust);
    story.tell(format_args!("appliance {}, serial {}", wanted.name, wanted.serial));
    story.tell(format_args!("trust root {fingerprint}"));
    let trust = release::trust_root(&raw_trust)?;

    mounts::mount_firmware_variables(root, &mut modules, story)?;
    let secure_boot = secure_boot::state_from(root);
    tell_what_it_is_worth(story, secure_boot);

    let clock = clock_of(root, story);
    let found = medium::find(root, story, &mut modules, medium::PATIENCE, &|source, len| {
        release::verify(source, len, &trust, &wanted)
    })?;
    story.stage_at("medium", found.seen);
    story.stage("release");
    tell_release(story, &found, clock::wall().max(clock.built));

    background.wait_for_always()?;
    story.stage("modules");
    let mapping = sysroot::map_image(root, found.number, &found.release.os)?;
    let image = sysroot::mount_image(root, &mapping.devices)?;
    agent::read_ahead(&image);
    story.stage("image");
    story.tell(format_args!("OS image mounted, {} layers behind hash trees", mapping.devices.len().saturating_sub(1)));
    mounts::mount_for_os(&image)?;

    let driven = background.join(&mut modules)?;
    story.tell(format_args!("{} kernel modules, more as the hardware asks for them", modules.loaded()));
    let more = modules.another();
    let site = site::find(root, story, modules, driven, trust);
    story.stage("site");
    let report = report(&found, &mapping, fingerprint, secure_boot, clock, story);
    handover::write(&image, &report, &raw_trust, site.text())?;
    // The medium may have been found before all controllers had their drivers, on one of which the data disk may be.
    more.go_on(story, &image)?;
    Ok(Booted { image, site })
}

/// What the checks of this boot defend against, and what they do not.
fn tell_what_it_is_worth(story: &Story, secure_boot: SecureBoot) {
    match secure_boot {
        SecureBoot::Enabled => story.tell("Secure Boot is on: the firmware checked this boot image"),
        SecureBoot::Disabled => story.tell("Secure Boot is off"),
        SecureBoot::Unsupported => story.tell("no Secure Boot on this firmware"),
    }
    if secure_boot != SecureBoot::Enabled {
        story.tell("  the checks below detect damage, not an attacker who rewrote the whole medium:");
        story.tell("  compare the trust root above with the one you were given");
    }
    story.tell("no rollback protection: an older medium with a valid signature would start as well");
}

/// Looks at the machine's clock, and sets it where it is behind the time when this boot image was made: that is wrong.
fn clock_of(root: &Path, story: &Story) -> Clock {
    let (clock, built) = (clock::wall(), clock::build_time_from(root).unwrap_or(0));
    let was_behind = clock < built;
    if was_behind {
        story.tell("the clock of this machine is behind the time when this release was made, to which it is set");
        clock::set_wall(built).unwrap_or_else(|error| story.tell(format_args!("the clock cannot be set: {error}")));
    }
    Clock { built, was_behind }
}

fn tell_release(story: &Story, found: &Found<Trusted>, now: u64) {
    let release = &found.release.statement;
    let place = found.file.clone().unwrap_or_else(|| found.node.display().to_string());
    story.tell(format_args!("release {} {}, serial {}, on {place}", release.name, release.version, release.serial));
    for (name, key) in found.release.signer_names.iter().zip(&release.signers) {
        story.tell(format_args!("signed by {name}, key {key}"));
    }
    if release.expires.is_some_and(|expires| expires <= now) {
        story.tell("this release has expired: it still starts, and no gate accepts it any more");
    }
}

fn report(
    found: &Found<Trusted>,
    mapping: &Mapping,
    trust_fingerprint: Digest,
    secure_boot: SecureBoot,
    clock: Clock,
    story: &Story,
) -> BootReport {
    let layers = found.release.os.iter().zip(&mapping.devices).map(|(blob, device)| Layer {
        name: blob.name.clone(),
        digest: blob.place.digest,
        size: blob.place.size,
        verity_root: blob.place.root,
        device: device.node.display().to_string(),
    });
    BootReport {
        release: found.release.statement.clone(),
        medium: Medium { device: found.node.display().to_string(), file: found.file.clone() },
        trust_fingerprint,
        secure_boot,
        rollback_protection: RollbackProtection::None,
        clock,
        layers: layers.collect(),
        stages: story.stages().to_vec(),
    }
}
