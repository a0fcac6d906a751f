//! Ctrl-C and SIGTERM: the demo stops at its next step and cleans up.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Listens from now on. A second signal is not needed: every wait of the demo
/// looks at [`check`].
pub fn watch() {
    let listening = std::thread::Builder::new()
        .name("demo-signals".into())
        .spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut interrupt = signal(SignalKind::interrupt())?;
                let mut terminate = signal(SignalKind::terminate())?;
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::Relaxed);
                std::io::Result::Ok(())
            })
        });
    if let Err(error) = listening {
        tracing::warn!("Ctrl-C will not clean up: {error}");
    }
}

/// An error once the demo has been interrupted.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
