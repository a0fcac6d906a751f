//! Serving the Unix socket, with the peer's credentials at hand, and loopback TCP,
//! with a token.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use gm_api::control::ApiError;
use tokio::net::{TcpListener, UnixListener};

use super::answer::Failure;
use super::guests::{Bounds, Guests, Standing};
use super::token::Token;
use super::{App, router};

/// How long requests may take to finish when the daemon stops.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who asks: `SO_PEERCRED` of the Unix socket, the address of a TCP connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
    tcp: Option<SocketAddr>,
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
            (None, _) => match self.tcp {
                Some(from) => write!(f, "tcp {from}"),
                None => f.write_str("unknown"),
            },
        }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = match stream.io().peer_cred() {
            Ok(found) => Peer {
                uid: Some(found.uid()),
                pid: found.pid(),
                tcp: None,
            },
            Err(_) => Peer::default(),
        };
        tracing::debug!(%peer, "control connection");
        peer
    }
}

/// A TCP connection: who it is, and whether it has shown the token.
#[derive(Clone, Debug)]
struct Visitor {
    peer: Peer,
    standing: Arc<Standing>,
}

impl Connected<IncomingStream<'_, Guests>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, Guests>) -> Self {
        Visitor {
            peer: Peer {
                tcp: Some(*stream.remote_addr()),
                ..Peer::default()
            },
            standing: stream.io().standing(),
        }
    }
}

/// Answers requests on the Unix socket until [`App::stop`].
pub async fn serve(app: Arc<App>, listener: UnixListener) -> std::io::Result<()> {
    let service = router(Arc::clone(&app)).into_make_service_with_connect_info::<Peer>();
    let stop = stopped(&app);
    let server = axum::serve(listener, service).with_graceful_shutdown(stop);
    patiently(&app, server.into_future()).await
}

/// Answers requests that carry the token on a TCP socket until [`App::stop`].
pub async fn serve_tcp(app: Arc<App>, listener: TcpListener, token: Token) -> std::io::Result<()> {
    serve_guests(app, Guests::new(listener, Bounds::default()), token).await
}

pub(super) async fn serve_guests(
    app: Arc<App>,
    guests: Guests,
    token: Token,
) -> std::io::Result<()> {
    let service = router(Arc::clone(&app))
        .layer(from_fn_with_state(Arc::new(token), admit))
        .into_make_service_with_connect_info::<Visitor>();
    let stop = stopped(&app);
    let server = axum::serve(guests, service).with_graceful_shutdown(stop);
    patiently(&app, server.into_future()).await
}

/// Lets a request pass that carries the token.
async fn admit(
    State(token): State<Arc<Token>>,
    ConnectInfo(visitor): ConnectInfo<Visitor>,
    mut request: Request,
    next: Next,
) -> Response {
    if token.opens(request.headers()) {
        visitor.standing.admit();
        request.extensions_mut().insert(ConnectInfo(visitor.peer));
        return next.run(request).await;
    }
    let failure = ApiError::new(
        "unauthorized",
        "the request carries no token, or another one",
    )
    .hint("send Authorization: Bearer with the content of [control] token_file");
    Failure(failure).into_response()
}

async fn stopped_by(mut stop: tokio::sync::watch::Receiver<bool>) {
    // An error: the sender is gone, so the daemon is too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn stopped(app: &App) -> impl Future<Output = ()> + Send + use<> {
    stopped_by(app.stopping())
}

/// Runs the server to its end, which requests under way may delay only so long.
async fn patiently(
    app: &App,
    server: impl Future<Output = std::io::Result<()>>,
) -> std::io::Result<()> {
    let mut deadline = app.stopping();
    tokio::select! {
        result = server => result,
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
        let peer = |uid| Peer {
            uid,
            pid: Some(1),
            tcp: None,
        };
        let own = rustix::process::geteuid().as_raw();
        assert!(peer(Some(0)).may_write_files() && peer(Some(own)).may_write_files());
        assert!(!peer(Some(own + 1)).may_write_files() && !peer(None).may_write_files());
    }
}
