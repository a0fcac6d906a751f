//! `GET /v1/events`: one JSON object per line, as it happens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::App;
use crate::events::missed;

/// Lines that may wait for the client.
const BACKLOG: usize = 64;

pub(super) async fn events(State(app): State<Arc<App>>) -> Response {
    let mut from = app.events.subscribe();
    let mut stopping = app.stopping();
    stream(|to| async move {
        loop {
            let event = tokio::select! {
                event = from.recv() => event,
                _ = stopping.wait_for(|stop| *stop) => return,
                () = to.closed() => return,
            };
            let event = match event {
                Ok(event) => event,
                Err(RecvError::Lagged(n)) => missed(n),
                Err(RecvError::Closed) => return,
            };
            let Ok(mut line) = serde_json::to_vec(&event) else {
                continue;
            };
            line.push(b'\n');
            if to.send(Bytes::from(line)).await.is_err() {
                return;
            }
        }
    })
}

/// An answer of lines that the task sends until it ends or the client goes.
pub(super) fn stream<F>(task: impl FnOnce(Sender<Bytes>) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (to, lines) = channel(BACKLOG);
    tokio::spawn(task(to));
    (
        [(CONTENT_TYPE, "application/x-ndjson")],
        Body::new(Lines(lines)),
    )
        .into_response()
}

/// A body that grows line by line.
struct Lines(Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
