//! Fetching locked files of an index into the store.

use super::{
    PinnedFile,
    error::{WheelsError, without_credentials},
    index::{self, Offer},
    name::ProjectName,
    pylock::Chosen,
    sources::Sources,
    uv::Uv,
};
use crate::{
    parallel::try_map,
    recipe::WheelsLayer,
    source::http::{Client, Download, HttpError, Progress, shown},
    store::{Downloads, Store},
};
use gap_format::Digest;
use std::{fs::File, num::NonZeroUsize, path::Path};
use url::Url;

/// How many pages of an index are asked for at once.
const PARALLEL: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// Longest file that is fetched although nobody told its digest, in bytes.
const UNKNOWN_MAX: u64 = 1 << 30;

/// Fetches what of `files` the store lacks, several at once, each checked by size and digest. An interrupted download
/// goes on where it stopped. They are looked for by name and digest wherever the user's settings say.
///
/// # Errors
/// [`WheelsError`]; what was fetched before stays.
pub fn fetch<'w>(
    files: impl IntoIterator<Item = PinnedFile<'w>>,
    layer: &WheelsLayer,
    client: &Client,
    store: &Store,
    progress: Progress<'_>,
) -> Result<(), WheelsError> {
    let lacks = |file: &PinnedFile<'_>| !store.has_source(&file.sha256, Some(file.size));
    let missing: Vec<PinnedFile<'_>> = files.into_iter().filter(lacks).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let scratch = tempfile::tempdir_in(store.session_dir()).map_err(WheelsError::io("making", store.session_dir()))?;
    let sources = Sources::find(&Uv::find(store, false)?, layer, scratch.path())?;
    let client = sources.client(client)?;
    let links = linked(&sources, &client)?;
    let items = try_map(&missing, PARALLEL, |_| 0, |file| locate(file, &sources, &links, &client))?;
    download(&items, &client, store, progress)
}

/// Fetches one wheel whose address is known but not its length.
pub(super) fn fetch_chosen(
    wheel: &Chosen,
    client: &Client,
    store: &Store,
    progress: Progress<'_>,
) -> Result<File, WheelsError> {
    let size = client.length(wheel.url.as_str())?;
    download(&[item(&wheel.url, size, wheel.sha256)], client, store, progress)?;
    store.open_source(&wheel.sha256, Some(size))?.ok_or_else(|| WheelsError::NotOffered {
        file: wheel.file.to_string(),
        sha256: wheel.sha256,
        tried: shown(wheel.url.as_str()),
    })
}

fn download(items: &[Download], client: &Client, store: &Store, progress: Progress<'_>) -> Result<(), WheelsError> {
    let (directory, _alone) = store.downloads(Downloads::Wheels)?;
    let items: Vec<Download> =
        items.iter().filter(|item| !store.has_source(&item.sha256, Some(item.size))).cloned().collect();
    let paths = client.download_all(&items, &directory, progress)?;
    for (item, path) in items.iter().zip(paths) {
        store.adopt_source(&path, &item.sha256)?;
    }
    Ok(())
}

/// A download of one address: everything up to its last slash is the mirror.
fn item(url: &Url, size: u64, sha256: Digest) -> Download {
    let query_at = url.as_str().find('?').unwrap_or(url.as_str().len());
    let slash = url.as_str().get(..query_at).and_then(|address| address.rfind('/')).unwrap_or_default();
    let (mirror, path) = url.as_str().split_at(slash);
    Download { mirrors: vec![mirror.to_owned()], path: path.trim_start_matches('/').to_owned(), size, sha256 }
}

/// What the user's directories and pages of links offer.
pub(super) fn linked(sources: &Sources, client: &Client) -> Result<Vec<Offer>, WheelsError> {
    let mut offers = Vec::new();
    for place in &sources.find_links {
        if let Ok(page) = Url::parse(place)
            && page.scheme() != "file"
        {
            offers.extend(page_of(&sources.sign_in(page), client)?.unwrap_or_default());
            continue;
        }
        let directory = Path::new(place.strip_prefix("file://").unwrap_or(place));
        for entry in directory.read_dir().into_iter().flatten().flatten() {
            let Ok(url) = Url::from_file_path(entry.path()) else { continue };
            let file = entry.file_name().to_string_lossy().into_owned();
            let size = entry.metadata().ok().map(|meta| meta.len());
            offers.push(Offer { file, url, sha256: None, size, requires_python: None, yanked: false });
        }
    }
    Ok(offers)
}

