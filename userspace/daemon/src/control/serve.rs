//! Serving the Unix socket, with the peer's credentials at hand.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use super::{App, router};

/// How long requests may take to finish when the daemon stops.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who asks (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Peer {
    /// Root, or the user as whom the daemon runs. The control group may install
    /// keys, but files are another matter: a capture's content is the network's,
    /// and root's programs read some files wherever they come from.
    pub(super) fn may_write_files(self) -> bool {
        self.uid
            .is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid, self.pid) {
            (Some(uid), Some(pid)) => write!(f, "uid {uid} pid {pid}"),
            (Some(uid), None) => write!(f, "uid {uid}"),
            (None, _) => f.write_str("unknown"),
        }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = match stream.io().peer_cred() {
            Ok(found) => Peer {
                uid: Some(found.uid()),
                pid: found.pid(),
            },
            Err(_) => Peer {
                uid: None,
                pid: None,
            },
        };
        tracing::debug!(%peer, "control connection");
        peer
    }
}

/// Answers requests until [`App::stop`].
pub async fn serve(app: Arc<App>, listener: UnixListener) -> std::io::Result<()> {
    let service = router(Arc::clone(&app)).into_make_service_with_connect_info::<Peer>();
    let mut stop = app.stopping();
    let mut deadline = app.stopping();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        // An error: the sender is gone, so the daemon is too.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    tokio::select! {
        result = server.into_future() => result,
        () = async {
            let _ = deadline.wait_for(|stop| *stop).await;
            tokio::time::sleep(PATIENCE).await;
        } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_for_root_and_the_daemons_user() {
        let peer = |uid| Peer { uid, pid: Some(1) };
        let own = rustix::process::geteuid().as_raw();
        assert!(peer(Some(0)).may_write_files() && peer(Some(own)).may_write_files());
        assert!(!peer(Some(own + 1)).may_write_files() && !peer(None).may_write_files());
    }
}
