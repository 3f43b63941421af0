//! The command line: one file a resource, each thin.

use crate::{
    client::{Answer, Client, Fingerprint, Identity, Request, patiently},
    profile::Profile,
};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use miette::Report;
use serde::de::DeserializeOwned;
use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};
use zeroize::Zeroizing;

mod access;
mod chat;
mod debug;
mod diagnose;
mod embed;
mod failure;
mod file;
mod finetune;
mod job;
mod lines;
mod login;
mod model;
mod promote;
mod raw;
mod selftest;
mod show;
mod system;

use failure::Failure;

/// What a subcommand returns.
type Outcome = Result<(), Failure>;

/// How often an appliance that does not answer is asked again by who waits for something on it: for ten minutes, in which it
/// may be started again.
const TRIES: u32 = 44;

/// Works with an appliance: files, fine-tuning, jobs, models.
#[derive(Debug, Parser)]
#[command(
    name = "gapctl",
    version,
    after_help = "Exit codes: 0 good · 1 could not · 2 usage · 3 server not trusted · 4 what was waited for failed\n\n\
                  From the console's fingerprint to an answer:\n  \
                  gapctl login https://192.0.2.7:8443\n  \
                  gapctl file upload examples.jsonl --wait\n  \
                  gapctl finetune create MODEL examples.jsonl --suffix mine --wait\n  \
                  gapctl model serve ft:MODEL:mine:… --wait\n  \
                  gapctl chat ft:MODEL:mine:… 'How are you?'"
)]
struct Cli {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    command: Command,
}

/// Which appliance, and how it answers.
#[derive(Debug, Args)]
struct To {
    /// The appliance, by the name that `login` gave it
    #[arg(long, short = 'a', global = true, env = "GAPCTL_APPLIANCE", default_value = "default", value_name = "NAME")]
    appliance: String,
    /// Its address instead of the remembered one: https://HOST:PORT
    #[arg(long, global = true, env = "GAPCTL_SERVER", value_name = "URL")]
    server: Option<String>,
    /// SHA-256 of its certificate instead of the remembered one
    #[arg(long, global = true, env = "GAPCTL_FINGERPRINT", value_name = "HEX", conflicts_with = "ca")]
    fingerprint: Option<Fingerprint>,
    /// PEM file of the authorities that vouch for its certificate
    #[arg(long, global = true, env = "GAPCTL_CA", value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// PEM file with the certificate that shows the appliance who this is, where the site wants one
    #[arg(long, global = true, env = "GAPCTL_CERTIFICATE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    certificate: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, global = true, env = "GAPCTL_KEY", value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// Print the API's answer as it is, in JSON; errors as well
    #[arg(long, global = true)]
    json: bool,
}

