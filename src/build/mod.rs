//! Building: what the plan says is missing is fetched and made, then everything is assembled.

mod binary;
mod checklist;
mod layers;
mod models;
mod opened;
mod os_files;
mod packages;
mod program;
mod remains;
mod starter;
mod streams;
mod trials;
mod up_to_date;
mod wheels;

pub use opened::LayerBytes;
pub use trials::Passed;

use crate::{
    boot::{depmod::DepmodError, esp::EspError, initramfs::InitramfsError, modules::ModulesError, uki::UkiError},
    check,
    image::{
        merge::{MergeError, Merged, merge},
        oci::{ImageInfo, RunSettings, media_type},
    },
    layer::{
        tar::LayerIndex,
        tree::{PathError, TreePath},
        wheels::forget_unpacked,
    },
    lock::{Inputs, Lock, LockedLayer},
    pack::{self, PackError, Packed},
    plan::{Plan, PlanError, space},
    progress::{Begin, Stage, Work},
    recipe::{Image, ImageKind, LayerKind, Recipe},
    report::{
        attachments::attachments,
        origins::{Origins, Tar},
    },
    source::{
        http::{Client, Progress},
        model::{LockedModel, LockedModelPart},
    },
    store::{Location, Record, Store, StoreError},
    trial::OFFLINE,
};
use gap_format::{
    Digest, Timestamp,
    statement::{Kind, Release, Statement},
};
use opened::Opened;
use os_files::MergedFiles;
use starter::{Parts, Starter};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// What went wrong with one layer, whatever room it comes from.
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// What a build needs besides recipe and lock.
pub struct Request<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its lock, which answers exactly what the recipe asks.
    pub lock: &'a Lock,
    /// Fetched sources and built layers.
    pub store: &'a Store,
    /// Does the downloads; absent when no connection may be opened.
    pub client: Option<&'a Client>,
    /// The bytes of the trust file that the appliance will go by.
    pub trust: &'a [u8],
    /// Where the artifact goes.
    pub output: &'a Path,
    /// The `gapimage` program, which the sandbox runs as its helper.
    pub program: &'a Path,
    /// Told of each piece of work.
    pub begin: Begin<'a>,
    /// Told of what is worth knowing besides.
    pub note: &'a (dyn Fn(&str) + Sync),
    /// Told of bytes fetched or laid down.
    pub progress: Progress<'a>,
}

/// What a build came to.
#[derive(Debug)]
pub struct Built {
    /// The release statement.
    pub statement: Statement,
    /// Whether the artifact was there already.
    pub up_to_date: bool,
    /// The lock with the digests of files as they are now, if those changed.
    pub lock: Option<Lock>,
    /// Layers that were built, and why.
    pub built: Vec<(String, String)>,
    /// The tests of the recipe, all of which passed; none are tried when the artifact was there already.
    pub tests: Vec<Passed>,
    /// How the checklist came out; not worked out when the artifact was there already.
    pub checklist: Option<check::Summary>,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "most variants pass on the error of one room")]
