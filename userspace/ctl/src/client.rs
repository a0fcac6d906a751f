//! HTTP over the control socket. One connection per request.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use gm_api::control::{
    AddReply, AddRequest, ApiError, CaptureReply, CaptureRequest, ErrorBody, FlowEvent, Health,
    RemoveReply, SaStatus, StateReply, Stats, path,
};
use gm_api::drops::{self, DropLine, DropReport, DropSample, Explanation, PrefixRow, Workers};
use gm_api::transfer::{self, TransferReply, TransferRequest};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Largest answer that is read, in bytes: a list of a million SAs.
const MAX_ANSWER: usize = 1 << 30;

/// Why gmespd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens on it.
    #[error(
        "gmespd is not running: {what} {}; start it with `gmespd run --config FILE`, or name its socket with --socket PATH",
        socket.display()
    )]
    NotRunning {
        /// Where it was looked for.
        socket: PathBuf,
        /// `no socket at` or `nobody listens at`.
        what: &'static str,
    },
    /// The socket is there and refuses this user.
    #[error("no permission for {}; run as root, or join the group in [control] group", .0.display())]
    Permission(PathBuf),
    /// Any other trouble with the connection.
    #[error("{}: {error}", socket.display())]
    Connection {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        error: String,
    },
    /// gmespd has answered with an error.
    #[error("{error}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What gmespd says.
        error: ApiError,
    },
}

