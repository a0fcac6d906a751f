//! One function per request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::StatusCode;
use gm_api::control::{AddRequest, ApiError, CaptureReply, CaptureRequest, Health, StateReply};
use gm_api::sad::Sad;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use zeroize::Zeroize;

use super::App;
use super::answer::{Answer, Failure, json};
use super::serve::Peer;
use crate::capture::Capture;

/// Sets of one request that the log names one by one.
const LOGGED: usize = 16;

pub(super) type Shared = State<Arc<App>>;
pub(super) type Body = Result<Bytes, BytesRejection>;

/// Runs what waits for a worker where waiting is allowed.
pub(super) async fn blocking<T, F>(app: &Arc<App>, work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
{
    let app = Arc::clone(app);
    match tokio::task::spawn_blocking(move || work(&app)).await {
        Ok(result) => result.map_err(Failure),
        Err(_) => Err(
            ApiError::new("internal", "the request has failed in the daemon")
                .hint("its log says more")
                .into(),
        ),
    }
}

/// The body as JSON. The error does not repeat the text: it may hold keys.
pub(super) fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let bytes = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::new("too-large", "the body is over 32 MiB").hint("split the file")
        } else {
            ApiError::new("bad-request", "the body has not come whole")
        }
    })?;
    // A buffer that is ours alone is wiped after use.
    let parsed = match bytes.try_into_mut() {
        Ok(own) => {
            let mut own = Vec::from(own);
            let parsed = serde_json::from_slice(&own);
            own.zeroize();
            parsed
        }
        Err(shared) => serde_json::from_slice(&shared),
    };
    parsed.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message =
            format!("the body is not the JSON that is expected, line {line} column {column}");
        ApiError::new("bad-request", message)
            .hint("GET /v1/openapi.json describes the bodies")
            .into()
    })
}