fn locate(
    wanted: &PinnedFile<'_>,
    sources: &Sources,
    links: &[Offer],
    client: &Client,
) -> Result<Download, WheelsError> {
    let is_it = |offer: &&Offer| {
        offer.file == wanted.file
            && offer.sha256.is_none_or(|sha256| sha256 == wanted.sha256)
            && offer.size.is_none_or(|size| size == wanted.size)
    };
    let found = |offer: &Offer| item(&sources.sign_in(offer.url.clone()), wanted.size, wanted.sha256);
    if let Some(offer) = links.iter().find(is_it) {
        return Ok(found(offer));
    }
    let mut tried = Vec::new();
    for index in &sources.indexes {
        let page = project_page(index, wanted.name)?;
        match page_of(&sources.sign_in(page.clone()), client) {
            Ok(Some(offers)) => match offers.iter().find(is_it) {
                Some(offer) => return Ok(found(offer)),
                None => tried.push(format!("{} does not list it", shown(page.as_str()))),
            },
            Ok(None) => tried.push(format!("{} is not there", shown(page.as_str()))),
            Err(error) => tried.push(error.to_string()),
        }
    }
    if tried.is_empty() {
        tried.push("no index is set".to_owned());
    }
    Err(WheelsError::NotOffered { file: wanted.file.to_owned(), sha256: wanted.sha256, tried: tried.join("; ") })
}

/// The address of a project's page in an index.
fn project_page(index: &Url, project: &ProjectName) -> Result<Url, WheelsError> {
    index::project_page(index.as_str(), project).map_err(|error| WheelsError::Settings {
        origin: format!("the index `{}`", without_credentials(index.as_str())),
        what: format!("has no pages: {error}"),
    })
}

/// What is offered of a project: what the user's directories and pages of links have of it, and the files of the first
/// index that knows it (as uv does, so that no index can put itself before another).
pub(super) fn offers_of(
    project: &ProjectName,
    sources: &Sources,
    links: &[Offer],
    client: &Client,
) -> Result<Vec<Offer>, WheelsError> {
    let mut offers = links.to_vec();
    for index in &sources.indexes {
        if let Some(found) = page_of(&sources.sign_in(project_page(index, project)?), client)? {
            offers.extend(found);
            break;
        }
    }
    Ok(offers)
}

/// Fetches an offer; its digest is found out where the page does not tell it.
pub(super) fn fetch_offer(
    offer: &Offer,
    sources: &Sources,
    client: &Client,
    store: &Store,
    progress: Progress<'_>,
) -> Result<(Digest, u64), WheelsError> {
    let url = sources.sign_in(offer.url.clone());
    let Some(sha256) = offer.sha256 else {
        let data = client.get(url.as_str(), UNKNOWN_MAX)?;
        let stored = store.insert_source(None, UNKNOWN_MAX, data.as_slice())?;
        return Ok((stored.digest, stored.size));
    };
    let size = match offer.size {
        Some(size) => size,
        None => client.length(url.as_str())?,
    };
    download(&[item(&url, size, sha256)], client, store, progress)?;
    Ok((sha256, size))
}

/// The files on a page; `None` if there is no such page.
fn page_of(page: &Url, client: &Client) -> Result<Option<Vec<Offer>>, WheelsError> {
    match client.get_accepting(page.as_str(), Some(index::ACCEPT), index::PAGE_MAX) {
        Ok(body) => index::offers(page, &body)
            .map(Some)
            .map_err(|source| WheelsError::Page { url: shown(page.as_str()), source }),
        Err(HttpError::Status { status: 404 | 410, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_mirror_and_a_path() {
        let url = Url::parse("https://u:p@host/a/b-1%2Bx.whl?token=a/b").unwrap();
        let item = item(&url, 7, Digest::of(b"x"));
        assert_eq!((item.mirrors[0].as_str(), item.path.as_str()), ("https://u:p@host/a", "b-1%2Bx.whl?token=a/b"));
    }
}
