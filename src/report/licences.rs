//! The licence report: which packages of a release are under which licence, those that nobody knows anything about first.

use super::{
    components::Component,
    origins::{BOOT, Origins},
};
use crate::source::licence::is_reference;
use gap_format::escape::escaped;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Media type of the report, and type of the artifact that carries it.
pub const MEDIA_TYPE: &str = "application/vnd.gapimage.licenses.v1+json";
/// The version of the format.
const VERSION: u32 = 1;
/// Stands where a licence is not known, as in SPDX.
const UNKNOWN: &str = "NOASSERTION";

/// A report, as it is written and read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    version: u32,
    name: String,
    release: String,
    licenses: Vec<Row>,
}

/// One licence: a condition that its packages ask to be kept, maybe beside others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    standing: Standing,
    license: String,
    packages: Vec<Package>,
}

/// How much is known of a licence; the order is that of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    /// Nobody says.
    Unknown,
    /// It has a name that SPDX does not know: somebody has to read it.
    Review,
    /// SPDX knows it.
    Listed,
}

/// A package under a licence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Package {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    /// The images that hold it, and the name of what the firmware starts.
    r#in: BTreeSet<String>,
}

/// Why bytes are no report; the text is escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReportError {
    /// They are not of this form.
    #[error("{0}")]
    Form(String),
    /// They are of a later one.
    #[error("its version is {0}, and this program knows version {VERSION}")]
    Version(u32),
}

/// The report about everything that is in an image or in what the firmware starts.
pub fn report(origins: &Origins<'_>) -> Vec<u8> {
    let images = origins.recipe.images.iter().enumerate();
    let mut places: Vec<_> = images.map(|(number, image)| (image.name.clone(), origins.of_image(number))).collect();
    places.push((BOOT.to_owned(), origins.of_boot()));
    let mut rows = BTreeMap::new();
    for (place, sources) in &places {
        let components = sources.iter().flat_map(|source| &source.components);
        for component in components.filter(|component| component.role.is_in_layer()) {
            add(component, place, &mut rows);
        }
    }
    let licenses =
        rows.into_iter().map(|((standing, license), packages): ((Standing, String), BTreeMap<_, Package>)| {
            let mut packages: Vec<Package> = packages.into_values().collect();
            packages.sort();
            Row { standing, license, packages }
        });
    let report = Report {
        version: VERSION,
        name: origins.release.name.clone(),
        release: origins.release.version.clone(),
        licenses: licenses.collect(),
    };
    // Strings, numbers and lists of them only, so nothing can fail.
    serde_json::to_vec(&report).unwrap_or_default()
}

/// Packages of one licence by the identifier of their component.
type Rows = BTreeMap<(Standing, String), BTreeMap<String, Package>>;

fn add(component: &Component, place: &str, rows: &mut Rows) {
    let nothing = component.licence.is_unknown().then_some(UNKNOWN);
    for condition in component.licence.conditions().chain(nothing) {
        let packages = rows.entry((standing(condition), condition.to_owned())).or_default();
        let package = packages.entry(component.id.as_str().to_owned()).or_insert_with(|| Package {
            name: component.name.clone(),
            version: component.version.clone(),
            purl: component.purl.as_ref().map(ToString::to_string),
            r#in: BTreeSet::new(),
        });
        package.r#in.insert(place.to_owned());
    }
}

fn standing(condition: &str) -> Standing {
    match condition {
        UNKNOWN => Standing::Unknown,
        _ if condition.split([' ', '(', ')']).any(is_reference) => Standing::Review,
        _ => Standing::Listed,
    }
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// [`ParseReportError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseReportError> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let form = |error: serde_json::Error| ParseReportError::Form(escaped(&error.to_string()));
        let Versioned { version } = serde_json::from_slice(bytes).map_err(form)?;
        if version != VERSION {
            return Err(ParseReportError::Version(version));
        }
        serde_json::from_slice(bytes).map_err(form)
    }
}

/// A table with one line for each package of each licence, escaped.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<[String; 4]> = self.licenses.iter().flat_map(Row::lines).collect();
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let [licences, names, versions] = [width(0), width(1), width(2)];
        for [licence, name, version, place] in &lines {
            writeln!(f, "{licence:<licences$}  {name:<names$}  {version:<versions$}  {place}")?;
        }
        Ok(())
    }
}

impl Row {
    fn lines(&self) -> impl Iterator<Item = [String; 4]> {
        let licence = match self.standing {
            Standing::Unknown => "unknown".to_owned(),
            _ => escaped(&self.license),
        };
        self.packages.iter().map(move |package| {
            let places: Vec<String> = package.r#in.iter().map(|place| escaped(place)).collect();
            let version = package.version.as_deref().map(escaped).unwrap_or_default();
            [licence.clone(), escaped(&package.name), version, places.join(",")]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Report {
        Report::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_standing_of_a_licence_is_that_of_its_least_known_part() {
        assert_eq!(standing("MIT OR Apache-2.0"), Standing::Listed);
        assert_eq!(standing("Apache-2.0 WITH LLVM-exception"), Standing::Listed);
        assert_eq!(standing("MIT OR LicenseRef-debian-copyright"), Standing::Review);
        assert_eq!(standing("(LicenseRef-a AND MIT) OR ISC"), Standing::Review);
        assert_eq!(standing(UNKNOWN), Standing::Unknown);
    }

    #[test]
    fn the_table_is_escaped_and_keeps_the_order() {
        let report = parsed(
            r#"{"version":1,"name":"a","release":"1","licenses":[
            {"standing":"unknown","license":"NOASSERTION","packages":[{"name":"gapd","in":["os","ESP"]}]},
            {"standing":"listed","license":"MIT\u001b[2J","packages":[{"name":"x","version":"1\n2","in":["os"]}]}]}"#,
        );
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("unknown ") && lines[0].ends_with("ESP,os"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn other_versions_and_forms_are_refused() {
        let refused = Report::parse(br#"{"version":2}"#).unwrap_err();
        assert_eq!(refused, ParseReportError::Version(2));
        for text in ["", "[]", r#"{"version":1}"#, "{\"version\":1,\"licenses\":[{\"\u{1b}\":1}]}"] {
            let Err(ParseReportError::Form(said)) = Report::parse(text.as_bytes()) else { panic!("{text}") };
            assert!(!said.contains('\u{1b}'), "{said}");
        }
    }
}
