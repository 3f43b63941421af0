//! The command line.

use clap::{Parser, ValueEnum};
use gap_lm::inference::Precision;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Serves language, embedding and classification models over OpenAI's API, from local directories only.
#[derive(Debug, Clone, Parser)]
#[command(name = "gap-serve", version, max_term_width = 100)]
pub struct Options {
    /// A model: a Hugging Face directory or a GGUF file. May be given several times.
    #[arg(long, value_name = "NAME=PATH", required = true)]
    pub model: Vec<ModelOption>,
    /// A LoRA adapter of one of the models, in PEFT's form. May be given several times.
    #[arg(long, value_name = "NAME=BASE:DIR")]
    pub adapter: Vec<AdapterOption>,
    /// Where requests come from: `unix:PATH`, or an address of this machine alone.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub listen: Listen,
    /// How weights are kept in memory.
    #[arg(long, value_enum, default_value_t = Weights::Stored)]
    pub weights: Weights,
    /// Most tokens of prompt and answer together; the model's own limit where nothing is said.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(16..))]
    context: Option<u32>,
    /// Memory for keys and values of each model, like `2GiB`; a quarter of what is free where nothing is said.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub cache: Option<u64>,
    /// Answers that are computed at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    sequences: u16,
    /// Requests that a model takes at once, waiting ones included; more are refused with status 429.
    #[arg(long, value_name = "NUMBER", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=16384))]
    requests: u16,
    /// Threads that compute; one for each core where nothing is said.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Bounds that the command line gave.
impl Options {
    /// Most positions of a sequence, if said.
    pub fn context(&self) -> Option<usize> {
        self.context.map(|context| context as usize)
    }

    /// Sequences that are computed at once.
    pub fn sequences(&self) -> usize {
        usize::from(self.sequences)
    }

    /// Requests that are taken at once.
    pub fn requests(&self) -> usize {
        usize::from(self.requests)
    }
}

/// A model and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOption {
    /// What requests call it.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// An adapter, its name and its base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterOption {
    /// What requests call it.
    pub name: String,
    /// What requests call its base.
    pub base: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// Where requests come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A socket in the file system.
    Unix(PathBuf),
    /// An address of the loopback interface.
    Loopback(SocketAddr),
}

/// How weights are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// As they are stored: 32 or 16 bits; quantised ones with 8 bits.
    Stored,
    /// 32 bits.
    F32,
    /// 16 bits.
    Bf16,
    /// 8 bits and a scale for each 32.
    Q8,
}

impl Weights {
    /// What is asked for, if anything.
    pub const fn precision(self) -> Option<Precision> {
        match self {
            Self::Stored => None,
            Self::F32 => Some(Precision::F32),
            Self::Bf16 => Some(Precision::Bf16),
            Self::Q8 => Some(Precision::Q8),
        }
    }

    /// Its word on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8",
        }
    }
}

impl FromStr for ModelOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = named(text)?;
        Ok(Self { name, path: Path::new(path).to_path_buf() })
    }
}

impl FromStr for AdapterOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = named(text)?;
        let (base, path) = rest.split_once(':').ok_or("it has no colon between base and directory")?;
        Ok(Self { name, base: base.to_owned(), path: Path::new(path).to_path_buf() })
    }
}

fn named(text: &str) -> Result<(String, &str), String> {
    let (name, rest) = text.split_once('=').ok_or("it has no `=` after the name")?;
    if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
        return Err("a name has 1 to 128 letters".to_owned());
    }
    Ok((name.to_owned(), rest))
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let address: SocketAddr =
            text.parse().map_err(|_| "it is neither `unix:PATH` nor `ADDRESS:PORT`".to_owned())?;
        if address.ip().is_loopback() {
            Ok(Self::Loopback(address))
        } else {
            Err("other machines could reach it, and this server knows no passwords; put one that does before it"
                .to_owned())
        }
    }
}

fn size(text: &str) -> Result<u64, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err("units are KiB, MiB, GiB and TiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "it does not begin with a number".to_owned())?;
    number.checked_mul(factor).filter(|size| *size > 0).ok_or_else(|| "it is zero or too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_can_be_listened_to() {
        assert_eq!("unix:/run/x.sock".parse(), Ok(Listen::Unix("/run/x.sock".into())));
        assert!(matches!("127.0.0.1:80".parse(), Ok(Listen::Loopback(_))));
        assert!(matches!("[::1]:80".parse(), Ok(Listen::Loopback(_))));
        for refused in ["0.0.0.0:80", "10.0.0.1:80", "[::]:80", "localhost:80"] {
            assert!(refused.parse::<Listen>().is_err(), "{refused}");
        }
    }

    #[test]
    fn names_and_paths_are_taken_apart() {
        let adapter: AdapterOption = "mine=base:/a:b".parse().unwrap();
        assert_eq!(
            (adapter.name.as_str(), adapter.base.as_str(), adapter.path.to_str().unwrap()),
            ("mine", "base", "/a:b")
        );
        assert!("=x".parse::<ModelOption>().is_err());
        assert!("x".parse::<ModelOption>().is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("512"), Ok(512));
        for wrong in ["", "GiB", "1GB", "0", "99999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
