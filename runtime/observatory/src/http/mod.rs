//! The HTTP side: read-only, and bounded in everything that a client decides.

pub mod client;
mod containers;
mod events;
mod leaks;
mod namespaces;
pub mod web_config;

use self::web_config::WebConfig;
use crate::metrics::{Format, Metrics};
use crate::shared::Shared;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as AppState};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections at a time. One more is closed at once.
const CONNECTIONS: usize = 256;

/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// Header lines of a request.
const HEADERS: usize = 64;

/// Time for a client to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a client's kernel to take what was sent to it, milliseconds.
const SEND_TIMEOUT_MS: u32 = 30_000;

/// What the handlers need.
#[derive(Clone)]
struct App {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
}

/// Answers those that the configuration lets in.
async fn let_in(AppState(web): AppState<Arc<WebConfig>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if web.lets_in(header).await {
        return next.run(request).await;
    }
    let realm = [(header::WWW_AUTHENTICATE, "Basic realm=\"terrarium\"")];
    (StatusCode::UNAUTHORIZED, realm, "give a name and a password\n").into_response()
}

/// Serves until `stopping` turns true, then ends open streams and gives the rest a moment.
pub async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    web: Option<Arc<WebConfig>>,
    mut stopping: watch::Receiver<bool>,
) {
    let app = App { shared, metrics, stopping: stopping.clone() };
    let router = Router::new()
        .merge(crate::page::routes())
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/v1/containers", get(containers::containers))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/leaks", get(leaks::leaks))
        .route("/api/v1/namespaces", get(namespaces::namespaces))
        .with_state(app);
    let router = match &web {
        Some(web) => router.layer(from_fn_with_state(Arc::clone(web), let_in)),
        None => router,
    };
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop_told(&mut stopping) => break,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, for instance: wait rather than spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            continue;
        };
        if let Err(error) = limit_sending(&stream) {
            tracing::debug!(%error, "cannot bound the time for sending");
        }
        let (router, stopping) = (router.clone(), stopping.clone());
        let tls = web.as_ref().and_then(|web| web.tls());
        connections.spawn(async move {
            match tls {
                None => answer(stream, router, stopping).await,
                // Hands are to be shaken in the time of a head.
                Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => answer(stream, router, stopping).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a connection is no TLS"),
                    Err(_) => tracing::debug!("a connection took too long to begin TLS"),
                },
            }
            drop(permit);
        });
    }
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(1), all_done).await.is_err() {
        connections.abort_all();
    }
}

/// Answers the requests of one connection.
async fn answer<S>(stream: S, router: Router, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = stop_told(&mut stopping) => None,
    };
    let result = if let Some(result) = ended {
        result
    } else {
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Waits until the observatory is told to stop.
async fn stop_told(stopping: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which is the end as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Lets the kernel end a connection whose other side takes nothing.
fn limit_sending(stream: &TcpStream) -> io::Result<()> {
    nix::sys::socket::setsockopt(
        stream,
        nix::sys::socket::sockopt::TcpUserTimeout,
        &SEND_TIMEOUT_MS,
    )?;
    Ok(())
}

async fn metrics_text(AppState(app): AppState<App>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::wanted_by(accept.unwrap_or_default());
    // Reading the kernel's maps and hundreds of small files blocks.
    let answer = tokio::task::spawn_blocking(move || app.metrics.answer(format)).await;
    match answer {
        Ok(Ok(pieces)) => {
            let pieces = stream::iter(pieces.map(Ok::<_, Infallible>));
            ([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(pieces))
                .into_response()
        }
        Ok(Err(error)) => problem(&error.to_string()),
        Err(error) => problem(&error.to_string()),
    }
}

fn problem(text: &str) -> Response {
    tracing::error!(error = text, "cannot answer");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{text}\n")).into_response()
}

async fn ready(AppState(app): AppState<App>) -> Response {
    let attached = app.shared.reports.iter().filter(|report| report.mechanism.is_some()).count();
    let text = format!("{attached} of {} hooks attached\n", app.shared.reports.len());
    let status = if attached > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}
