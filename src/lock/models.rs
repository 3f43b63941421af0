//! Locking models.

use super::renew::{LayerError, Purpose, Renewal, hashed};
use crate::{
    layer::{model::PlacedModel, tar::TarPlan},
    progress::{Stage, Work},
    recipe::{HubRepository, ModelLayer, ModelSource, PlacedLayer},
    source::model::{
        Hub, LockedDirectoryModel, LockedModel, LockedModelPart, RepoKind, Repository, Selection, licenses_of, resolve,
    },
};

impl Renewal<'_> {
    /// Whether the rows of a model stay as they are when the recipe asks for the same: a directory is looked at again,
    /// unless a build is about to.
    pub(super) fn keeps(&self, layer: &ModelLayer) -> bool {
        self.purpose != Purpose::Lock || matches!(layer.source, ModelSource::Hub(_))
    }

    /// The rows of a model.
    pub(super) fn model(&self, place: &PlacedLayer<'_>, layer: &ModelLayer) -> Result<LockedModel, LayerError> {
        let ModelSource::Hub(HubRepository { repo, revision, endpoint }) = &layer.source else {
            return self.model_directory(place, layer).map(LockedModel::Directory);
        };
        let client = self.client.ok_or(LayerError::Offline)?;
        let text = format!("resolving {repo} at {revision}");
        (self.begin)(&Work::on(Stage::Resolve, &place.layer.name, &text));
        let hub = Hub::find(client, endpoint.as_deref())?;
        let selection = Selection::of_model(&layer.include, &layer.exclude)?;
        let repository = Repository { kind: RepoKind::Model, name: repo };
        Ok(LockedModel::Hub(resolve(&hub, repository, revision, &selection, self.store, self.progress)?))
    }

    fn model_directory(&self, place: &PlacedLayer<'_>, layer: &ModelLayer) -> Result<LockedDirectoryModel, LayerError> {
        let model = PlacedModel::in_directory(place.layer.short_name(), layer)?;
        let licenses = licenses_of(&model.files);
        if self.purpose == Purpose::Plan {
            return Ok(LockedDirectoryModel { licenses, parts: Vec::new() });
        }
        let parts = model.parts()?.into_iter().map(|part| {
            let tar = TarPlan::new(&part.tree)?;
            Ok(LockedModelPart { name: part.name, layer: hashed(&tar)?, size: tar.size() })
        });
        let parts = parts.collect::<Result<_, LayerError>>()?;
        Ok(LockedDirectoryModel { licenses, parts })
    }
}
