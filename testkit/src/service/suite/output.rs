//! Output: ordered, once, resumable, bounded, and over when the job is.

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::LeaseToken;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{FinalOutput, OutputBatch, OutputEvent, OutputPieces, OutputQuery};
use cmdexec_core::store::Chunk;

use crate::service::rig::{Rig, err, eventually, next, out, report, text};

const FOLLOW: OutputQuery = OutputQuery { from: None, follow: true, stream: None };

pub async fn output_is_given_in_its_order_with_its_streams(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.write(&leased, vec![out(0, "a"), err(1, "b"), out(2, "c")]).await.unwrap();
    worker.exit(&leased, 0).await;
    let events = rig.output(id).await;
    assert_eq!(text(&events), "abc");
    assert_eq!(events.last(), Some(&OutputEvent::End { status: Status::Completed }));
    for (stream, expected) in [(Stream::Stdout, "ac"), (Stream::Stderr, "b")] {
        let only = rig.output_with(id, OutputQuery { stream: Some(stream), ..OutputQuery::default() }).await;
        assert_eq!(text(&only), expected);
    }
    let view = rig.view(id).await;
    assert_eq!((&view.stdout[..], &view.stderr[..], view.dropped), (&b"ac"[..], &b"b"[..], 0));
}

pub async fn bytes_are_bytes(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    let bytes: Bytes = (0..=255).collect::<Vec<u8>>().into();
    let chunk = Chunk { seq: 0, stream: Stream::Stdout, bytes: bytes.clone() };
    worker.write(&leased, vec![chunk]).await.unwrap();
    worker.exit(&leased, 0).await;
    assert_eq!(rig.view(id).await.stdout, bytes);
    let events = rig.output(id).await;
    assert!(matches!(&events[0], OutputEvent::Chunk { bytes: given, .. } if *given == bytes));
}

pub async fn a_piece_that_was_seen_is_ignored(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.write(&leased, vec![out(0, "a"), out(1, "b")]).await.unwrap();
    worker.write(&leased, vec![out(0, "a"), out(1, "b"), out(2, "c")]).await.unwrap();
    worker.write(&leased, vec![out(1, "b")]).await.unwrap();
    assert_eq!(text(&rig.output(id).await), "abc");
}

pub async fn pieces_that_come_out_of_order_are_put_in_order(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.write(&leased, vec![out(2, "c")]).await.unwrap();
    worker.write(&leased, vec![out(0, "a")]).await.unwrap();
    worker.write(&leased, vec![out(1, "b")]).await.unwrap();
    worker.exit(&leased, 0).await;
    assert_eq!(text(&rig.output(id).await), "abc");
}

pub async fn batches_are_answered_each_by_itself(rig: Rig) {
    let worker = rig.worker("w").await;
    let (first, second) = (rig.submit().await, rig.submit().await);
    let leased = worker.ask(2).await;
    let batch =
        |job, token, text| OutputBatch { job, token: Some(token), pieces: OutputPieces::Numbered(vec![out(0, text)]) };
    let batches = vec![
        batch(leased[0].job, leased[0].token, "one"),
        batch(leased[0].job, LeaseToken::from_bits(7), "forged"),
        batch(leased[1].job, leased[1].token, "two"),
    ];
    let answers = worker.service.append_output(&worker.id, batches).await.unwrap();
    assert_eq!(answers.len(), 3);
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(answers[1], Err(Error::LeaseLost));
    assert_eq!(text(&rig.output(first).await), "one");
    assert_eq!(text(&rig.output(second).await), "two");
}

pub async fn output_after_the_end_is_refused(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.write(&leased, vec![out(0, "a")]).await.unwrap();
    worker.exit(&leased, 0).await;
    assert_eq!(worker.write(&leased, vec![out(1, "b")]).await, Err(Error::LeaseLost));
    assert_eq!(text(&rig.output(id).await), "a");
}

pub async fn the_rest_comes_with_the_report(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.write(&leased, vec![out(0, "a")]).await.unwrap();
    let mut last = report(&leased, Outcome::Exited { code: 0 });
    last.output = FinalOutput::Rest(vec![out(0, "a"), err(1, "b")]);
    worker.report(last.clone()).await.unwrap();
    worker.report(last).await.unwrap();
    assert_eq!(text(&rig.output(id).await), "ab");
    assert_eq!(&rig.view(id).await.stderr[..], b"b");
}

