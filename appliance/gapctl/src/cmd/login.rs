//! `gapctl login`, `gapctl claim` and `gapctl logout`.

use super::{Failure, Outcome, To, failure::of_profile, show, token_of_environment};
use crate::{
    client::{Client, Identity, Request},
    profile::Profile,
};
use clap::Args;
use miette::Report;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// What `login` is told.
#[derive(Debug, Args)]
pub struct Login {
    /// https://HOST:PORT, or HOST alone for port 8443
    address: String,
}

/// What `claim` is told.
#[derive(Debug, Args)]
pub struct Claim {
    /// https://HOST:PORT, or HOST alone for port 8443
    address: String,
    /// Name of the token, in the record of changes
    #[arg(long, default_value = "first")]
    name: String,
}

/// A token that was made for the first admin.
#[derive(Deserialize)]
struct Claimed {
    token: String,
}

pub fn login(to: &To, args: Login) -> Outcome {
    let mut profile = recognised(to, &args.address)?;
    profile.token = Some(token()?.to_string());
    remember(to, &profile)
}

pub fn claim(to: &To, args: &Claim) -> Outcome {
    let mut profile = recognised(to, &args.address)?;
    // Whether it can be remembered is seen before the code is used up.
    Profile::try_place(&to.appliance).map_err(Report::from)?;
    let code = typed("Code on the console: ", "type the code of the console, or pipe it in")?;
    let wanted = Request::post_json(&["v1", "appliance", "claim"], &json!({"code": *code, "name": args.name}))?;
    let claimed: Claimed = profile.client().map_err(of_profile)?.ask(wanted)?.read()?;
    let token = Zeroizing::new(claimed.token);
    profile.token = Some(token.to_string());
    remember(to, &profile).inspect_err(|_| {
        let token = Zeroizing::new(show::plain(token.to_string()));
        eprintln!("the admin's token, which nobody else knows: {}", *token);
    })
}

/// The server at this address, once it is certain which one that is.
fn recognised(to: &To, address: &str) -> Result<Profile, Failure> {
    let mut profile = match (&to.ca, &to.fingerprint) {
        (Some(path), _) => Profile { authorities: Some(whole(path)?), ..Profile::of(String::new()) },
        (None, Some(fingerprint)) => Profile::pinned(String::new(), *fingerprint),
        (None, None) => Profile::pinned(String::new(), confirmed(address)?),
    };
    profile.server = Client::new(address, &profile.trust().map_err(of_profile)?, None, None)?.server();
    if let Some(Identity { certificate, key }) = to.identity()? {
        profile.identity = Some(Identity { certificate: whole(&certificate)?, key: whole(&key)? });
    }
    Ok(profile)
}

/// Keeps what was found, if the server takes it.
fn remember(to: &To, profile: &Profile) -> Outcome {
    // Whatever is wrong shows now, and not at the first work.
    let client = profile.client().map_err(of_profile)?;
    let system: Value = client.ask(Request::get(&["v1", "system"]))?.read()?;
    let path = profile.store(&to.appliance).map_err(Report::from)?;
    let text = |pointer: &str| system.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
    if to.json {
        let shown = json!({"appliance": to.appliance, "server": profile.server, "hostname": text("/hostname")});
        show::line(show::json_line(&shown));
    } else {
        let shown = format!("{}: {} {}", text("/hostname"), text("/release/name"), text("/release/version"));
        show::line(show::plain(shown));
        show::line(format!("remembered as `{}` in {}", to.appliance, path.display()));
    }
    Ok(())
}

/// Where a file is, whatever directory the next command is given in.
fn whole(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::could_not(error, "name it by its whole path"))
}

/// The fingerprint that the server shows, once somebody has compared it.
fn confirmed(address: &str) -> Result<crate::client::Fingerprint, Failure> {
    let shown = Client::fingerprint(address)?;
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            format!("the server shows the certificate {shown}, and nobody is there to compare it"),
            "give the fingerprint of the console by --fingerprint, or the site's authorities by --ca",
        ));
    }
    eprintln!("The server shows the certificate\n\n    {shown}\n\nIts console shows the same line when it is the one.");
    eprint!("Is it the same? [y/N] ");
    let mut answer = String::new();
    let read = io::stderr().flush().and_then(|()| io::stdin().read_line(&mut answer));
    read.map_err(|error| Failure::could_not(error, "give the fingerprint by --fingerprint"))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(shown)
    } else {
        Err(Failure::NotTrusted(miette::miette!(
            help = "if the console shows another one, somebody else answers at this address",
            "the certificate was not confirmed"
        )))
    }
}

fn token() -> Result<Zeroizing<String>, Failure> {
    if let Some(token) = token_of_environment() {
        return Ok(token);
    }
    typed("Token: ", "type the token, pipe it in, or set GAPCTL_TOKEN")
}

/// What somebody types unseen, or a program pipes in.
fn typed(prompt: &str, advice: &str) -> Result<Zeroizing<String>, Failure> {
    let read = if io::stdin().is_terminal() {
        rpassword::prompt_password(prompt)
    } else {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    };
    let read = read.map(Zeroizing::new).map_err(|error| Failure::could_not(error, advice))?;
    let text = Zeroizing::new(read.trim().to_owned());
    if text.is_empty() { Err(Failure::usage("nothing was typed", advice)) } else { Ok(text) }
}

pub fn logout(to: &To) -> Outcome {
    Profile::forget(&to.appliance).map_err(Report::from)?;
    Ok(())
}
