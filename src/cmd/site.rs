//! `gapimage site`: what the owner of a machine decides, written down so that the machine takes it.

use super::{
    Outcome,
    failure::{Failure, failed},
    new_file::write_new,
    sign::load_key,
    terminal::line,
    verify::load_trust,
};
use crate::{boot::site::volume, random};
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use ed25519_dalek::SigningKey;
use gap_format::{Digest, key::KeyId};
use gap_handover::site::{
    self, All, Api, Cut, CutDevices, Data, EndpointName, FILE_NAME, Gpus, Network, Rtc, SiteAddress, SiteConfig, Time,
    Tls, VOLUME_LABEL, WrongClock, accept,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::Write,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

/// Name of the file with the token that was made.
const TOKEN: &str = "token";
/// Name of the volume.
const VOLUME: &str = "gapsite.img";

/// What is done with site configurations.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// Write the configuration of a machine, a token for its API, and the volume that carries the configuration to it
    #[command(after_help = "Examples:\n  gapimage site init rack4 --hostname rack4 --network dhcp\n  \
                            gapimage site init rack4 --network static --address 192.0.2.7/24 --gateway 192.0.2.1\n  \
                            gapimage site init rack4 --network dhcp --claim --mig all:1g.18gb=4,3g.71gb=1\n  \
                            dd if=rack4/gapsite.img of=/dev/sdX bs=1M conv=fsync\n\n\
                            The token is in rack4/token and nowhere else: the configuration holds its hash.")]
    Init(Box<Init>),
    /// Say whether a machine will take a configuration
    #[command(after_help = "Examples:\n  gapimage site check rack4/site.toml\n  \
                            gapimage site check rack4/site.toml --trust keys/trust.toml")]
    Check {
        /// The configuration
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The trust file of the machine's release, which may ask for signatures
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        trust: Option<PathBuf>,
    },
    /// Sign a configuration for machines whose release asks for that
    #[command(after_help = "Example:\n  gapimage site sign rack4/site.toml --key keys/site.key\n\n\
                            The signature becomes the last line of the file. A volume that was made of it before has to \
                            be made again.")]
    Sign {
        /// The configuration
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Private key of somebody with the role `site` in the trust file of the release
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        key: PathBuf,
    },
    /// Print the JSON Schema of site configurations
    Schema,
    /// Make the volume of a configuration that was changed by hand
    #[command(after_help = "Example:\n  gapimage site volume rack4/site.toml -o gapsite.img")]
    Volume {
        /// The configuration
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The volume to write; none is overwritten
        #[arg(short, long, value_name = "FILE", default_value = VOLUME)]
        output: PathBuf,
    },
}

/// How a machine gets its address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Not at all: the API answers on the machine itself alone
    #[default]
    None,
    /// From a server
    Dhcp,
    /// It is said here
    Static,
}

/// What is done about jobs while the clock is not known to be right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum WrongTime {
    /// They are taken and run
    #[default]
    Continue,
    /// They are taken, and wait until it is right
    Wait,
    /// None is taken until it is right
    RefuseJobs,
}

