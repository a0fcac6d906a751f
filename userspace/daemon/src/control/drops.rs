//! Dropped packets, explanations and workers, as `gm_api::drops` describes
//! them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, Query, State};
use axum::response::Response;
use gm_api::control::ApiError;
use gm_api::drops::{self, DropReport, PrefixRow, ReasonRow, Workers};
use gm_dataplane::{Action, Reason};
use hyper::body::Bytes;
use tokio::sync::broadcast::error::RecvError;

use super::App;
use super::answer::{Answer, Failure, json};
use super::events::stream;
use super::handlers::{Body, Shared, blocking, parse};
use super::serve::Peer;
use crate::config::PlaneKind;
use crate::explain::{self, Facts};
use crate::kernel;
use crate::samples::{self, Names};

type Parameters = Query<HashMap<String, String>>;

/// Entries that may be asked for.
const MOST: usize = 16_384;

pub(super) async fn report(State(app): Shared) -> Answer {
    let stats = blocking(&app, |app| app.sets.plane().counters()).await?;
    let counted = |reason: &&Reason| reason.action() == Action::Drop && stats.get(**reason) > 0;
    let mut reasons: Vec<ReasonRow> = Reason::ALL
        .iter()
        .filter(counted)
        .map(|reason| ReasonRow {
            reason: reason.name().into(),
            packets: stats.get(*reason),
            left_out: stats.left_out(*reason),
            explain: reason.explain().trim().into(),
            advice: explain::advice(*reason).into(),
        })
        .collect();
    reasons.sort_by_key(|row| std::cmp::Reverse(row.packets));
    json(DropReport { reasons })
}

pub(super) async fn prefixes(State(app): Shared, Query(query): Parameters) -> Answer {
    only(&query, &["limit"])?;
    let limit = limit(&query, drops::PREFIXES)?;
    let all = blocking(&app, move |app| app.sets.plane().prefix_drops(limit)).await?;
    let rows: Vec<PrefixRow> = all
        .into_iter()
        .map(|counts| PrefixRow {
            prefix: explain::prefix(counts.prefix),
            packets: counts.total(),
            reasons: counts
                .drops
                .into_iter()
                .map(|(reason, n)| (reason.name().to_owned(), n))
                .collect(),
        })
        .collect();
    json(rows)
}

pub(super) async fn recent(State(app): Shared, Query(query): Parameters) -> Answer {
    only(&query, &["address", "limit"])?;
    let limit = limit(&query, drops::SAMPLES)?;
    let phone = query.get("address").map(|text| address(text)).transpose()?;
    let all = blocking(&app, move |app| {
        let mut names = Names::default();
        let samples = app.sets.plane().recent_drops(phone, limit)?;
        Ok(samples.iter().map(|s| names.sample(s)).collect::<Vec<_>>())
    })
    .await?;
    json(all)
}

pub(super) async fn follow(State(app): Shared) -> Result<Response, Failure> {
    let mut from = blocking(&app, |app| app.samples.subscribe(&**app.sets.plane())).await?;
    let mut stopping = app.stopping();
    Ok(stream(|to| async move {
        loop {
            let line = tokio::select! {
                line = from.recv() => line,
                _ = stopping.wait_for(|stop| *stop) => return,
                () = to.closed() => return,
            };
            let line = match line {
                Ok(line) => line,
                Err(RecvError::Lagged(n)) => samples::missed(n),
                Err(RecvError::Closed) => return,
            };
            let Ok(mut text) = serde_json::to_vec(&line) else {
                continue;
            };
            text.push(b'\n');
            if to.send(Bytes::from(text)).await.is_err() {
                return;
            }
        }
    }))
}

pub(super) async fn explain(State(app): Shared, Path(text): Path<String>) -> Answer {
    let phone = address(&text)?;
    // Phones may know it by another one, which a NAT in front of it has.
    if app.config.is_local(app.config.own(phone)) {
        let message = format!("{phone} is this host's own address");
        return Err(ApiError::new("bad-request", message)
            .hint("name the phone's, as gmespctl sa list or events show it")
            .into());
    }
    let facts = blocking(&app, move |app| Facts::collect(app, phone)).await?;
    json(explain::explain(&facts))
}

pub(super) async fn workers(State(app): Shared) -> Answer {
    json(Workers {
        workers: count_workers(&app).await?,
    })
}

pub(super) async fn set_workers(
    State(app): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Answer {
    let request: Workers = parse(body)?;
    blocking(&app, move |app| {
        app.sets.plane().set_workers(request.workers)
    })
    .await?;
    let workers = count_workers(&app).await?;
    tracing::info!(workers, %peer, "the number of workers was changed");
    json(Workers { workers })
}

async fn count_workers(app: &Arc<App>) -> Result<u32, Failure> {
    let stats = blocking(app, |app| {
        let plane = app.sets.plane();
        match plane.kind() {
            PlaneKind::Xdp => plane.stats(),
            PlaneKind::Kernel => Err(kernel::no_workers()),
        }
    })
    .await?;
    Ok(u32::try_from(stats.workers.len()).unwrap_or(u32::MAX))
}

fn bad(message: String) -> Failure {
    Failure(ApiError::new("bad-request", message).hint("GET /v1/openapi.json describes the paths"))
}

fn address(text: &str) -> Result<IpAddr, Failure> {
    let parsed: Result<IpAddr, _> = text.parse();
    parsed
        .map(|address| address.to_canonical())
        .map_err(|_| bad("the address is no IPv4 or IPv6 address".into()))
}

fn limit(query: &HashMap<String, String>, unless: usize) -> Result<usize, Failure> {
    let Some(text) = query.get("limit") else {
        return Ok(unless);
    };
    match text.parse() {
        Ok(limit @ 1..=MOST) => Ok(limit),
        _ => Err(bad(format!("limit is no number from 1 to {MOST}"))),
    }
}

fn only(query: &HashMap<String, String>, known: &[&str]) -> Result<(), Failure> {
    match query.keys().find(|key| !known.contains(&key.as_str())) {
        Some(_) => Err(bad(format!("the parameters are {}", known.join(", ")))),
        None => Ok(()),
    }
}
