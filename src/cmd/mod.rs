//! The command line: one file a subcommand, each thin.

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

mod boot;
mod build;
mod check;
mod completions;
mod diff;
mod failure;
mod init;
mod inspect;
mod keygen;
mod lock;
mod new_file;
mod plan;
mod run;
mod sign;
mod site;
mod store;
mod terminal;
mod test;
mod trust;
mod verify;

pub use failure::{Failure, Outcome};

/// One recipe becomes one signed file that is an OCI archive, a bootable disk and a release in
/// which every byte is accounted for.
#[derive(Debug, Parser)]
#[command(
    name = "gapimage",
    version,
    after_help = "Exit codes: 0 good · 1 could not run · 2 usage · 3 not trusted · 4 found wanting\n\n\
                  From nothing to a booted appliance:\n  \
                  gapimage init demo && cd demo\n  \
                  gapimage keygen keys\n  \
                  gapimage build recipe.toml -o demo.gap --trust keys/trust.toml\n  \
                  gapimage sign demo.gap --key keys/release.key\n  \
                  gapimage verify demo.gap --trust keys/trust.toml\n  \
                  gapimage boot demo.gap --trust keys/trust.toml --check"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented starter recipe
    #[command(after_help = "Example:\n  gapimage init demo")]
    Init {
        /// Directory to put it in; made when missing
        #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Resolve what a recipe names to pinned digests and write the lock beside it
    #[command(after_help = "Examples:\n  gapimage lock recipe.toml\n  gapimage lock recipe.toml --update\n\n\
                            Where the recipe changed, versions that were locked before stay as far as they will do.")]
    Lock(LockArgs),
    /// Show what a build would do: layers, why they are or are not cached, bytes, disk space
    #[command(after_help = "Examples:\n  gapimage plan recipe.toml --json | jq .layers\n  \
                            gapimage plan recipe.toml --offline\n\nWhat the lock lacks is resolved for the plan only; \
                            the lock is not written.")]
    Plan(PlanArgs),
    /// Work out the checklist of what must hold before the gap is crossed: memory, versions, licences, secrets
    #[command(after_help = "Examples:\n  gapimage check recipe.toml\n  \
                            gapimage check recipe.toml --json | jq '.lines[] | select(.status == \"fail\")'\n\n\
                            Exits with 4 if something fails. What cannot be known is `unresolved`, and fails nothing.")]
    Check(CheckArgs),
    /// Build the artifact: does what is missing of lock and fetch first
    #[command(after_help = "Examples:\n  gapimage build recipe.toml\n  \
                            gapimage build recipe.toml -o out.gap --trust keys/trust.toml --offline\n\n\
                            An interrupted build goes on where it was. With --json, standard error has one event a \
                            line: docs/events.md")]
    Build(BuildArgs),
    /// Try the tests of a recipe in its images, or those that an artifact records, without a network
    #[command(after_help = "Examples:\n  gapimage test recipe.toml\n  gapimage test demo.gap --trust trust.toml\n\n\
                            Of a recipe, builds what is missing first; a test that passed in an image of the same layers \
                            is not tried again, and `gapimage build` tries them too. Of an artifact, all tests that it \
                            passed where it was built are tried again; exits with 4 if one fails.")]
    Test(TestArgs),
    /// Run a program in an image of an artifact, without a network and with a read-only root
    #[command(after_help = "Examples:\n  gapimage run demo.gap:app -- python3 -c 'import transformers'\n  \
                            gapimage run demo.gap:app --with my-model -- ls /models\n\nThe artifact is not verified; \
                            do that first.")]
    Run(RunArgs),
    /// Make a release key and a trust file that trusts it
    #[command(after_help = "Example:\n  gapimage keygen keys\n\nThe private key never goes into an artifact: \
                            keep release.key where releases are signed, hand trust.toml to whoever verifies.")]
    Keygen(KeygenArgs),
    /// Sign an artifact in place; again with another key adds a signature
    #[command(after_help = "Example:\n  gapimage sign demo.gap --key keys/release.key")]
    Sign(SignArgs),
    /// Check every byte of an artifact against a trust file, as at the gate
    #[command(after_help = "Examples:\n  gapimage verify demo.gap --trust trust.toml\n  \
                            gapimage verify - --trust trust.toml < /dev/sdb\n  \
                            gapimage verify /dev/sdb --trust trust.toml --full --min-serial 7")]
    Verify(VerifyArgs),
    /// Sign the trust file that follows another, and check whether one may
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Show what is in an artifact; nothing of it is verified
    #[command(after_help = "Examples:\n  gapimage inspect demo.gap\n  gapimage inspect demo.gap --files os\n  \
                            gapimage inspect demo.gap --document os.spdx.json > os.spdx.json\n  \
                            gapimage inspect demo.gap --licenses | grep -v '^unknown'")]
    Inspect(InspectArgs),
    /// Say which layers, packages and files differ between two artifacts
    #[command(after_help = "Example:\n  gapimage diff old.gap new.gap\n\nExits with 0 whether or not they differ.")]
    Diff {
        /// The one
        a: PathBuf,
        /// The other
        b: PathBuf,
        /// Print JSON; errors as well
        #[arg(long)]
        json: bool,
    },
    /// Boot an artifact in a virtual machine
    #[command(after_help = "Examples:\n  gapimage boot demo.gap\n  gapimage boot demo.gap --trust trust.toml --check")]
    Boot(BootArgs),
    /// Write down what the owner of a machine decides: name, network, certificate, access
    #[command(subcommand)]
    Site(site::SiteCommand),
    /// Look after the store of fetched sources and built layers
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print shell completions
    #[command(after_help = "Example:\n  gapimage completions bash > /etc/bash_completion.d/gapimage")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether a program reads what is printed.
    const fn is_for_programs(&self) -> bool {
        match self {
            Self::Lock(args) => args.json,
            Self::Plan(args) => args.json,
            Self::Check(args) => args.json,
            Self::Build(args) => args.json,
            Self::Test(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Inspect(args) => args.json,
            Self::Diff { json, .. } | Self::Store(StoreCommand::Du { json, .. }) => *json,
            _ => false,
        }
    }
}

/// Where fetched sources and built layers are kept.
#[derive(Debug, Args)]
struct StoreDir {
    /// Store directory [default: $XDG_CACHE_HOME/gapimage or ~/.cache/gapimage]
    #[arg(long, value_name = "DIR", env = "GAPIMAGE_STORE", value_hint = ValueHint::DirPath)]
    store: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct LockArgs {
    /// The recipe
    #[arg(value_hint = ValueHint::FilePath)]
    recipe: PathBuf,
    /// Take the newest versions instead of keeping what the lock pins
    #[arg(long)]
    update: bool,
    /// Print JSON, and what goes on as events on standard error
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreDir,
}

#[derive(Debug, Args)]
struct PlanArgs {
    /// The recipe
    #[arg(value_hint = ValueHint::FilePath)]
    recipe: PathBuf,
    /// Open no network connection: what is not locked cannot be planned
    #[arg(long)]
    offline: bool,
    /// Print JSON, and what goes on as events on standard error
    #[arg(long)]
    json: bool,
    /// Where the artifact would be written [default: NAME-VERSION.gap in the current directory]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the booted appliance will trust, instead of the recipe's
    #[arg(long, value_name = "TRUST.TOML")]
    trust: Option<PathBuf>,
    #[command(flatten)]
    store: StoreDir,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The recipe
    #[arg(value_hint = ValueHint::FilePath)]
    recipe: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreDir,
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// The recipe
    #[arg(value_hint = ValueHint::FilePath)]
    recipe: PathBuf,
    /// Where to write the artifact [default: NAME-VERSION.gap in the current directory]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the booted appliance will trust, instead of the recipe's
    #[arg(long, value_name = "TRUST.TOML")]
    trust: Option<PathBuf>,
    /// Open no network connection: everything must be locked and fetched
    #[arg(long)]
    offline: bool,
    /// Print JSON, and what goes on as events on standard error
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreDir,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// The recipe, or an artifact
    #[arg(value_name = "RECIPE|FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Verify the artifact first, against this trust file
    #[arg(long, value_name = "TRUST.TOML", value_hint = ValueHint::FilePath)]
    trust: Option<PathBuf>,
    /// Open no network connection: everything must be locked and fetched
    #[arg(long)]
    offline: bool,
    /// Print JSON, and what goes on as events on standard error
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreDir,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The artifact and the image in it
    #[arg(value_name = "FILE:IMAGE", value_hint = ValueHint::FilePath)]
    image: String,
    /// Models and data sets of the artifact that the image finds besides its own
    #[arg(long, value_name = "NAME")]
    with: Vec<String>,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct KeygenArgs {
    /// Directory for release.key and trust.toml; neither is ever overwritten
    #[arg(value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Protect the key with a passphrase (asked for, or taken from GAPIMAGE_PASSPHRASE)
    #[arg(long)]
    passphrase: bool,
}

#[derive(Debug, Args)]
struct SignArgs {
    /// The artifact
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// PKCS#8 PEM file with the Ed25519 private key
    #[arg(long, value_name = "KEY", value_hint = ValueHint::FilePath)]
    key: PathBuf,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The artifact: a file, a block device, or - for standard input
    #[arg(value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Who is trusted
    #[arg(long, value_name = "TRUST.TOML", value_hint = ValueHint::FilePath)]
    trust: PathBuf,
    /// Also check the flat digest of each blob that is covered by a verity tree
    #[arg(long)]
    full: bool,
    /// Refuse a release with a lower serial
    #[arg(long, value_name = "N")]
    min_serial: Option<u64>,
    /// Print JSON, and what goes on as events on standard error
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The artifact
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// List the files of this image
    #[arg(long, value_name = "IMAGE")]
    files: Option<String>,
    /// Print one document as it is: by its title, or sbom, provenance, licenses, checklist or tests
    #[arg(long, value_name = "TITLE", conflicts_with_all = ["files", "json"])]
    document: Option<String>,
    /// List all packages by licence, those that nobody knows the licence of first
    #[arg(long, conflicts_with_all = ["files", "document"])]
    licenses: bool,
    /// Print JSON; errors as well
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct BootArgs {
    /// The artifact; it is not written to
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Verify on this machine first, against this trust file
    #[arg(long, value_name = "TRUST.TOML", value_hint = ValueHint::FilePath)]
    trust: Option<PathBuf>,
    /// Boot without display, wait until the API is healthy, print /v1/system as JSON, power off
    #[arg(long)]
    check: bool,
    /// Port on this machine's loopback that leads to the appliance's API [default: a free one]
    #[arg(long, value_name = "P")]
    port: Option<u16>,
    /// With --check: wait until the agent has read every layer once
    #[arg(long, requires = "check")]
    wait_for_scrub: bool,
    /// Memory of the machine in MiB
    #[arg(long, value_name = "M", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// Logical block size of the virtual disk in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = block_size)]
    block_size: u16,
    /// How the artifact is attached
    #[arg(long, value_name = "BUS", value_enum, default_value_t)]
    attach: Bus,
    /// Give up when it is not healthy after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// A file that becomes the data disk; it is written to. An empty one: truncate -s 8G data.img
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    data: Option<PathBuf>,
    /// Site configuration for the machine
    #[arg(long, value_name = "SITE.TOML", value_hint = ValueHint::FilePath, conflicts_with = "check")]
    site: Option<PathBuf>,
    /// With --check: private key that signs the machine's site configuration, where the release asks for that
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "check")]
    site_key: Option<PathBuf>,
    /// With --check: run this once it is healthy, such as a script of gapctl; GAPCTL_SERVER, _CA and _TOKEN lead it there
    #[arg(last = true, value_name = "PROGRAM", requires = "check")]
    program: Vec<OsString>,
}

/// What a virtual disk hangs on.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Bus {
    #[default]
    Virtio,
    Nvme,
    Sata,
    Usb,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Remove what no lock leads to and no recent build used
    #[command(after_help = "Examples:\n  gapimage store gc --dry-run\n  \
                            gapimage store gc --keep-days 7 --keep /srv/old/recipe.toml\n\n\
                            What a build needs stays as long as the lock that it was built from is there and was built \
                            from in the last --forget-days days. Package indexes go after a week without use. While a \
                            build runs, nothing is removed.")]
    Gc {
        /// Keep what was used in the last DAYS days
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        keep_days: u32,
        /// Forget builds that are older than DAYS days
        #[arg(long, value_name = "DAYS", default_value_t = store::FORGET_DAYS)]
        forget_days: u32,
        /// Keep what this recipe, or lock, needs as well; may be given several times
        #[arg(long, value_name = "RECIPE", value_hint = ValueHint::FilePath)]
        keep: Vec<PathBuf>,
        /// Say what would be removed and remove nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        store: StoreDir,
    },
    /// Say how much space is used, and how much of it a collection could free in time
    #[command(after_help = "Example:\n  gapimage store du --json | jq .kinds\n\n\
                            Reachable is what the registered locks lead to; the rest is kept for a while and then \
                            collected by `gapimage store gc`.")]
    Du {
        /// Print JSON; errors as well
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreDir,
    },
}

fn block_size(text: &str) -> Result<u16, String> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err("a disk has blocks of 512 or 4096 bytes".to_owned()),
    }
}

/// Runs the command line and gives the exit code.
pub fn main() -> ExitCode {
    failure::settle_style();
    match Cli::try_parse() {
        Ok(cli) => {
            let json = cli.command.is_for_programs();
            match run(cli.command) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => failure.report(json),
            }
        }
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Nothing can be done when even the usage text finds no reader.
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Init { dir } => init::run(&dir),
        Command::Lock(args) => lock::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Keygen(args) => keygen::run(&args),
        Command::Site(command) => site::run(command),
        Command::Sign(args) => sign::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Trust(command) => trust::run(&command),
        Command::Inspect(args) => inspect::run(&args),
        Command::Diff { a, b, json } => diff::run(&a, &b, json),
        Command::Boot(args) => boot::run(&args),
        Command::Store(command) => store::run(&command),
        Command::Completions { shell } => completions::run(shell, &mut Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