/// What is decided.
#[derive(Debug, Args)]
pub struct Init {
    /// Directory for site.toml, token and gapsite.img; none of them is ever overwritten
    #[arg(value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Name of the machine
    #[arg(long)]
    hostname: Option<String>,
    /// The disk for its data: its name in the kernel, or its serial number [default: one that is empty]
    #[arg(long, value_name = "DISK")]
    disk: Option<String>,
    /// No disk for its data: everything is forgotten at power-off
    #[arg(long, conflicts_with = "disk")]
    memory: bool,
    /// Make no token: the first admin claims the machine with the code that its console shows
    #[arg(long)]
    claim: bool,
    /// How it gets its address
    #[arg(long, value_enum, default_value_t)]
    network: Mode,
    /// Its address with the length of the prefix
    #[arg(long, value_name = "ADDRESS/PREFIX", value_parser = address, required_if_eq("network", "static"))]
    address: Option<(Ipv4Addr, u8)>,
    /// The router
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    gateway: Option<Ipv4Addr>,
    /// A name server; may be given several times
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    dns: Vec<IpAddr>,
    /// The interface, where there are several
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Port of the API [default: 8443]
    #[arg(long)]
    port: Option<u16>,
    /// PEM file with the certificate of the API and those between it and its authority
    #[arg(long, value_name = "FILE", requires = "key", value_hint = ValueHint::FilePath)]
    certificate: Option<PathBuf>,
    /// PEM file with its private key (PKCS#8)
    #[arg(long, value_name = "FILE", requires = "certificate", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// A time server of the site, by its IPv4 address; may be given several times. None is asked without
    #[arg(long, value_name = "ADDRESS")]
    time_server: Vec<Ipv4Addr>,
    /// Believe the time servers alone: the clock on the machine's board counts as wrong until one has answered
    #[arg(long, requires = "time_server")]
    untrusted_rtc: bool,
    /// What is done about jobs while the clock is not known to be right
    #[arg(long, value_enum, default_value_t)]
    wrong_clock: WrongTime,
    /// How GPUs are cut into slices (MIG): `all` or their numbers, and how many slices of each profile, or `off`; may be given
    /// several times, of which the last one counts that concerns a GPU
    #[arg(long, value_name = "GPUS:PROFILE=COUNT,…", value_parser = cut)]
    mig: Vec<Cut>,
    /// A service of the site that declared jobs may be let to reach; may be given several times
    #[arg(long, value_name = "NAME=ADDRESS:PORT", value_parser = endpoint)]
    endpoint: Vec<(EndpointName, SiteAddress)>,
    /// Private key with which the configuration is signed, where the release asks for that
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    sign_key: Option<PathBuf>,
    /// PEM file of authorities: the API then listens only to clients with a certificate of theirs
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    client_ca: Option<PathBuf>,
}

/// Runs one of them.
pub fn run(command: SiteCommand) -> Outcome {
    match command {
        SiteCommand::Init(init) => self::init(&init),
        SiteCommand::Check { file, trust } => check(&file, trust.as_deref()),
        SiteCommand::Sign { file, key } => sign(&file, &load_key(&key)?),
        SiteCommand::Schema => {
            let schema = serde_json::to_string_pretty(&gap_handover::site::schema());
            line(format_args!("{}", schema.map_err(|error| Failure::could_not_run(error, "try again"))?))
        }
        SiteCommand::Volume { file, output } => {
            let text = read(&file)?;
            write_volume(&output, &text)
        }
    }
}