/// Talks to the gmespd behind one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the daemon at `socket`; connects with each request.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client {
            socket: socket.into(),
        }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Installs the SAs of a SAD.toml.
    pub async fn add(&self, request: &AddRequest) -> Result<AddReply, ClientError> {
        self.json(Method::POST, path::SA, Some(request)).await
    }

    /// All SAs.
    pub async fn list(&self) -> Result<Vec<SaStatus>, ClientError> {
        self.json(Method::GET, path::SA, NONE).await
    }

    /// The SAs of `limit` sets at most, from number `from` on.
    pub async fn list_from(&self, from: u64, limit: usize) -> Result<Vec<SaStatus>, ClientError> {
        let target = format!("{}?from={from}&limit={limit}", path::SA);
        self.json(Method::GET, &target, NONE).await
    }

    /// Removes the sets of these numbers, as far as there are any.
    pub async fn remove_sets(&self, from: u64, to: u64) -> Result<RemoveReply, ClientError> {
        let target = format!("{}?set={from}&to={to}", path::SA);
        self.json(Method::DELETE, &target, NONE).await
    }

    /// Removes a set.
    pub async fn remove_set(&self, set: u64) -> Result<RemoveReply, ClientError> {
        self.json(Method::DELETE, &format!("{}?set={set}", path::SA), NONE)
            .await
    }

    /// Removes the set that holds the SA.
    pub async fn remove_sa(
        &self,
        spi: u32,
        dst: std::net::IpAddr,
    ) -> Result<RemoveReply, ClientError> {
        self.json(
            Method::DELETE,
            &format!("{}?spi={spi}&dst={dst}", path::SA),
            NONE,
        )
        .await
    }

    /// Switches outbound traffic over to a set.
    pub async fn activate(&self, set: u64) -> Result<StateReply, ClientError> {
        self.json(Method::POST, &format!("{}/{set}/activate", path::SA), NONE)
            .await
    }

    /// A set sends no more, and still accepts.
    pub async fn retire(&self, set: u64) -> Result<StateReply, ClientError> {
        self.json(Method::POST, &format!("{}/{set}/retire", path::SA), NONE)
            .await
    }

    /// Counters.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.json(Method::GET, path::STATS, NONE).await
    }

    /// Is the daemon well.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.json(Method::GET, path::HEALTH, NONE).await
    }

    /// Starts a wire capture.
    pub async fn capture_start(
        &self,
        request: &CaptureRequest,
    ) -> Result<CaptureReply, ClientError> {
        self.json(Method::POST, path::CAPTURE, Some(request)).await
    }

    /// Stops the wire capture.
    pub async fn capture_stop(&self) -> Result<CaptureReply, ClientError> {
        self.json(Method::DELETE, path::CAPTURE, NONE).await
    }

    /// The stream of flow events, from now on.
    pub async fn events(&self) -> Result<Lines<FlowEvent>, ClientError> {
        self.lines(path::EVENTS).await
    }

    /// Drops by reason.
    pub async fn drops(&self) -> Result<DropReport, ClientError> {
        self.json(Method::GET, drops::path::DROPS, NONE).await
    }

    /// Drops by phone, the worst first.
    pub async fn prefixes(&self, limit: Option<usize>) -> Result<Vec<PrefixRow>, ClientError> {
        let limit = limit.unwrap_or(drops::PREFIXES);
        let target = format!("{}?limit={limit}", drops::path::PREFIXES);
        self.json(Method::GET, &target, NONE).await
    }

    /// The newest samples of dropped packets, of one phone or of all.
    pub async fn recent_drops(
        &self,
        phone: Option<std::net::IpAddr>,
        limit: usize,
    ) -> Result<Vec<DropSample>, ClientError> {
        let mut target = format!("{}?limit={limit}", drops::path::RECENT);
        if let Some(phone) = phone {
            target += &format!("&address={phone}");
        }
        self.json(Method::GET, &target, NONE).await
    }

    /// The stream of samples, from now on.
    pub async fn follow_drops(&self) -> Result<Lines<DropLine>, ClientError> {
        self.lines(drops::path::FOLLOW).await
    }

    /// What a phone's packets run into.
    pub async fn explain(&self, phone: std::net::IpAddr) -> Result<Explanation, ClientError> {
        let target = drops::path::EXPLAIN.replace("{address}", &phone.to_string());
        self.json(Method::GET, &target, NONE).await
    }

    /// How many workers there are.
    pub async fn workers(&self) -> Result<Workers, ClientError> {
        self.json(Method::GET, drops::path::WORKERS, NONE).await
    }

    /// Changes how many workers there are.
    pub async fn set_workers(&self, workers: u32) -> Result<Workers, ClientError> {
        let body = Workers { workers };
        self.json(Method::PUT, drops::path::WORKERS, Some(&body))
            .await
    }

    /// Takes SAs over that another P-CSCF has in the kernel.
    pub async fn adopt(&self, request: &TransferRequest) -> Result<TransferReply, ClientError> {
        self.json(Method::POST, transfer::path::ADOPT, Some(request))
            .await
    }

    /// Gives them back.
    pub async fn give_back(&self, request: &TransferRequest) -> Result<TransferReply, ClientError> {
        self.json(Method::POST, transfer::path::GIVE_BACK, Some(request))
            .await
    }

    async fn lines<T>(&self, target: &str) -> Result<Lines<T>, ClientError> {
        let response = self.send(Method::GET, target, NONE).await?;
        let body = self.success(response).await?;
        Ok(Lines {
            socket: self.socket.clone(),
            body,
            line: Vec::new(),
            value: PhantomData,
        })
    }

    async fn json<B: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&B>,
    ) -> Result<R, ClientError> {
        let response = self.send(method, target, body).await?;
        let body = self.success(response).await?;
        let bytes = self.collect(body).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.broken(format!("answer of another version? {error}")))
    }

    async fn success(&self, response: Response<Incoming>) -> Result<Incoming, ClientError> {
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let bytes = self.collect(body).await?;
        let error = match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => body.error,
            Err(_) if head.status == StatusCode::NOT_FOUND => {
                ApiError::new("not-found", "this gmespd does not know the request")
                    .hint("gmespctl and gmespd should be of one version")
            }
            Err(_) => ApiError::new("http", format!("gmespd has answered {}", head.status)),
        };
        Err(ClientError::Refused {
            status: head.status.as_u16(),
            error,
        })
    }

    async fn collect(&self, mut body: Incoming) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(error.to_string()))?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > MAX_ANSWER {
                    return Err(self.broken("the answer is too long".into()));
                }
                bytes.extend_from_slice(data);
            }
        }
        Ok(bytes)
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        target: &str,
        body: Option<&B>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => self.not_running("no socket at"),
                    io::ErrorKind::ConnectionRefused => self.not_running("nobody listens at"),
                    io::ErrorKind::PermissionDenied => ClientError::Permission(self.socket.clone()),
                    _ => self.broken(error.to_string()),
                })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error.to_string()))?;
        tokio::spawn(connection);
        let bytes = match body {
            Some(body) => {
                serde_json::to_vec(body).map_err(|error| self.broken(error.to_string()))?
            }
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "gmespd")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| self.broken(error.to_string()))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error.to_string()))
    }

    fn not_running(&self, what: &'static str) -> ClientError {
        ClientError::NotRunning {
            socket: self.socket.clone(),
            what,
        }
    }

    fn broken(&self, error: String) -> ClientError {
        ClientError::Connection {
            socket: self.socket.clone(),
            error,
        }
    }
}

/// No body.
const NONE: Option<&()> = None;

/// Values as they come, one a line.
#[derive(Debug)]
pub struct Lines<T> {
    socket: PathBuf,
    body: Incoming,
    line: Vec<u8>,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next one; `None` when gmespd has stopped.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let rest = self.line.split_off(end + 1);
                let line = std::mem::replace(&mut self.line, rest);
                return serde_json::from_slice(&line).map(Some).map_err(|error| {
                    let error = error.to_string();
                    ClientError::Connection {
                        socket: self.socket.clone(),
                        error,
                    }
                });
            }
            match self.body.frame().await {
                None | Some(Err(_)) => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.line.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
