//! The HTTP server: connections in number and time bounded, requests handed to [`Api`], a graceful end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bellwire_core::limits;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::receive::PeerAddress;
use crate::{Api, ApiState};

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeReport {
    /// Connections that did not end within the grace time and were cut.
    pub cut: usize,
}

/// Serves until `shutdown` completes, then stops accepting, lets running requests finish for at most `grace`, and returns.
/// The caller keeps the engine running until then.
pub async fn serve(listener: TcpListener, state: ApiState, shutdown: impl Future<Output = ()>, grace: Duration) -> ServeReport {
    let api = Arc::new(Api::new(state.clone()));
    let places = Arc::new(Semaphore::new(limits::SERVER_CONNECTIONS_MAX));
    let (stop, stopping) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                tokio::spawn(connection(api.clone(), stream, peer, stopping.clone(), place));
            }
            Err(error) => {
                // Out of descriptors, most likely: those that end give some back.
                tracing::warn!(%error, "connection not accepted");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                }
            }
        }
    }
    state.set_closing();
    drop(listener);
    // Nobody is left to be told when all connections have ended: that is no failure.
    let _ = stop.send(true);
    let all = u32::try_from(limits::SERVER_CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let ended = tokio::time::timeout(grace, places.acquire_many(all)).await;
    state.receive().flush().await;
    let cut = if ended.is_ok() { 0 } else { limits::SERVER_CONNECTIONS_MAX.saturating_sub(places.available_permits()) };
    ServeReport { cut }
}

/// Waits for a free place first: beyond the limit connections wait in the kernel's queue, not in our memory.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, PeerAddress, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, PeerAddress(peer.ip()), place))
}

async fn connection(
    api: Arc<Api>,
    stream: TcpStream,
    peer: PeerAddress,
    mut stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let service = service_fn(|request: http::Request<Incoming>| {
        let api = &api;
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            Ok::<_, Infallible>(api.handle(request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Also how long an idle connection is kept.
        .header_read_timeout(Duration::from_secs(limits::SERVER_HEADER_SECONDS_MAX))
        .max_headers(limits::SERVER_HEADERS_MAX)
        .max_buf_size(limits::SERVER_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // A client that went away or sent no HTTP: its business.
        tracing::debug!(%error, "connection ended");
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: the server has ended.
    let _ = stopping.wait_for(|stop| *stop).await;
}
