//! Data sets and the files that they were prepared from.

use super::{Component, ComponentId, Pin, Role};
use crate::{
    recipe::{DatasetLayer, DatasetSource},
    source::{
        dataset::{LockedDataFile, LockedDataset, LockedRepository},
        licence::Licence,
    },
};
use gap_format::Digest;
use sha2::{Digest as _, Sha256};

/// The data set `name` as it was prepared, and each of its files.
pub(super) fn components(name: &str, layer: &DatasetLayer, rows: &LockedDataset) -> Vec<Component> {
    let licence = match (&layer.license, &rows.repository) {
        (None, Some(repository)) => Licence::all_of("huggingface", &repository.licenses),
        (declared, _) => Licence::declared("dataset", declared.as_deref()),
    };
    let sources = sources(rows);
    let id = ComponentId::new("dataset", name, &[&sources.to_hex()]);
    let prepared = Component {
        id: id.clone(),
        name: name.to_owned(),
        version: None,
        // It is in no registry under that name.
        purl: None,
        file: Some(format!("data/{name}")),
        pin: Pin::Sources(sources),
        licence: licence.clone(),
        origin: Some("a data set that was prepared for training".to_owned()),
        role: Role::Contained,
    };
    let repository = rows.repository.iter().map(|repository| self::repository(repository, &licence, &id));
    let files = rows.files.iter().map(|row| file(row, layer, &licence, &id));
    std::iter::once(prepared).chain(repository).chain(files).collect()
}

/// The repository that the files come from; no registry of package URLs knows data sets of a hub.
fn repository(locked: &LockedRepository, licence: &Licence, dataset: &ComponentId) -> Component {
    let (repo, commit) = (format!("datasets/{}", locked.repo), locked.commit.to_string());
    Component {
        id: ComponentId::new("data", &repo, &[&commit]),
        name: repo.clone(),
        version: Some(commit.clone()),
        purl: None,
        file: None,
        pin: Pin::Commit(commit),
        licence: licence.clone(),
        origin: Some(format!("{repo} at {}", locked.revision)),
        role: Role::BuiltInto(dataset.clone()),
    }
}

fn file(row: &LockedDataFile, layer: &DatasetLayer, licence: &Licence, dataset: &ComponentId) -> Component {
    let origin = match layer.source {
        DatasetSource::Path(_) => "a file beside the recipe",
        DatasetSource::Url { .. } => "a file at an address that the recipe names",
        DatasetSource::Hub { .. } => "a file of a repository of a hub",
    };
    Component {
        id: ComponentId::new("data", &row.name, &[&row.sha256.to_hex()]),
        name: row.name.clone(),
        version: None,
        purl: None,
        file: row.name.rsplit('/').next().map(str::to_owned),
        pin: Pin::File(row.sha256),
        licence: licence.clone(),
        origin: Some(origin.to_owned()),
        role: Role::BuiltInto(dataset.clone()),
    }
}

/// A digest over the names and digests of all files.
fn sources(rows: &LockedDataset) -> Digest {
    let mut hasher = Sha256::new_with_prefix(b"gapimage data set 1\0");
    for row in &rows.files {
        hasher.update((row.name.len() as u64).to_le_bytes());
        hasher.update(row.name.as_bytes());
        hasher.update(row.sha256.as_bytes());
    }
    hasher.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{FileBeside, Preparation};

    #[test]
    fn each_file_is_pinned_and_has_the_licence_of_the_data_set() {
        let path = FileBeside { base: "/x".into(), path: "rows".into() };
        let layer = DatasetLayer {
            source: DatasetSource::Path(path),
            preparation: Preparation::default(),
            license: Some("CC-BY-4.0".to_owned()),
        };
        let file = |name: &str| LockedDataFile { name: name.to_owned(), size: 1, sha256: Digest::of(name.as_bytes()) };
        let rows = LockedDataset { files: vec![file("rows/a.jsonl"), file("rows/b.csv")], ..LockedDataset::default() };
        let components = components("tickets", &layer, &rows);
        let names: Vec<&str> = components.iter().map(|component| component.name.as_str()).collect();
        assert_eq!(names, ["tickets", "rows/a.jsonl", "rows/b.csv"]);
        assert!(components.iter().all(|component| component.licence.to_string() == "CC-BY-4.0"));
        assert!(components[1..].iter().all(|file| file.role == Role::BuiltInto(components[0].id.clone())));
        assert_eq!(components[2].pin, Pin::File(Digest::of(b"rows/b.csv")));
    }
}
