//! SPDX 2.3 in JSON: the part of the format that a bill of materials needs (SPDX 2.3, clauses 6, 7, 10, 11).

use gap_format::Digest;
use serde::Serialize;

/// Nothing is claimed.
pub const NO_ASSERTION: &str = "NOASSERTION";
/// The identifier of a document.
pub const DOCUMENT: &str = "SPDXRef-DOCUMENT";
/// The version of the format.
pub const VERSION: &str = "SPDX-2.3";

/// A document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    pub spdx_version: &'static str,
    pub data_license: &'static str,
    #[serde(rename = "SPDXID")]
    pub id: &'static str,
    pub name: String,
    pub document_namespace: String,
    pub creation_info: CreationInfo,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub has_extracted_licensing_infos: Vec<ExtractedLicence>,
    pub packages: Vec<Package>,
    pub relationships: Vec<Relationship>,
}

/// Who made a document and when.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreationInfo {
    pub created: String,
    pub creators: Vec<String>,
    pub license_list_version: String,
}

/// A licence that is not on SPDX' list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtractedLicence {
    pub license_id: String,
    pub extracted_text: String,
}

/// A package: anything that is distributed as one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    #[serde(rename = "SPDXID")]
    pub id: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_file_name: Option<String>,
    pub supplier: &'static str,
    pub download_location: &'static str,
    pub files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_info: Option<String>,
    pub license_concluded: &'static str,
    pub license_declared: String,
    pub copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_refs: Vec<ExternalRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_package_purpose: Option<&'static str>,
}

/// A checksum.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checksum {
    pub algorithm: &'static str,
    pub checksum_value: String,
}

/// By which name something is known elsewhere.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRef {
    pub reference_category: &'static str,
    pub reference_type: &'static str,
    pub reference_locator: String,
}

/// What one element has to do with another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Relationship {
    pub spdx_element_id: String,
    pub relationship_type: &'static str,
    pub related_spdx_element: String,
}

impl Package {
    /// A package of which nothing is known but its name.
    pub fn new(id: String, name: String) -> Self {
        Self {
            id,
            name,
            version_info: None,
            package_file_name: None,
            supplier: NO_ASSERTION,
            download_location: NO_ASSERTION,
            files_analyzed: false,
            checksums: Vec::new(),
            source_info: None,
            license_concluded: NO_ASSERTION,
            license_declared: NO_ASSERTION.to_owned(),
            copyright_text: NO_ASSERTION,
            external_refs: Vec::new(),
            primary_package_purpose: None,
        }
    }
}

impl Checksum {
    /// A SHA-256.
    pub fn sha256(digest: &Digest) -> Self {
        Self { algorithm: "SHA256", checksum_value: digest.to_hex() }
    }
}

impl ExternalRef {
    /// A package URL.
    pub fn purl(locator: String) -> Self {
        Self { reference_category: "PACKAGE-MANAGER", reference_type: "purl", reference_locator: locator }
    }
}

impl Relationship {
    /// `from` KIND `to`.
    pub fn new(from: &str, kind: &'static str, to: &str) -> Self {
        Self { spdx_element_id: from.to_owned(), relationship_type: kind, related_spdx_element: to.to_owned() }
    }
}
