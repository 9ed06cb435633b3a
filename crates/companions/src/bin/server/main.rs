//! A web server that keeps values in memory, and shows its heap to Prometheus at `/metrics`. With the feature `sites`
//! it answers at `/debug/pprof/heap` which code holds the memory.
//!
//! The dashboard in `crates/companions/grafana` draws these numbers.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::{env, io};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use smalloc::{PrometheusOptions, PrometheusSource, SmallocGlobal};
use tokio::net::TcpListener;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

/// The formats that `/metrics` answers in.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The values by their keys.
type Items = Arc<RwLock<HashMap<String, Bytes>>>;

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let item = get(find).put(insert).delete(remove);
    #[cfg(feature = "sites")]
    HEAP.count_sites().map_err(io::Error::from_raw_os_error)?;
    let app = Router::new().route("/items/{key}", item).route("/metrics", get(metrics));
    #[cfg(feature = "sites")]
    let app = app.route("/debug/pprof/heap", get(profile));
    axum::serve(listener, app.with_state(Items::default())).await
}

async fn find(State(items): State<Items>, Path(key): Path<String>) -> Result<Bytes, StatusCode> {
    let items = items.read().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    items.get(&key).cloned().ok_or(StatusCode::NOT_FOUND)
}

async fn insert(State(items): State<Items>, Path(key): Path<String>, value: Bytes) -> StatusCode {
    match items.write() {
        // The request's buffer is larger than the value, and would stay with it.
        Ok(mut items) => match items.insert(key, Bytes::copy_from_slice(&value)) {
            Some(_) => StatusCode::NO_CONTENT,
            None => StatusCode::CREATED,
        },
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn remove(State(items): State<Items>, Path(key): Path<String>) -> StatusCode {
    match items.write().map(|mut items| items.remove(&key)) {
        Ok(Some(_)) => StatusCode::NO_CONTENT,
        Ok(None) => StatusCode::NOT_FOUND,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The numbers of the heap, as OpenMetrics if the scraper takes that.
async fn metrics(headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let open_metrics = accepted.is_some_and(|accepted| accepted.contains("application/openmetrics-text"));
    let stats = HEAP.stats();
    let mut text = String::with_capacity(16 << 10);
    let options = PrometheusOptions::new().open_metrics(open_metrics);
    match options.write(&[PrometheusSource::new(&stats).heap("server")], &mut text) {
        Ok(()) => ([(CONTENT_TYPE, if open_metrics { OPEN_METRICS } else { PLAIN })], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A profile for `pprof`, of the blocks in use and of all so far, by call stack.
#[cfg(feature = "sites")]
async fn profile() -> Response {
    match HEAP.sites() {
        Ok(sites) => {
            let mut profile = Vec::new();
            sites.write_pprof(|bytes| profile.extend_from_slice(bytes));
            ([(CONTENT_TYPE, "application/octet-stream")], profile).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
