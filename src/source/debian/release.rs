//! `InRelease` files: what an archive's suite consists of, signed (Debian repository format).

use super::{
    deb822::{self, Deb822Error},
    openpgp::{ClearSigned, Keyring, SignatureError, date},
    packages::is_confined,
};
use gap_format::Digest;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Largest `InRelease` read; Debian's have 200 KB.
pub const RELEASE_MAX: u64 = 16 << 20;

/// A file that the release vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleaseFile {
    /// Digest of the file.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What a verified `InRelease` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Such as `stable`.
    pub suite: String,
    /// Such as `trixie`.
    pub codename: String,
    /// When it was made.
    pub date: Timestamp,
    /// Until when it may be used, if it says so.
    pub valid_until: Option<Timestamp>,
    /// Whether its packages are installed only when asked for, as of backports.
    pub not_automatic: bool,
    /// Whether files can be fetched by digest, which spares races with the archive's next update.
    pub by_hash: bool,
    /// Whether the index of an architecture leaves out the packages of architecture `all`.
    pub separate_all: bool,
    /// The files by path below the suite's directory.
    pub files: BTreeMap<String, ReleaseFile>,
    /// Fingerprint of the key whose signature was checked.
    pub signed_by: String,
}

/// Why an `InRelease` is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Its signature does not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is not deb822.
    #[error(transparent)]
    Syntax(#[from] Deb822Error),
    /// A field is missing or malformed.
    #[error("field {0} is missing or malformed")]
    Field(&'static str),
    /// It is not UTF-8.
    #[error("it is not text in UTF-8")]
    NotText,
    /// It is too old to be used.
    #[error("it was valid until {until} and it is {now} now; the mirror is out of date, use another one")]
    Expired {
        /// `Valid-Until`.
        until: String,
        /// The verifier's date.
        now: String,
    },
    /// It lies in the future.
    #[error("it was made on {date} and it is {now} now; is the clock right?")]
    Future {
        /// `Date`.
        date: String,
        /// The verifier's date.
        now: String,
    },
    /// It describes another suite than the one asked for.
    #[error("it describes {found}, not {wanted}: the mirror serves another suite under that name")]
    OtherSuite {
        /// What was asked for.
        wanted: String,
        /// `Suite` and `Codename`.
        found: String,
    },
}

/// What an `InRelease` must satisfy.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// The suite or codename that was asked for.
    pub suite: &'a str,
    /// The verifier's time.
    pub now: Timestamp,
    /// Whether a release past its `Valid-Until` is taken (snapshots of the past).
    pub accept_expired: bool,
}

impl Release {
    /// Verifies the signature, then reads what was signed and nothing else.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn verify(data: &[u8], keyring: &Keyring, expectation: &Expectation<'_>) -> Result<Self, ReleaseError> {
        let message = str::from_utf8(data).map_err(|_| ReleaseError::NotText)?;
        let (text, signed_by) = ClearSigned::parse(message)?.verify(keyring, expectation.now.as_second())?;
        let release = Self::parse(&text, signed_by)?;
        release.check(expectation)?;
        Ok(release)
    }

    fn parse(text: &str, signed_by: String) -> Result<Self, ReleaseError> {
        let paragraphs = deb822::parse(text)?;
        let [paragraph] = paragraphs.as_slice() else { return Err(ReleaseError::Field("(one paragraph)")) };
        let text_of = |name| paragraph.get(name).unwrap_or_default();
        let words = |name| text_of(name).split_ascii_whitespace();
        let time = |name: &'static str| match paragraph.get(name) {
            Some(text) => parse_date(text).map(Some).ok_or(ReleaseError::Field(name)),
            None => Ok(None),
        };
        Ok(Self {
            suite: text_of("Suite").to_owned(),
            codename: text_of("Codename").to_owned(),
            date: time("Date")?.ok_or(ReleaseError::Field("Date"))?,
            valid_until: time("Valid-Until")?,
            not_automatic: text_of("NotAutomatic") == "yes",
            by_hash: text_of("Acquire-By-Hash") == "yes",
            separate_all: words("Architectures").any(|arch| arch == "all")
                && !words("No-Support-for-Architecture-all").any(|index| index == "Packages"),
            files: parse_files(paragraph.get("SHA256").ok_or(ReleaseError::Field("SHA256"))?)?,
            signed_by,
        })
    }

    fn check(&self, expectation: &Expectation<'_>) -> Result<(), ReleaseError> {
        let now = expectation.now;
        let day = |time: Timestamp| date(time.as_second());
        if self.date.as_second() > now.as_second() + 24 * 3600 {
            return Err(ReleaseError::Future { date: day(self.date), now: day(now) });
        }
        if let Some(until) = self.valid_until.filter(|&until| now > until && !expectation.accept_expired) {
            return Err(ReleaseError::Expired { until: day(until), now: day(now) });
        }
        let wanted = expectation.suite;
        if wanted != self.suite && wanted != self.codename {
            let found = format!("suite {:?} with codename {:?}", self.suite, self.codename);
            return Err(ReleaseError::OtherSuite { wanted: wanted.to_owned(), found });
        }
        Ok(())
    }
}

/// `Sat, 12 Sep 2026 07:55:41 UTC`: RFC 2822 with another spelling of the zone.
fn parse_date(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |rest| format!("{rest}+0000"));
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(&text).ok()
}

fn parse_files(list: &str) -> Result<BTreeMap<String, ReleaseFile>, ReleaseError> {
    let mut files = BTreeMap::new();
    for line in list.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_ascii_whitespace();
        let entry = (|| {
            let sha256 = Digest::from_hex(words.next()?).ok()?;
            let size = words.next()?.parse().ok()?;
            let path = words.next().filter(|path| is_confined(path))?;
            Some((path.to_owned(), ReleaseFile { sha256, size }))
        })();
        let (path, file) = entry.filter(|_| words.next().is_none()).ok_or(ReleaseError::Field("SHA256"))?;
        if files.insert(path, file).is_some_and(|other| other != file) {
            return Err(ReleaseError::Field("SHA256"));
        }
    }
    Ok(files)
}