fn init(init: &Init) -> Outcome {
    let paths = [FILE_NAME, TOKEN, VOLUME].map(|name| init.dir.join(name));
    if let Some(path) = paths.iter().find(|path| path.exists()) {
        let message = format!("`{}` exists already", path.display());
        return Err(Failure::could_not_run(message, "nothing is overwritten: name another directory"));
    }
    let [config_path, token_path, volume_path] = paths;
    let token = match init.claim {
        true => None,
        false => Some(random::token().map_err(failed("making a token"))?),
    };
    let config = SiteConfig {
        hostname: init.hostname.clone(),
        network: network(init)?,
        tls: certificate(init)?,
        api: Api {
            port: init.port,
            token_sha256: token.as_ref().map(|token| Digest::of(token.as_bytes()).to_hex()),
            client_authorities: init.client_ca.as_deref().map(authorities).transpose()?,
        },
        data: Data { disk: init.disk.clone(), memory: init.memory },
        time: Time {
            rtc: if init.untrusted_rtc { Rtc::Untrusted } else { Rtc::Trusted },
            servers: init.time_server.clone(),
            wrong_clock: match init.wrong_clock {
                WrongTime::Continue => WrongClock::Continue,
                WrongTime::Wait => WrongClock::Wait,
                WrongTime::RefuseJobs => WrongClock::RefuseJobs,
            },
        },
        endpoints: init.endpoint.iter().cloned().collect(),
        gpus: Gpus { mig: init.mig.clone() },
    };
    let text = toml::to_string(&config).map(Zeroizing::new);
    let text =
        text.map_err(|error| Failure::could_not_run(format!("writing the configuration: {error}"), "try again"))?;
    checked(&text)?;
    let text = match &init.sign_key {
        Some(key) => signed(&text, &load_key(key)?)?,
        None => text,
    };
    let making = format!("making the directory `{}`", init.dir.display());
    DirBuilder::new().recursive(true).mode(0o700).create(&init.dir).map_err(failed(making))?;
    // Both hold secrets: the token, and the certificate's key where the site has one.
    let token = token.as_ref().map(|token| (&token_path, token.as_bytes()));
    for (path, bytes) in [(&config_path, text.as_bytes())].into_iter().chain(token) {
        write_new(path, bytes, 0o600).map_err(failed(format!("writing `{}`", path.display())))?;
    }
    line(format_args!("configuration  {}", config_path.display()))?;
    match token {
        Some((path, _)) => {
            line(format_args!("token          {} (mode 0600; it opens the API, as an admin)", path.display()))
        }
        None => {
            line(format_args!("token          none: `gapctl claim` with the code on the console makes the first one"))
        }
    }?;
    write_volume(&volume_path, &text)
}

fn write_volume(path: &Path, text: &str) -> Outcome {
    let bytes = volume(text).map_err(failed("making the volume"))?;
    write_new(path, &bytes, 0o600).map_err(failed(format!("writing `{}`", path.display())))?;
    line(format_args!(
        "volume         {} (labelled {VOLUME_LABEL}: write it to a stick, a small partition or a virtual disk)",
        path.display()
    ))
}

fn check(file: &Path, trust: Option<&Path>) -> Outcome {
    let text = read(file)?;
    let Some(trust) = trust else {
        return line(format_args!("{}: a machine takes it, if its release asks for no signature", file.display()));
    };
    let advice = "`gapimage site sign` signs it; the trust file says whose keys have the role `site`";
    let (_, signers) = accept(&text, &load_trust(trust)?).map_err(|error| Failure::wanting(error, advice))?;
    let names: Vec<String> = signers.into_iter().map(|signer| signer.name).collect();
    match names.is_empty() {
        true => line(format_args!("{}: a machine takes it; the release asks for no signature", file.display())),
        false => line(format_args!("{}: a machine takes it, signed by {}", file.display(), names.join(", "))),
    }
}

