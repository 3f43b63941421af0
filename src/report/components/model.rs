//! Models.

use super::{Component, ComponentId, Pin, Role};
use crate::{
    report::purl::PackageUrl,
    source::{
        licence::Licence,
        model::{LockedHubModel, LockedModel},
    },
};

/// A model of a hub; one of a directory is a layer like any other, and listed by its digest.
pub(super) fn components(model: &LockedModel) -> Vec<Component> {
    match model {
        LockedModel::Hub(model) => vec![component(model)],
        LockedModel::Directory(_) => Vec::new(),
    }
}

fn component(model: &LockedHubModel) -> Component {
    let (repo, commit) = (model.repo.to_string(), model.commit.to_string());
    let (namespace, name) = match repo.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, repo.as_str()),
    };
    Component {
        id: ComponentId::new("model", &repo, &[&commit]),
        name: repo.clone(),
        version: Some(commit.clone()),
        purl: Some(PackageUrl::new("huggingface", namespace, name, Some(&commit))),
        file: None,
        pin: Pin::Commit(commit),
        licence: Licence::all_of("huggingface", &model.licenses),
        origin: Some(format!("{repo} at {}", model.revision)),
        role: Role::Contained,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::RepoName;

    #[test]
    fn a_model_is_known_by_its_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let model = LockedHubModel {
            repo: RepoName::new("org/name").unwrap(),
            revision: "main".to_owned(),
            commit: commit.parse().unwrap(),
            gated: false,
            licenses: vec!["mit".to_owned()],
            files: Vec::new(),
        };
        let components = components(&LockedModel::Hub(model));
        assert_eq!(components[0].purl.as_ref().unwrap().to_string(), format!("pkg:huggingface/org/name@{commit}"));
        assert_eq!(components[0].pin, Pin::Commit(commit.to_owned()));
    }
}
