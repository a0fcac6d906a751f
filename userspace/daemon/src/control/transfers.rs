//! SAs from and to the kernel.

use axum::extract::{ConnectInfo, State};
use gm_api::transfer::{TransferReply, TransferRequest};

use super::answer::{Answer, json};
use super::handlers::{Body, Shared, blocking, parse};
use super::serve::Peer;

pub(super) async fn adopt(
    State(app): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Answer {
    let request: TransferRequest = parse(body)?;
    let dry = request.dry_run;
    let reply = blocking(&app, move |app| app.migration.adopt(app, &request)).await?;
    if !dry {
        tracing::info!(sets = ?numbers(&reply), %peer, "SAs taken over from the kernel");
    }
    json(reply)
}

pub(super) async fn give_back(
    State(app): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Answer {
    let request: TransferRequest = parse(body)?;
    let dry = request.dry_run;
    let reply = blocking(&app, move |app| app.migration.give_back(app, &request)).await?;
    if !dry {
        tracing::info!(sets = ?numbers(&reply), %peer, "SAs given back to the kernel");
    }
    json(reply)
}

fn numbers(reply: &TransferReply) -> Vec<u64> {
    reply.sets.iter().filter_map(|set| set.set).collect()
}