pub async fn a_reader_that_does_not_follow_ends_where_the_output_does(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    assert_eq!(rig.output(id).await, [OutputEvent::End { status: Status::Queued }]);
    let leased = worker.take().await;
    worker.write(&leased, vec![out(0, "a")]).await.unwrap();
    let events = rig.output(id).await;
    assert_eq!((text(&events).as_str(), events.last()), ("a", Some(&OutputEvent::End { status: Status::Running })));
}

pub async fn a_follower_gets_what_comes_and_the_end(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let mut stream = rig.ada().output(id, FOLLOW).await.unwrap();
    let leased = worker.take().await;
    for (seq, piece) in ["a", "b", "c"].into_iter().enumerate() {
        worker.write(&leased, vec![out(seq as u64, piece)]).await.unwrap();
        assert_eq!(text(&[next(&mut stream).await]), piece);
    }
    worker.exit(&leased, 0).await;
    assert_eq!(next(&mut stream).await, OutputEvent::End { status: Status::Completed });
}

pub async fn a_follower_waits_for_a_piece_that_is_missing(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.write(&leased, vec![out(0, "a"), out(2, "c")]).await.unwrap();
    let mut stream = rig.ada().output(id, FOLLOW).await.unwrap();
    assert_eq!(text(&[next(&mut stream).await]), "a");
    worker.write(&leased, vec![out(1, "b")]).await.unwrap();
    assert_eq!(text(&[next(&mut stream).await]), "b");
    assert_eq!(text(&[next(&mut stream).await]), "c");
}

pub async fn a_cursor_resumes_without_loss_or_repetition(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    // Different streams, so that nothing is joined.
    worker.write(&leased, vec![out(0, "a"), err(1, "b"), out(2, "c"), err(3, "d")]).await.unwrap();
    worker.exit(&leased, 0).await;
    let all = rig.output(id).await;
    for (i, event) in all.iter().enumerate() {
        if let OutputEvent::Chunk { cursor, .. } = event {
            let rest = rig.output_with(id, OutputQuery { from: Some(*cursor), ..OutputQuery::default() }).await;
            assert_eq!(rest, all[i + 1..]);
        }
    }
}

pub async fn a_new_attempt_voids_what_was_followed(rig: Rig) {
    let worker = rig.worker("w").await;
    let mut spec = JobSpec::shell("true");
    spec.retries = 1;
    let id = rig.submit_spec(spec).await;
    let first = worker.take().await;
    worker.write(&first, vec![out(0, "first")]).await.unwrap();
    let mut stream = rig.ada().output(id, FOLLOW).await.unwrap();
    let OutputEvent::Chunk { cursor, .. } = next(&mut stream).await else { panic!("no chunk") };
    worker.exit(&first, 1).await;
    rig.advance_until(id, Status::Queued).await;
    let second = worker.take_soon().await;
    worker.write(&second, vec![out(0, "second")]).await.unwrap();
    assert!(matches!(next(&mut stream).await, OutputEvent::Reset { .. }));
    assert_eq!(text(&[next(&mut stream).await]), "second");
    let resumed = rig.output_with(id, OutputQuery { from: Some(cursor), ..OutputQuery::default() }).await;
    assert!(matches!(resumed[0], OutputEvent::Reset { .. }));
    assert_eq!(text(&resumed), "second");
    assert_eq!(&rig.view(id).await.stdout[..], b"second");
}

pub async fn output_is_kept_within_the_cap_head_and_tail(rig: Rig) {
    const MIB: usize = 1024 * 1024;
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    // 24 MiB where 16 are kept, in pieces that tell where they are from.
    let piece = |i: u64| Chunk {
        seq: i,
        stream: Stream::Stdout,
        bytes: vec![u8::try_from(i % 251).unwrap(); 64 * 1024].into(),
    };
    for batch in 0..24 {
        worker.write(&leased, (0..16).map(|i| piece(batch * 16 + i)).collect()).await.unwrap();
    }
    worker.exit(&leased, 0).await;
    let chunks: Vec<_> = rig
        .output(id)
        .await
        .into_iter()
        .filter_map(|event| if let OutputEvent::Chunk { bytes, .. } = event { Some(bytes) } else { None })
        .collect();
    let kept = chunks.concat();
    assert!(kept.len() <= 16 * MIB && kept.len() > 12 * MIB, "{} bytes are kept", kept.len());
    assert_eq!((kept[0], kept[64 * 1024]), (0, 1), "the head is kept");
    assert_eq!(kept[kept.len() - 1], u8::try_from(383 % 251).unwrap(), "the tail is kept");
    let view = rig.view(id).await;
    assert_eq!(view.dropped, (24 * MIB - kept.len()) as u64);
    assert_eq!(view.stdout.len(), 64 * 1024, "a view has the last 64 KiB of a stream");
}

