//! From the command line to a server that answers.

use crate::{
    api::{self, Bodies, Preparing, Served},
    catalogue::{Catalogue, CatalogueError},
    confinement,
    listen::{self, Listener},
    metrics::Meters,
    options::Options,
};
use gap_lm::device;
use std::{io, sync::Arc};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A model cannot be served.
    #[error(transparent)]
    Catalogue(#[from] Box<CatalogueError>),
    /// The address cannot be listened to.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not confine the process.
    #[error("the kernel does not take the filter that keeps this server from calling out: {0}")]
    Confine(#[from] seccompiler::Error),
    /// The threads that compute do not start.
    #[error("cannot start the threads that compute: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// There is a GPU, and it cannot be used.
    #[error("cannot use the GPU: {0}; `nvidia-smi` says whether the driver sees it")]
    Device(candle_core::Error),
    /// The system failed.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Loads the models, listens, gives up every way to call out, and serves until a signal comes.
///
/// # Errors
/// What keeps it from starting.
pub fn run(options: &Options) -> Result<(), StartError> {
    rayon::ThreadPoolBuilder::new().num_threads(options.threads.map_or(0, usize::from)).build_global()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        // Both need system calls that are refused later.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let listener = Listener::bind(&options.listen)
            .await
            .map_err(|source| StartError::Listen { address: format!("{:?}", options.listen), source })?;
        confinement::confine()?;
        let device = device::first().map_err(StartError::Device)?;
        let meters = Arc::new(Meters::default());
        let loading = tokio::task::spawn_blocking({
            let (options, meters) = (options.clone(), meters.clone());
            move || Catalogue::load(&options, &device, &meters)
        });
        let catalogue = tokio::select! {
            loaded = loading => loaded.map_err(io::Error::other)?.map_err(Box::new)?,
            () = either(&mut interrupt, &mut terminate) => {
                eprintln!("gap-serve stops before its models are loaded");
                return Ok(());
            }
        };
        let router = api::router(Served {
            catalogue: Arc::new(catalogue),
            bodies: Bodies::new(meters.clone()),
            meters,
            preparing: Arc::new(Preparing::default()),
        });
        let (stop, stopping) = watch::channel(false);
        eprintln!("gap-serve listens on {}", listener.address());
        let server = tokio::spawn(listen::serve(listener, router, stopping));
        either(&mut interrupt, &mut terminate).await;
        eprintln!("gap-serve stops");
        let _ = stop.send(true);
        server.await.map_err(io::Error::other)?;
        Ok(())
    });
    // What still loads is not waited for: it ends with the process.
    runtime.shutdown_background();
    served
}

/// Waits for one of two signals.
async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