pub enum BuildError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Space(#[from] space::NoSpace),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Modules(#[from] ModulesError),
    #[error(transparent)]
    Depmod(#[from] DepmodError),
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    #[error(transparent)]
    Uki(#[from] UkiError),
    #[error(transparent)]
    Esp(#[from] EspError),
    /// Sources are missing and may not be fetched.
    #[error(
        "{count} sources of {bytes} bytes are not in the store, and --offline forbids fetching them; build once without it"
    )]
    Offline { count: usize, bytes: u64 },
    /// A layer cannot be built.
    #[error("layer `{layer}`: {source}")]
    Layer { layer: String, source: Problem },
    /// What must work in an image does not.
    #[error("test `{test}`: {source}")]
    Test { test: String, source: Problem },
    /// The facts that the checklist goes by cannot be had.
    #[error(transparent)]
    Checklist(#[from] check::gather::GatherError),
    /// The layers of an image contradict each other.
    #[error("image `{image}`: {source}")]
    Merge { image: String, source: MergeError },
    /// A part of the boot image is not where it should be.
    #[error("`{role}` names a layer without {path}: {source}")]
    BootPart { role: &'static str, path: TreePath, source: io::Error },
    #[error("{path}: {source}")]
    Path { path: String, source: PathError },
    #[error("the {0} is too large for this machine")]
    TooLarge(&'static str),
    /// A date lies outside what the format can hold.
    #[error("{what} lies outside the years that a release can name")]
    Date { what: &'static str },
    #[error("looking at `{}`: {source}", path.display())]
    Output { path: PathBuf, source: io::Error },
}

/// Builds the artifact.
///
/// # Errors
/// [`BuildError`]; what was at the output before is untouched then, and the next build goes on from what was fetched and
/// built.
pub fn build(request: &Request<'_>) -> Result<Built, BuildError> {
    pack::check_output(request.output)?;
    let mut plan = Plan::new(request.recipe, request.lock, request.store)?;
    let release_key = up_to_date::key(&plan, request.trust);
    register(request, &plan, release_key)?;
    if let Some(statement) = up_to_date::check(request.store, &release_key, request.output)? {
        let (built, tests) = (Vec::new(), Vec::new());
        return Ok(Built { statement, up_to_date: true, lock: None, built, tests, checklist: None });
    }
    pack::try_output(request.output)?;
    remains::clear(request)?;
    plan.look(request.store)?;
    space::check(&plan.space(request.store, request.output)?)?;
    layers::fetch(request, &plan)?;
    models::check(request, &plan)?;
    streams::take_up(request, &mut plan)?;
    let built = layers::build_missing(request, &mut plan, true)?;
    let tests = trials::run_all(request, &plan)?;
    let checklist = checklist::work_out(request, &plan)?;
    let opened = opened::open_all(request, &plan)?;
    let results = Results { tests: &tests, checklist: &checklist };
    let packed = assemble(request, &plan, &opened, results);
    if let Err(BuildError::Pack(PackError::Damaged(name))) = &packed {
        for layer in plan.layers.iter().filter(|layer| layer.name() == *name) {
            request.store.discard_layer(&layer.key)?;
            if matches!(layer.locked.inputs, Inputs::Wheels(_)) {
                layer.sources.iter().try_for_each(|wheel| forget_unpacked(request.store, &wheel.sha256))?;
            }
        }
    }
    let packed = packed?;
    let lock = settle(request, &plan, &opened, &packed)?;
    up_to_date::remember(request.store, &release_key, &packed.statement)?;
    let checklist = Some(checklist.summary);
    Ok(Built { statement: packed.statement, up_to_date: false, lock, built, tests, checklist })
}

/// Builds what is missing and tries the tests of the recipe; packs nothing.
///
/// # Errors
/// [`BuildError`]; the next build goes on from what was fetched and built.
pub fn test(request: &Request<'_>) -> Result<Vec<Passed>, BuildError> {
    let mut plan = Plan::new(request.recipe, request.lock, request.store)?;
    remains::clear(request)?;
    plan.look(request.store)?;
    space::check(&plan.store_space(request.store)?)?;
    request.store.register(&Lock::path_for(&request.recipe.path), plan.roots())?;
    layers::fetch(request, &plan)?;
    models::check(request, &plan)?;
    layers::build_missing(request, &mut plan, false)?;
    trials::run_all(request, &plan)
}

/// Keeps what the build needs from being collected as garbage, however long ago it was last used.
fn register(request: &Request<'_>, plan: &Plan<'_>, release_key: gap_format::Digest) -> Result<(), BuildError> {
    let mut roots = plan.roots();
    roots.caches.insert(release_key);
    Ok(request.store.register(&Lock::path_for(&request.recipe.path), roots)?)
}

/// What came of trying and checking, which the release tells.
#[derive(Clone, Copy)]
struct Results<'a> {
    tests: &'a [Passed],
    checklist: &'a check::Report,
}

/// Merges the images, makes the boot image and packs everything.
fn assemble(
    request: &Request<'_>,
    plan: &Plan<'_>,
    opened: &[Opened],
    results: Results<'_>,
) -> Result<Packed, BuildError> {
    let merged = plan.images.iter().zip(&request.recipe.images).map(|(layers, image)| {
        let indexes: Vec<&LayerIndex> = layers.iter().filter_map(|&number| Some(&opened.get(number)?.index)).collect();
        merge(&indexes).map_err(|source| BuildError::Merge { image: image.name.clone(), source })
    });
    let merged: Vec<Merged> = merged.collect::<Result<_, _>>()?;
    let starter = starter(request, plan, opened, &merged)?;
    let in_images = plan.in_images();
    let bytes = in_images.iter().filter_map(|&number| opened.get(number)).map(|layer| layer.index.size).sum();
    (request.begin)(&Work::whole(Stage::Assemble, "assembling the artifact").about(bytes));
    let origins = origins(request, plan, opened, results)?;
    let mut known: Vec<_> = plan.in_images().iter().map(|&number| opened.get(number)?.known).collect();
    loop {
        let inputs = inputs(request, plan, opened, &merged, starter.as_ref(), &known, &origins)?;
        match pack::pack(&inputs, request.output, request.progress) {
            // Now that it is known what all layers are, the second of two equal layers is left out.
            Err(PackError::SameLayers(layers)) if known.iter().any(Option::is_none) => {
                known = layers.iter().map(|layer| Some(layer.is)).collect();
            }
            result => return Ok(result?),
        }
    }
}

fn inputs<'a>(
    request: &'a Request<'_>,
    plan: &Plan<'_>,
    opened: &'a [Opened],
    merged: &'a [Merged],
    starter: Option<&'a Starter>,
    known: &[Option<pack::Known>],
    origins: &'a Origins<'a>,
) -> Result<pack::Inputs<'a>, BuildError> {
    let used = plan.in_images();
    let layers = used.iter().filter_map(|&number| opened.get(number)).zip(known).map(|(layer, known)| pack::Layer {
        name: layer.name.clone(),
        size: layer.index.size,
        known: *known,
        bulk: layer.index.bulk(),
        fill: Box::new(|sink| layer.bytes.fill(sink)),
    });
    let images = plan.images.iter().zip(&request.recipe.images).map(|(layers, image)| pack::Image {
        info: info(request, image),
        layers: layers.iter().filter_map(|number| used.binary_search(number).ok()).collect(),
    });
    let boot =
        starter.zip(request.recipe.images.iter().position(|image| image.boot)).map(|(starter, image)| pack::Boot {
            image,
            size: starter.esp_size(),
            make: Box::new(|mount| starter.esp(mount).map_err(|error| error.to_string())),
        });
    Ok(pack::Inputs {
        release: origins.release.clone(),
        layers: layers.collect(),
        images: images.collect(),
        merged,
        boot,
        attachments: attachments(origins),
    })
}

/// What the documents about the release are made from.
fn origins<'a>(
    request: &'a Request<'_>,
    plan: &'a Plan<'_>,
    opened: &[Opened],
    results: Results<'a>,
) -> Result<Origins<'a>, BuildError> {
    let used = plan.in_images();
    let tar = |number: &usize| {
        let (opened, planned) = (opened.get(*number)?, plan.layers.get(*number)?);
        Some(Tar { name: opened.name.clone(), number: used.binary_search(number).ok()?, locked: planned.locked })
    };
    Ok(Origins {
        recipe: request.recipe,
        lock: request.lock,
        release: release(request)?,
        trust: Digest::of(request.trust),
        images: plan.images.iter().map(|layers| layers.iter().filter_map(tar).collect()).collect(),
        tests: results.tests.iter().map(|passed| passed.record.clone()).collect(),
        checklist: results.checklist,
    })
}

