//! Checking files in the background, one after another.

use super::{
    Work,
    files::{FilesError, Status},
};
use crate::console;
use std::{sync::Arc, time::Duration};
use tokio::{task::spawn_blocking, time::sleep};

/// Pause before a file is looked at again that the disk did not let be checked.
const AGAIN: Duration = Duration::from_secs(60);

/// Checks a file, when those before it are checked; again and again where the disk does not let it.
pub fn check(work: Arc<Work>, id: String) {
    tokio::spawn(async move {
        while !is_known(&work, &id).await {
            sleep(AGAIN).await;
        }
    });
}

/// Checks all files that the last agent did not get to.
///
/// # Errors
/// [`FilesError`] when the list cannot be read.
pub async fn check_all(work: &Arc<Work>) -> Result<(), FilesError> {
    let here = Arc::clone(work);
    let ids = spawn_blocking(move || here.files.unchecked()).await.map_err(std::io::Error::from)??;
    ids.into_iter().for_each(|id| check(Arc::clone(work), id));
    Ok(())
}

/// Checks a file once. Returns whether there is nothing more to find out.
async fn is_known(work: &Arc<Work>, id: &str) -> bool {
    // Nobody else checks it meanwhile. Neither is ever closed.
    let Ok(_turn) = work.checking.acquire().await else { return true };
    let Ok(place) = Arc::clone(&work.bulk).acquire_owned().await else { return true };
    let (here, file) = (Arc::clone(work), id.to_owned());
    let checked = spawn_blocking(move || {
        let _place = place;
        here.files.check(&file)
    });
    match checked.await {
        Ok(Ok(row)) if row.status == Status::Uploaded => {
            console::say(format_args!("the file {id} is {}", row.details.unwrap_or_default()));
            false
        }
        // It was deleted.
        Ok(Ok(_) | Err(FilesError::None(_))) => true,
        Ok(Err(error)) => {
            console::say(format_args!("checking the file {id}: {error}; it is tried again"));
            false
        }
        // What the checker stumbles over is there the next time as well.
        Err(error) => {
            console::say(format_args!("checking the file {id}: {error}"));
            true
        }
    }
}