pub(super) async fn add(
    State(app): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Answer {
    let request: AddRequest = parse(body)?;
    let reply = blocking(&app, move |app| {
        let name = request.name.as_deref().unwrap_or("SAD");
        let sad = Sad::parse(name, &request.sad)
            .map_err(|error| ApiError::new("bad-sad", error.to_string()))?;
        app.sets.add_sad(&app.config, sad)
    })
    .await?;
    for set in reply.sets.iter().take(LOGGED) {
        tracing::info!(set = set.set, sas = set.sas.len(), %peer, "SAs added over the control socket");
    }
    if reply.sets.len() > LOGGED {
        tracing::info!(sets = reply.sets.len(), %peer, "SA sets added in all");
    }
    json(reply)
}

pub(super) async fn list(
    State(app): Shared,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let bad = |message: String| Failure(ApiError::new("bad-request", message));
    let mut numbers = [0, usize::MAX as u64];
    for (key, value) in &query {
        let at = ["from", "limit"].iter().position(|name| name == key);
        let at = at.ok_or_else(|| bad(format!("unknown parameter {key:?}")))?;
        let value = value.parse();
        numbers[at] = value.map_err(|_| bad(format!("{key} is no number")))?;
    }
    let [from, limit] = numbers;
    let some = move |app: &App| match query.is_empty() {
        true => app.sets.list(),
        false => app.sets.list_from(from, limit as usize),
    };
    json(blocking(&app, some).await?)
}

pub(super) async fn remove(
    State(app): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let wanted = Wanted::parse(&query)?;
    let reply = blocking(&app, move |app| match wanted {
        Wanted::Set(number) => app.sets.delete(number),
        Wanted::Range(from, to) => app.sets.delete_range(from, to),
        Wanted::Sa(spi, dst) => app.sets.delete_sa(spi, dst),
    })
    .await?;
    let sets = (reply.sets.len(), reply.sets.first());
    tracing::info!(?sets, sas = reply.sas, %peer, "SAs removed over the control socket");
    json(reply)
}

/// What to remove.
enum Wanted {
    Set(u64),
    /// From the first to the last number.
    Range(u64, u64),
    Sa(u32, IpAddr),
}

impl Wanted {
    fn parse(query: &HashMap<String, String>) -> Result<Wanted, Failure> {
        let bad = |message: &str| {
            Failure(
                ApiError::new("bad-request", message)
                    .hint("ask for ?set=N, ?set=N&to=M or ?spi=S&dst=A"),
            )
        };
        if let Some(key) = query
            .keys()
            .find(|key| !matches!(key.as_str(), "set" | "to" | "spi" | "dst"))
        {
            return Err(bad(&format!("unknown parameter {key:?}")));
        }
        let number = |text: &String| text.parse().map_err(|_| bad("set is no number"));
        let to = query.get("to").map(number).transpose()?;
        match (query.get("set"), query.get("spi"), query.get("dst")) {
            (Some(set), None, None) => Ok(match to {
                Some(to) => Wanted::Range(number(set)?, to),
                None => Wanted::Set(number(set)?),
            }),
            (None, Some(spi), Some(dst)) if to.is_none() => {
                let parsed = match spi.strip_prefix("0x") {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => spi.parse(),
                };
                let spi = parsed.map_err(|_| bad("spi is no number of 32 bits"))?;
                let dst = dst.parse().map_err(|_| bad("dst is no IP address"))?;
                Ok(Wanted::Sa(spi, dst))
            }
            _ => Err(bad("either set, or spi together with dst")),
        }
    }
}

pub(super) async fn activate(State(app): Shared, Path(set): Path<String>) -> Answer {
    let set = number(&set)?;
    blocking(&app, move |app| app.sets.activate(set)).await?;
    json(StateReply {
        set,
        state: "active".into(),
    })
}

pub(super) async fn retire(State(app): Shared, Path(set): Path<String>) -> Answer {
    let set = number(&set)?;
    blocking(&app, move |app| app.sets.retire(set)).await?;
    json(StateReply {
        set,
        state: "retired".into(),
    })
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse()
        .map_err(|_| ApiError::new("bad-request", "the set is no number").into())
}

pub(super) async fn stats(State(app): Shared) -> Answer {
    let mut stats = blocking(&app, |app| app.sets.plane().stats()).await?;
    stats.refusals = app.refusals();
    json(stats)
}

pub(super) async fn health(State(app): Shared) -> Answer {
    let (sas, kind, lost) = blocking(&app, |app| {
        let plane = app.sets.plane();
        Ok((plane.count()?, plane.kind(), plane.lost()))
    })
    .await?;
    let gm = &app.config.gm;
    json(Health {
        status: if *app.stopping().borrow() {
            "stopping"
        } else {
            "ok"
        }
        .into(),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_s: app.started.elapsed().as_secs(),
        data_plane: kind.name().into(),
        engine: app.config.engine_name().into(),
        lost: lost.iter().map(|line| (*line).to_owned()).collect(),
        uplinks: gm.uplinks.clone(),
        addresses: gm.addresses.clone(),
        sas,
        max_sas: gm.max_sas,
        edge: app.config.edge.as_ref().is_some_and(|edge| edge.enabled),
        registrations: app.live_registrations(),
        capture: app
            .capture()
            .as_ref()
            .map(|(capture, _)| capture.file().to_owned()),
    })
}

pub(super) async fn capture_start(
    State(app): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Answer {
    let request: CaptureRequest = parse(body)?;
    if !peer.may_write_files() {
        let message = "only root and the daemon's own user may have it write a file";
        return Err(ApiError::new("forbidden", message)
            .hint("sudo gmespctl capture start FILE")
            .into());
    }
    let reply = blocking(&app, move |app| {
        let mut slot = app.capture();
        if let Some((running, _)) = &*slot {
            let message = format!("a capture into {} runs already", running.file());
            return Err(ApiError::new("exists", message).hint("gmespctl capture stop"));
        }
        let uplink = app
            .config
            .gm
            .uplinks
            .first()
            .map_or("uplink", String::as_str);
        let missed = tap_missed(app)?;
        let (capture, sender) = Capture::start(&request, uplink)?;
        if let Err(error) = app.sets.plane().tap(Some(sender)) {
            // Nobody writes into it: the file goes, too.
            let file = capture.file().to_owned();
            let _ = capture.finish(0);
            let _ = std::fs::remove_file(file);
            return Err(error);
        }
        let reply = capture.reply();
        *slot = Some((capture, missed));
        Ok(reply)
    })
    .await?;
    tracing::info!(file = reply.file, %peer, "capture started");
    json(reply)
}

pub(super) async fn capture_stop(State(app): Shared) -> Answer {
    let reply = blocking(&app, end_capture).await?;
    tracing::info!(
        file = reply.file,
        packets = reply.packets,
        "capture stopped"
    );
    json(reply)
}

pub(super) fn end_capture(app: &App) -> Result<CaptureReply, ApiError> {
    let (capture, before) = app.capture().take().ok_or_else(|| {
        ApiError::new("not-found", "no capture runs").hint("gmespctl capture start FILE")
    })?;
    // The data plane lets go of the channel; that ends the writer.
    app.sets.plane().tap(None)?;
    let missed = tap_missed(app).unwrap_or(before).saturating_sub(before);
    capture.finish(missed)
}

/// Packets that captures have missed since the start, in the data plane.
fn tap_missed(app: &App) -> Result<u64, ApiError> {
    Ok(app
        .sets
        .plane()
        .stats()?
        .workers
        .iter()
        .map(|worker| worker.tap_missed)
        .sum())
}