fn release(request: &Request<'_>) -> Result<Release, BuildError> {
    let appliance = &request.recipe.appliance;
    let time = |seconds: i64, what| {
        let seconds = u64::try_from(seconds).map_err(|_| BuildError::Date { what })?;
        Timestamp::from_seconds(seconds).map_err(|_| BuildError::Date { what })
    };
    Ok(Release {
        kind: Kind::Appliance,
        name: appliance.name.clone(),
        version: appliance.version.clone(),
        serial: appliance.serial,
        rollback_to: appliance.rollback_to,
        architecture: appliance.arch.name().to_owned(),
        source_date: time(request.lock.source_date(), "the source date")?,
        expires: appliance.expires.map(|expires| time(expires, "the expiry")).transpose()?,
    })
}

fn info(request: &Request<'_>, image: &Image) -> ImageInfo {
    let config = &image.config;
    ImageInfo {
        name: image.name.clone(),
        version: request.recipe.appliance.version.clone(),
        created: request.lock.source_date(),
        architecture: request.recipe.appliance.arch.name().to_owned(),
        licenses: models::license(request.lock, image),
        artifact_type: (image.kind == ImageKind::Model).then_some(media_type::MODEL),
        run: RunSettings {
            user: config.user.clone().unwrap_or_default(),
            env: variables(request.recipe, image),
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            working_dir: config.workdir.clone().unwrap_or_default(),
            labels: config.labels.clone(),
        },
        ..ImageInfo::default()
    }
}

