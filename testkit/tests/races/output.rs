//! Pieces of output that come out of order, fail, or come to two coordinators.

use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::service::{LeasedJob, OutputEvent, OutputQuery};
use cmdexec_testkit::store::{Call, Fault};
use futures_util::{FutureExt, StreamExt};

use crate::{EXIT_0, Peer, Rig, coordinator, held};

/// A worker that speaks to two coordinators, and holds a job.
struct Two {
    rig: Rig,
    other: Coordinator,
    here: Peer,
    there: Peer,
    leased: LeasedJob,
}

impl Two {
    async fn new() -> Self {
        let (rig, here, leased) = held().await;
        let other = coordinator(&rig.store, &rig.clock).await;
        let there = Peer { id: here.id.clone(), service: other.as_worker(here.id.clone()) };
        Self { rig, other, here, there, leased }
    }
}

/// What a stream gives besides what is told of it.
fn text(events: impl IntoIterator<Item = Result<OutputEvent, Error>>) -> String {
    let chunk = |event: Result<OutputEvent, Error>| match event.unwrap() {
        OutputEvent::Chunk { bytes, .. } => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        _ => None,
    };
    events.into_iter().filter_map(chunk).collect()
}

#[tokio::test]
async fn output_that_comes_out_of_order_is_read_in_order() {
    let (rig, worker, leased) = held().await;
    let id = leased.job;
    let query = OutputQuery { follow: true, ..OutputQuery::default() };
    let output = rig.jobs.output(id, query).await.unwrap();
    let writing = async {
        for seqs in [&[0, 3][..], &[3, 1], &[1, 2, 4]] {
            worker.write(&leased, seqs).await.unwrap();
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        worker.finish(&leased, EXIT_0).await.unwrap();
    };
    let (events, ()) = tokio::join!(output.collect::<Vec<_>>(), writing);
    assert_eq!(text(events), "0;1;2;3;4;");
}

#[tokio::test]
async fn output_whose_write_failed_is_counted_once() {
    let (rig, worker, leased) = held().await;
    let id = leased.job;
    worker.write(&leased, &[0]).await.unwrap();
    rig.store.inject(Call::AppendOutput, Fault::Refuse);
    assert!(worker.write(&leased, &[1]).await.is_err());
    rig.store.inject(Call::AppendOutput, Fault::LoseReply);
    assert!(worker.write(&leased, &[1]).await.is_err());
    worker.write(&leased, &[1]).await.unwrap();
    worker.write(&leased, &[2]).await.unwrap();
    worker.finish(&leased, EXIT_0).await.unwrap();
    assert_eq!(&rig.job(id).await.stdout[..], b"0;1;2;");
}

#[tokio::test]
async fn a_follower_goes_on_behind_a_piece_that_came_to_another_coordinator() {
    let Two { rig, other, here, there, leased } = Two::new().await;
    let query = OutputQuery { follow: true, ..OutputQuery::default() };
    let mut output = other.jobs().output(leased.job, query).await.unwrap();
    there.write(&leased, &[0, 2]).await.unwrap();
    here.write(&leased, &[1, 3]).await.unwrap();
    let mut seen = String::new();
    rig.until(async || {
        while let Some(event) = output.next().now_or_never() {
            seen += &text(event);
        }
        seen == "0;1;2;3;"
    })
    .await;
    // It knows again what is missing.
    there.write(&leased, &[4, 6]).await.unwrap();
    there.write(&leased, &[5]).await.unwrap();
    here.finish(&leased, EXIT_0).await.unwrap();
    let rest = other.jobs().output(leased.job, OutputQuery::default()).await.unwrap().count().await;
    assert_eq!(rest, 7 + 1);
}

#[tokio::test]
async fn output_that_another_coordinator_completed_is_read_whole() {
    let Two { rig: _rig, other, here, there, leased } = Two::new().await;
    there.write(&leased, &[0, 2]).await.unwrap();
    here.write(&leased, &[1]).await.unwrap();
    here.finish(&leased, EXIT_0).await.unwrap();
    // It has not heard of the end yet, and still misses a piece.
    let output = other.jobs().output(leased.job, OutputQuery::default()).await.unwrap();
    assert_eq!(text(output.collect::<Vec<_>>().await), "0;1;2;");
}
