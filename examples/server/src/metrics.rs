//! What the server tells Prometheus, on a listener of its own.

use std::fmt::Write;
use std::future::IntoFuture;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cmdexec_core::service::{JobService, Stats};
use cmdexec_transport_http::server::{REQUEST_SECONDS, REQUESTS};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// From a tenth of a millisecond, which a read from memory takes, to the 5 s at which callers have given up.
const BUCKETS: [f64; 12] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 3.0, 5.0];

/// The same for requests, up to the 60 s that a poll may wait.
const HTTP_BUCKETS: [f64; 13] = [0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 5.0, 10.0, 30.0, 61.0];

/// Keeps what is counted in this process from now on.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let store = Matcher::Full(crate::measured::SECONDS.to_owned());
    let http = Matcher::Full(REQUEST_SECONDS.to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(store, &BUCKETS)?;
    let handle = builder.set_buckets_for_metric(http, &HTTP_BUCKETS)?.install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    metrics::describe_counter!(crate::measured::SUBMITTED, "Jobs that were submitted here");
    metrics::describe_counter!(crate::measured::ENDED, "Jobs that ended here, by how");
    metrics::describe_counter!(crate::measured::ERRORS, "Calls to the store that failed, by call");
    metrics::describe_histogram!(crate::measured::SECONDS, "How long calls to the store took, by call");
    metrics::describe_counter!(REQUESTS, "Requests that were answered, by route, method and class of status");
    metrics::describe_histogram!(REQUEST_SECONDS, "How long requests took to be answered, waiting polls included");
}

#[derive(Clone)]
struct Source {
    recorder: PrometheusHandle,
    jobs: Arc<dyn JobService>,
}

/// Answers `GET /metrics` until it is told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    recorder: PrometheusHandle,
    jobs: Arc<dyn JobService>,
    stop: CancellationToken,
) {
    let router = Router::new().route("/metrics", get(answer)).with_state(Source { recorder, jobs });
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.into_future().await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

async fn answer(State(source): State<Source>) -> Response {
    match source.jobs.stats().await {
        Ok(stats) => {
            source.recorder.run_upkeep();
            let text = source.recorder.render() + &gauges(&stats);
            ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// What is there now. Written anew at each scrape rather than kept, so that a class whose last job is gone is gone too.
fn gauges(stats: &Stats) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, samples: Vec<(String, f64)>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let label = |name: &str, value: &str| format!("{{{name}=\"{}\"}}", escape(value));
    let jobs = stats.jobs.iter().map(|(status, n)| (label("status", status.as_str()), *n as f64));
    family("cmdexec_jobs", "Jobs by status", jobs.collect());
    let queued = stats.queues.iter().map(|queue| (label("class", queue.class.key()), queue.queued as f64));
    family("cmdexec_queue_jobs", "Queued jobs by class", queued.collect());
    let waits = stats.queues.iter().map(|queue| (label("class", queue.class.key()), queue.head_wait.as_secs_f64()));
    family("cmdexec_queue_head_wait_seconds", "How long the class's first job has waited", waits.collect());
    let workers = stats.workers.iter().map(|(status, n)| (label("status", status.as_str()), *n as f64));
    family("cmdexec_workers", "Workers by status", workers.collect());
    let finished = vec![(String::new(), stats.finished_last_minute as f64)];
    family("cmdexec_jobs_finished_last_minute", "Jobs that ended here within the last minute", finished);
    text
}

fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cmdexec_core::job::{Class, JobSpec, Status};
    use cmdexec_core::service::ClassStats;

    use super::*;

    #[test]
    fn classes_are_escaped() {
        let class = Class::of(&JobSpec::shell("true"));
        let queues = vec![ClassStats { class, queued: 2, head_wait: Duration::from_millis(1_500) }];
        let text = gauges(&Stats { queues, jobs: [(Status::Queued, 2)].into(), ..Stats::default() });
        assert!(text.contains("cmdexec_jobs{status=\"queued\"} 2\n"), "{text}");
        assert!(
            text.contains("cmdexec_queue_head_wait_seconds{class=\"{\\\"kind\\\":\\\"process\\\"}\"} 1.5\n"),
            "{text}"
        );
    }
}