pub async fn a_job_that_ends_without_running_ends_its_followers(rig: Rig) {
    let id = rig.submit().await;
    let mut stream = rig.ada().output(id, FOLLOW).await.unwrap();
    rig.ada().cancel(id).await.unwrap();
    assert_eq!(next(&mut stream).await, OutputEvent::End { status: Status::Cancelled });
}

pub async fn asking_without_output_says_whether_to_stop(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    assert!(!worker.write(&leased, vec![]).await.unwrap().cancel);
    rig.ada().cancel(id).await.unwrap();
    assert!(worker.write(&leased, vec![out(0, "a")]).await.unwrap().cancel);
}

// Workers of earlier protocol versions.

pub async fn an_older_workers_pieces_are_taken_as_they_come(rig: Rig) {
    let worker = rig.worker_with("w", older).await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    for piece in ["a", "b", "a"] {
        worker.write_plain(&leased, piece).await.unwrap();
    }
    assert_eq!(text(&rig.output(id).await), "aba");
}

pub async fn an_older_workers_whole_output_replaces_what_it_streamed(rig: Rig) {
    let worker = rig.worker_with("w", older).await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.write_plain(&leased, "partial").await.unwrap();
    let mut stream = rig.ada().output(id, FOLLOW).await.unwrap();
    assert_eq!(text(&[next(&mut stream).await]), "partial");
    let mut last = report(&leased, Outcome::Exited { code: 0 });
    last.token = None;
    last.output = FinalOutput::Whole { stdout: "whole".into(), stderr: "errors".into() };
    worker.report(last).await.unwrap();
    assert!(matches!(next(&mut stream).await, OutputEvent::Reset { .. }));
    let view = rig.view(id).await;
    assert_eq!((&view.stdout[..], &view.stderr[..]), (&b"whole"[..], &b"errors"[..]));
    assert_eq!(text(&rig.output(id).await), "wholeerrors");
}

pub async fn an_older_worker_without_a_token_reports_by_its_name(rig: Rig) {
    let (worker, other) = (rig.worker_with("w", older).await, rig.worker_with("other", older).await);
    let id = rig.submit().await;
    let leased = worker.take().await;
    let mut plain = report(&leased, Outcome::Exited { code: 0 });
    plain.token = None;
    assert_eq!(other.report(plain.clone()).await, Err(Error::LeaseLost));
    assert_eq!(rig.status(id).await, Status::Running);
    worker.report(plain.clone()).await.unwrap();
    worker.report(plain).await.unwrap();
    assert_eq!(rig.status(id).await, Status::Completed);
}

pub async fn an_older_workers_heartbeat_renews_all_it_has(rig: Rig) {
    let worker = rig.worker_with("w", older).await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    for _ in 0..12 {
        rig.clock.advance(std::time::Duration::from_secs(20));
        worker.beat(None).await.unwrap();
    }
    assert_eq!(rig.status(id).await, Status::Running);
    rig.ada().cancel(id).await.unwrap();
    assert_eq!(worker.beat(None).await.unwrap().cancel, [id]);
    worker.finish(&leased, Outcome::Stopped).await.unwrap();
    eventually("it to be cancelled", async || (rig.status(id).await == Status::Cancelled).then_some(())).await;
}

pub async fn an_older_workers_asking_is_its_capacity(rig: Rig) {
    let worker = rig.worker_with("w", older).await;
    for _ in 0..10 {
        rig.submit().await;
    }
    let mut got = 0;
    for _ in 0..10 {
        got += worker.ask(1).await.len();
    }
    assert_eq!(got, 10);
}

fn older(registration: &mut cmdexec_core::service::Registration) {
    registration.executors = None;
    registration.slots = None;
}
