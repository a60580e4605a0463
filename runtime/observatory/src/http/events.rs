//! `/api/v1/events`: the events as JSON lines, or as server-sent events for those who ask for `text/event-stream`.

use super::{App, stop_told};
use crate::event::history::Reader;
use crate::event::json;
use crate::event::select::{LineFilter, Query as EventQuery};
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

/// Events that are looked at for one piece of a stream.
const EVENTS_A_PIECE: usize = 256;

/// Answers.
pub async fn events(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<EventQuery>,
) -> Response {
    let follow = query.follow.unwrap_or(true);
    let selection = match query.selection() {
        Ok(selection) => selection,
        Err(reason) => return (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    };
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let sse = accept.is_some_and(|accept| accept.contains("text/event-stream"));
    let lines = Lines {
        reader: app.shared.history.reader(selection.filter),
        wanted: selection.lines,
        follow,
        sse,
        seq: 0,
        missed: 0,
        app,
    };
    let pieces = stream::unfold(lines, |mut lines| async move {
        let piece = lines.next().await?;
        Some((Ok::<_, Infallible>(piece), lines))
    });
    let kind = if sse { "text/event-stream" } else { "application/x-ndjson" };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(pieces)).into_response()
}

/// A stream of events as it is written.
struct Lines {
    app: App,
    reader: Reader,
    wanted: LineFilter,
    follow: bool,
    sse: bool,
    seq: u64,
    /// Events that the stream lost since its last line.
    missed: u64,
}

impl Lines {
    /// The next lines; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let batch = self.reader.read(EVENTS_A_PIECE);
            self.missed += batch.missed;
            if !batch.events.is_empty() {
                let piece = self.write(&batch.events);
                if !piece.is_empty() {
                    return Some(piece);
                }
                continue;
            }
            if !self.reader.at_end() {
                continue;
            }
            if !self.follow || *self.app.stopping.borrow() {
                return None;
            }
            tokio::select! {
                more = self.reader.wait() => if !more { return None },
                () = stop_told(&mut self.app.stopping) => return None,
            }
        }
    }

    fn write(&mut self, events: &[Arc<crate::event::Event>]) -> Bytes {
        let offset = json::wall_offset();
        let context = &self.app.shared.context;
        let mut text = String::with_capacity(events.len() * 700);
        for event in events {
            let line = json::line(event, context, self.seq + 1, self.missed, offset);
            // What was missed before a line that is left out is told with the next.
            if !self.wanted.wants(&line) {
                self.missed += event.lost_before;
                continue;
            }
            self.seq += 1;
            self.missed = 0;
            if self.sse {
                let kind = json::event_type(event);
                // Writing to a string cannot fail.
                let _ = write!(text, "id: {}\nevent: {kind}\ndata: {line}\n\n", self.seq);
            } else {
                text.push_str(&line);
                text.push('\n');
            }
        }
        Bytes::from(text)
    }
}