/// Signs a file in place: the whole new file, or the old one.
fn sign(file: &Path, key: &SigningKey) -> Outcome {
    let text = signed(&read(file)?, key)?;
    let writing = || format!("writing `{}`", file.display());
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = NamedTempFile::new_in(directory).map_err(failed(writing()))?;
    new.write_all(text.as_bytes()).and_then(|()| new.as_file().sync_all()).map_err(failed(writing()))?;
    new.persist(file).map_err(|error| failed(writing())(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(writing()))?;
    line(format_args!("signed         {} with key {}", file.display(), KeyId::of(&key.verifying_key())))
}

fn signed(text: &str, key: &SigningKey) -> Result<Zeroizing<String>, Failure> {
    let advice = "signatures are the last lines of the file, as `gapimage site sign` writes them: remove others";
    site::sign(text, key).map(Zeroizing::new).map_err(|error| Failure::wanting(error, advice))
}

/// An endpoint as it is written on the command line.
fn endpoint(text: &str) -> Result<(EndpointName, SiteAddress), String> {
    let (name, address) = text.split_once('=').ok_or("it is NAME=ADDRESS:PORT")?;
    Ok((name.parse()?, address.parse()?))
}

/// How GPUs are cut, as it is written on the command line. What fits together is checked with the whole configuration.
fn cut(text: &str) -> Result<Cut, String> {
    let (gpus, slices) = text.split_once(':').ok_or("it is GPUS:PROFILE=COUNT,… or GPUS:off")?;
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number of a GPU, nor `all`"));
    let devices = match gpus {
        "all" => CutDevices::Word(All::All),
        numbers => CutDevices::Numbers(numbers.split(',').map(number).collect::<Result<_, _>>()?),
    };
    let slice = |text: &str| {
        let (profile, count) = text.split_once('=').ok_or_else(|| format!("`{text}` is not PROFILE=COUNT"))?;
        let count = count.parse().map_err(|_| format!("`{count}` is no number of slices"))?;
        Ok::<_, String>((profile.parse()?, count))
    };
    let mig_devices = match slices {
        "off" => BTreeMap::new(),
        slices => slices.split(',').map(slice).collect::<Result<_, _>>()?,
    };
    Ok(Cut { devices, mig_enabled: slices != "off", mig_devices })
}

/// A configuration that a machine takes.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = fs::read_to_string(path).map_err(failed(format!("reading `{}`", path.display())))?;
    checked(&text)?;
    Ok(Zeroizing::new(text))
}

fn checked(text: &str) -> Outcome {
    let advice = "docs/appliance.md lists everything that it can say; an unknown word makes a machine ignore all of it";
    SiteConfig::parse(text).map(drop).map_err(|error| Failure::wanting(error, advice))
}

fn network(init: &Init) -> Result<Network, Failure> {
    let interface = init.interface.clone();
    match (init.network, init.address) {
        (Mode::None, None) if interface.is_none() => Ok(Network::None),
        (Mode::Dhcp, None) => Ok(Network::Dhcp { interface }),
        (Mode::Static, Some((address, prefix))) => {
            Ok(Network::Static { interface, address, prefix, gateway: init.gateway, dns: init.dns.clone() })
        }
        _ => Err(Failure::usage(
            "an address goes with --network static, an interface with --network dhcp or static",
            "say how the machine gets its address",
        )),
    }
}

fn certificate(init: &Init) -> Result<Option<Tls>, Failure> {
    let (Some(certificate), Some(key)) = (&init.certificate, &init.key) else { return Ok(None) };
    let tls = Tls { certificate: contents(certificate)?, key: contents(key)? };
    usable(&tls).map_err(|reason| {
        Failure::wanting(
            format!("the certificate in `{}` with the key in `{}`: {reason}", certificate.display(), key.display()),
            "both are PEM, the key PKCS#8 and not encrypted: `openssl pkcs8 -topk8 -nocrypt` makes that of another form",
        )
    })?;
    Ok(Some(tls))
}

fn contents(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(failed(format!("reading `{}`", path.display())))
}

/// The certificates in a file, each of which can be an authority.
fn authorities(path: &Path) -> Result<String, Failure> {
    let text = contents(path)?;
    let mut roots = rustls::RootCertStore::empty();
    let added: Result<(), String> = CertificateDer::pem_slice_iter(text.as_bytes()).try_for_each(|certificate| {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    });
    let found = added.and_then(|()| if roots.is_empty() { Err("there are none".to_owned()) } else { Ok(text) });
    found.map_err(|reason| {
        let message = format!("the authorities in `{}`: {reason}", path.display());
        Failure::wanting(message, "the file holds certificates in PEM")
    })
}

/// Whether the two can be used together: what the machine would find out too late.
fn usable(tls: &Tls) -> Result<(), String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(tls.certificate.as_bytes()).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).map_err(|error| error.to_string())?;
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, key, &provider).map(drop).map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let wrong = || "write it as 192.0.2.7/24".to_owned();
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32);
    Ok((address.parse().map_err(|_| wrong())?, prefix.ok_or_else(wrong)?))
}