impl To {
    fn identity(&self) -> Result<Option<Identity>, Failure> {
        match (self.certificate.clone(), self.key.clone()) {
            (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
            (None, None) => Ok(None),
            _ => Err(Failure::usage("a certificate goes with its key", "give both --certificate and --key")),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an appliance known: compare its fingerprint with the console, and keep its token
    #[command(after_help = "Examples:\n  gapctl login https://192.0.2.7:8443\n  \
                            gapctl -a rack4 login rack4 --fingerprint 3f9a…\n\n\
                            The token is asked for, or taken from GAPCTL_TOKEN; it is never an argument.")]
    Login(login::Login),
    /// Become the first admin of an appliance, with the code that its console shows, and keep the token
    #[command(after_help = "Examples:\n  gapctl claim https://192.0.2.7:8443\n\n\
                            The code is asked for, or read from standard input; it is used up then. Where the site \
                            configuration names a token there is nothing to claim: `gapctl login` with that one.")]
    Claim(login::Claim),
    /// Forget an appliance and its token
    Logout,
    /// Show release, trust, layers, network, devices, GPUs
    System,
    /// Say whether it is healthy
    Health,
    /// Show the data volume and what there is for jobs
    Storage,
    /// Show models, data sets and jobs that the release declares
    Declared,
    /// Switch it off
    Poweroff,
    /// Start it again
    Reboot,
    /// Files: training examples and others
    #[command(subcommand, alias = "files")]
    File(file::FileCommand),
    /// Fine-tuning
    #[command(subcommand)]
    Finetune(finetune::FinetuneCommand),
    /// Jobs of every kind
    #[command(subcommand, alias = "jobs")]
    Job(job::JobCommand),
    /// Models
    #[command(subcommand, alias = "models")]
    Model(model::ModelCommand),
    /// Give a model a stable name, if it meets what the release demands
    #[command(after_help = "Examples:\n  gapctl promote MODEL support --evaluation job-…\n  \
                            gapctl promote MODEL support --override 'the old one is broken, measured by hand'")]
    Promote(promote::Promote),
    /// Show which models got stable names, when, and on what grounds
    Promotions(promote::Promotions),
    /// Ask a model; without a text, what comes on standard input
    Chat(chat::Chat),
    /// Have a model continue a text; without one, what comes on standard input
    Complete(chat::Complete),
    /// Print the vector of each text, one JSON array a line
    Embed(embed::Embed),
    /// Tokens of others
    #[command(subcommand, alias = "tokens")]
    Token(access::TokenCommand),
    /// Show who changed what, and check that the record is whole
    Audit(access::AuditArgs),
    /// Work in a terminal inside of an image, confined like any job, for a while; for admins, and recorded
    #[command(after_help = "Examples:\n  gapctl debug train\n  gapctl debug train --model base -- python3\n\n\
                            It ends with its program, after its minutes, or when this connection breaks.")]
    Debug(debug::Debug),
    /// Burn in: memory, disk, ten training steps on every GPU; exits with 4 when something is wrong
    Selftest(selftest::SelfTest),
    /// Write what a supporter needs into one file: no examples, no logs, no names of files
    Diagnose(diagnose::Diagnose),
    /// Send any request of the API; `/openapi.json` describes them
    #[command(after_help = "Examples:\n  gapctl request GET /openapi.json\n  \
                            gapctl request POST /v1/classify --data '{\"model\": \"m\", \"input\": \"x\"}'")]
    Request(raw::Raw),
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the arguments say.
pub fn main() -> ExitCode {
    failure::settle_style();
    let cli = Cli::parse();
    let json = cli.to.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn run(cli: Cli) -> Outcome {
    let to = cli.to;
    match cli.command {
        Command::Login(args) => login::login(&to, args),
        Command::Claim(args) => login::claim(&to, &args),
        Command::Logout => login::logout(&to),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gapctl", &mut script);
            show::text(&String::from_utf8_lossy(&script));
            Ok(())
        }
        command => work(&Session::open(&to)?, command),
    }
}

fn work(session: &Session, command: Command) -> Outcome {
    match command {
        Command::System => system::system(session),
        Command::Health => system::health(session),
        Command::Storage => system::storage(session),
        Command::Declared => system::declared(session),
        Command::Poweroff => system::stop(session, "poweroff", "it switches itself off"),
        Command::Reboot => system::stop(session, "reboot", "it starts again"),
        Command::File(command) => file::run(session, command),
        Command::Finetune(command) => finetune::run(session, command),
        Command::Job(command) => job::run(session, command),
        Command::Model(command) => model::run(session, command),
        Command::Promote(args) => promote::promote(session, &args),
        Command::Promotions(args) => promote::list(session, &args),
        Command::Chat(args) => chat::chat(session, &args),
        Command::Complete(args) => chat::complete(session, &args),
        Command::Embed(args) => embed::embed(session, &args),
        Command::Token(command) => access::run(session, command),
        Command::Audit(args) => access::audit(session, &args),
        Command::Debug(args) => debug::debug(session, &args),
        Command::Selftest(args) => selftest::self_test(session, &args),
        Command::Diagnose(args) => diagnose::diagnose(session, &args),
        Command::Request(args) => raw::request(session, args),
        Command::Login(_) | Command::Claim(_) | Command::Logout | Command::Completions { .. } => Ok(()),
    }
}

/// A connection, and how its answers are shown.
struct Session {
    client: Client,
    json: bool,
}

impl Session {
    fn open(to: &To) -> Result<Self, Failure> {
        let mut profile = match (&to.server, Profile::load(&to.appliance)) {
            (_, Ok(profile)) => profile,
            // Everything may be said without anything being remembered.
            (Some(server), Err(crate::profile::ProfileError::Unknown(_))) => Profile::of(server.clone()),
            (_, Err(error)) => return Err(Report::from(error).into()),
        };
        if let Some(server) = &to.server
            && *server != profile.server
        {
            // What was remembered belongs to another server, its token above all.
            profile = Profile::of(server.clone());
        }
        if let Some(fingerprint) = &to.fingerprint {
            profile = Profile { fingerprint: Some(fingerprint.to_string()), authorities: None, ..profile };
        }
        if let Some(path) = &to.ca {
            profile = Profile { fingerprint: None, authorities: Some(path.clone()), ..profile };
        }
        if let Some(identity) = to.identity()? {
            profile.identity = Some(identity);
        }
        if let Some(token) = token_of_environment() {
            profile.token = Some(token.to_string());
        }
        Ok(Self { client: profile.client().map_err(failure::of_profile)?, json: to.json })
    }

    /// Asks, and shows the answer: as it came, or as `show` does.
    fn show<T: DeserializeOwned>(&self, request: Request, show: impl FnOnce(T)) -> Outcome {
        self.show_answer(&self.client.ask(request)?, show)
    }

    /// Shows an answer: as it came, or as `show` does.
    fn show_answer<T: DeserializeOwned>(&self, answer: &Answer, show: impl FnOnce(T)) -> Outcome {
        if self.json {
            return self.print(answer);
        }
        show(answer.read()?);
        Ok(())
    }

    /// Asks for something that goes on for long: an appliance that does not answer meanwhile is asked again for minutes.
    fn ask_patiently(&self, request: &Request) -> Result<Answer, Failure> {
        let mut has_told = false;
        Ok(patiently(TRIES, || {
            let answer = self.client.ask(request.clone());
            if let Err(error) = &answer
                && error.is_passing()
                && !has_told
            {
                has_told = true;
                eprintln!("{}; it is asked again", show::plain(error.to_string()));
            }
            answer
        })?)
    }

    /// The same for what this program needs itself.
    fn read_patiently<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        Ok(self.ask_patiently(request)?.read()?)
    }

    /// Asks for what this program needs itself.
    fn read<T: DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        Ok(self.client.ask(request)?.read()?)
    }

    /// Prints an answer and ends its line: as it came, or as a terminal may have it where a person reads it there.
    fn print(&self, answer: &Answer) -> Outcome {
        let mut out = io::stdout().lock();
        let bytes = shown(answer.bytes(), !self.json && out.is_terminal());
        let written = out.write_all(&bytes).and_then(|()| match bytes.last() {
            Some(b'\n') | None => Ok(()),
            Some(_) => out.write_all(b"\n"),
        });
        written.and_then(|()| out.flush()).unwrap_or_else(|error| show::given_up(&error));
        Ok(())
    }
}

fn shown(bytes: &[u8], is_for_people: bool) -> Cow<'_, [u8]> {
    if is_for_people { show::plain_lines(&String::from_utf8_lossy(bytes)).into_bytes().into() } else { bytes.into() }
}

/// The token that the environment holds: for programs, which have nobody to type it.
fn token_of_environment() -> Option<Zeroizing<String>> {
    std::env::var("GAPCTL_TOKEN").ok().filter(|token| !token.is_empty()).map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_it_came_but_on_a_terminal() {
        let hostile = b"{\"a\": 1}\n\x1b]52;c;aGk=\x07";
        assert_eq!(shown(hostile, false), hostile.as_slice());
        assert_eq!(shown(hostile, true), "{\"a\": 1}\n\u{fffd}]52;c;aGk=\u{fffd}".as_bytes());
    }
}
