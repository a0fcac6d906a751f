//! The signals that end a program of ours in order.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Done at SIGINT or SIGTERM. Needs a tokio runtime.
///
/// # Errors
/// When signals cannot be watched.
pub(crate) fn ended() -> Result<impl Future<Output = ()>> {
    let watch = |kind| signal(kind).context("signals cannot be watched");
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