/// The variables of an image: its own, and with Python packages, models or data sets those that keep programs offline.
fn variables(recipe: &Recipe, image: &Image) -> Vec<String> {
    let is_online = |name: &String| {
        matches!(
            recipe.layer(name).map(|layer| &layer.kind),
            Some(LayerKind::Wheels(_) | LayerKind::Model(_) | LayerKind::Dataset(_))
        )
    };
    let mut variables: BTreeMap<&str, &str> = BTreeMap::new();
    if image.layers.iter().any(is_online) {
        variables.extend(OFFLINE);
    }
    variables.extend(image.config.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn starter(
    request: &Request<'_>,
    plan: &Plan<'_>,
    opened: &[Opened],
    merged: &[Merged],
) -> Result<Option<Starter>, BuildError> {
    let Some(boot) = &request.recipe.boot else { return Ok(None) };
    let Some(number) = request.recipe.images.iter().position(|image| image.boot) else { return Ok(None) };
    let (Some(os), Some(layers)) = (merged.get(number), plan.images.get(number)) else { return Ok(None) };
    (request.begin)(&Work::whole(Stage::Build, "making the boot image"));
    let tool = |name: &str| -> Result<(Merged, Vec<usize>), BuildError> {
        let numbers = plan.numbers_of(name, &[]);
        let indexes: Vec<&LayerIndex> = numbers.iter().filter_map(|&number| Some(&opened.get(number)?.index)).collect();
        let merged = merge(&indexes).map_err(|source| BuildError::Merge { image: name.to_owned(), source })?;
        Ok((merged, numbers))
    };
    let (stub, init) = (tool(&boot.stub)?, tool(&boot.init)?);
    let reader = |number: &usize| opened.get(*number).map(|layer| layer.bytes.reader());
    let files = |merged, numbers: &[usize]| MergedFiles::new(merged, numbers.iter().filter_map(reader).collect());
    let parts = Parts {
        recipe: request.recipe,
        stub: files(&stub.0, &stub.1),
        init: files(&init.0, &init.1),
        os: files(os, layers),
        trust: request.trust,
        source_date: request.lock.source_date(),
    };
    Starter::new(&parts).map(Some)
}

/// Notes where streamed layers lie now and what they are, for the next build and for the lock.
fn settle(
    request: &Request<'_>,
    plan: &Plan<'_>,
    opened: &[Opened],
    packed: &Packed,
) -> Result<Option<Lock>, BuildError> {
    let failed = |source| BuildError::Output { path: request.output.to_owned(), source };
    let mut lock = request.lock.clone();
    let mut models: Vec<(&LockedLayer, Vec<LockedModelPart>)> = Vec::new();
    for (&number, made) in plan.in_images().iter().zip(&packed.layers) {
        let (Some(planned), Some(opened)) = (plan.layers.get(number), opened.get(number)) else { continue };
        if planned.tree.is_none() {
            continue;
        }
        let location = Location::new(request.output, made.offset).map_err(failed)?;
        let size = opened.index.size;
        let record = Record { digest: made.is.digest, size, verity_root: made.is.root, location };
        request.store.put_record(&planned.key, &record)?;
        planned.ingredients.remember(request.store, &planned.identity)?;
        match &planned.locked.inputs {
            Inputs::Files(_) => lock.set_files(planned.locked, made.is.digest, size),
            Inputs::Model(LockedModel::Directory(_)) => {
                let name = planned.part.clone().unwrap_or_default();
                let part = LockedModelPart { name, layer: made.is.digest, size };
                let same = |(row, _): &&mut (&LockedLayer, Vec<_>)| std::ptr::eq(*row, planned.locked);
                match models.iter_mut().find(same) {
                    Some((_, parts)) => parts.push(part),
                    None => models.push((planned.locked, vec![part])),
                }
            }
            _ => {}
        }
    }
    for (row, parts) in models {
        lock.set_model_parts(row, parts);
    }
    Ok((lock != *request.lock).then_some(lock))
}
