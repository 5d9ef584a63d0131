//! Output: ordered, once, resumable, bounded, and over when the job is.

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::LeaseToken;
use cmdexec_core::job::{JobSpec, Outcome, Status};
use cmdexec_core::service::{FinalOutput, OutputBatch, OutputEvent, OutputPieces, OutputQuery};
use cmdexec_core::store::Chunk;
use cmdexec_core::time::Clock;

use crate::service::rig::{Rig, err, eventually, next, out, report, text};

const FOLLOW: OutputQuery = OutputQuery { from: None, since: None, tail: None, follow: true, stream: None };

/// How many bytes events give or say to be missing.
fn told(events: &[OutputEvent]) -> u64 {
    let of = |event: &OutputEvent| match event {
        OutputEvent::Chunk { bytes, .. } => bytes.len() as u64,
        OutputEvent::Gap { bytes, .. } => *bytes,
        OutputEvent::Reset { .. } | OutputEvent::End { .. } => 0,
    };
    events.iter().map(of).sum()
}

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
    // The place of the loss is told, where the head ends, with all of it.
    let events = rig.output(id).await;
    let head = events.iter().take_while(|event| matches!(event, OutputEvent::Chunk { .. })).count();
    assert!((head + 1) * 64 * 1024 >= 8 * MIB, "the head has {head} pieces");
    assert!(matches!(&events[head], OutputEvent::Gap { bytes, .. } if *bytes == view.dropped), "{:?}", events[head]);
    assert_eq!(events.iter().filter(|event| matches!(event, OutputEvent::Gap { .. })).count(), 1);
    // From any place on, what is given and what is said to be missing come to what was written.
    for event in events.iter().step_by(50).chain([&events[head]]) {
        let Some(from) = event.cursor() else { continue };
        let rest = rig.output_with(id, OutputQuery { from: Some(from), ..OutputQuery::default() }).await;
        assert_eq!(from.bytes + told(&rest), 24 * MIB as u64);
    }
    assert_eq!(view.stdout.len(), 64 * 1024, "a view has the last 64 KiB of a stream");
}

/// A reader that was given what is then trimmed is told how much it missed, and no more.
pub async fn a_reader_that_is_overtaken_by_the_cap_is_told_what_it_missed(rig: Rig) {
    const MIB: u64 = 1024 * 1024;
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    let piece = |seq: u64| Chunk { seq, stream: Stream::Stdout, bytes: vec![b'x'; 64 * 1024].into() };
    // 12 MiB, all kept, of which it takes 11.
    for batch in 0..12 {
        worker.write(&leased, (0..16).map(|i| piece(batch * 16 + i)).collect()).await.unwrap();
    }
    let mut stream = rig.ada().output(id, FOLLOW).await.unwrap();
    let mut given = 0;
    let mut last = None;
    while given < 11 * MIB {
        let event = next(&mut stream).await;
        given += told(std::slice::from_ref(&event));
        last = event.cursor();
    }
    drop(stream);
    // 20 more, of which the last 8 are kept.
    for batch in 12..32 {
        worker.write(&leased, (0..16).map(|i| piece(batch * 16 + i)).collect()).await.unwrap();
    }
    worker.exit(&leased, 0).await;
    let rest = rig.output_with(id, OutputQuery { from: last, ..OutputQuery::default() }).await;
    let OutputEvent::Gap { bytes, .. } = rest[0] else { panic!("{:?}", rest[0]) };
    let kept: u64 = told(&rest) - bytes;
    assert!((7 * MIB..=8 * MIB).contains(&kept), "{kept} bytes are kept");
    assert_eq!(given + bytes + kept, 32 * MIB);
}

pub async fn every_follower_gets_every_byte(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let mut readers = Vec::new();
    let mut late = Vec::new();
    for n in 0..20 {
        let stream = (n % 3 == 2).then_some(Stream::Stderr);
        let mut output = rig.ada().output(id, OutputQuery { stream, ..FOLLOW }).await.unwrap();
        readers.push(tokio::spawn(async move {
            let mut text = Vec::new();
            loop {
                match next(&mut output).await {
                    OutputEvent::Chunk { bytes, .. } => text.extend_from_slice(&bytes),
                    OutputEvent::End { .. } => return (stream, text),
                    event => panic!("{event:?}"),
                }
            }
        }));
        late.push(rig.ada().output(id, FOLLOW).await.unwrap());
    }
    let leased = worker.take().await;
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    // 6 MiB, several times what is held for followers.
    for seq in 0..192_u64 {
        let stream = if seq % 4 == 3 { Stream::Stderr } else { Stream::Stdout };
        let bytes = vec![u8::try_from(seq % 251).unwrap(); 32 * 1024];
        all.extend_from_slice(&bytes);
        if stream == Stream::Stderr {
            errors.extend_from_slice(&bytes);
        }
        worker.write(&leased, vec![Chunk { seq, stream, bytes: bytes.into() }]).await.unwrap();
        if seq == 20 {
            // One that begins to read in between, and one that has not begun but fell behind.
            assert!(matches!(next(&mut late[0]).await, OutputEvent::Chunk { .. }));
        }
    }
    worker.exit(&leased, 0).await;
    for reader in readers {
        let (stream, text) = reader.await.unwrap();
        assert!(text == if stream.is_some() { &errors[..] } else { &all[..] });
    }
    for (n, mut output) in late.into_iter().enumerate() {
        let mut given = if n == 0 { 32 * 1024 } else { 0 };
        loop {
            match next(&mut output).await {
                OutputEvent::Chunk { bytes, .. } => given += bytes.len(),
                OutputEvent::End { .. } => break,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(given, all.len());
    }
}

pub async fn the_last_lines_are_given(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.write(&leased, vec![out(0, "one\ntwo\nthr"), err(1, "oops\n"), out(2, "ee\nfo")]).await.unwrap();
    let tail = async |tail, stream| {
        let query = OutputQuery { tail: Some(tail), stream, ..OutputQuery::default() };
        text(&rig.output_with(id, query).await)
    };
    assert_eq!(tail(0, None).await, "");
    assert_eq!(tail(1, None).await, "fo");
    assert_eq!(tail(2, None).await, "ee\nfo");
    assert_eq!(tail(3, None).await, "throops\nee\nfo");
    assert_eq!(tail(2, Some(Stream::Stdout)).await, "three\nfo");
    assert_eq!(tail(1, Some(Stream::Stderr)).await, "oops\n");
    assert_eq!(tail(99, None).await, "one\ntwo\nthroops\nee\nfo");
    // What follows is given too.
    let mut stream = rig.ada().output(id, OutputQuery { tail: Some(1), ..FOLLOW }).await.unwrap();
    assert_eq!(text(&[next(&mut stream).await]), "fo");
    worker.write(&leased, vec![out(3, "ur\n")]).await.unwrap();
    assert_eq!(text(&[next(&mut stream).await]), "ur\n");
    worker.exit(&leased, 0).await;
    assert_eq!(tail(1, Some(Stream::Stdout)).await, "four\n");
}

pub async fn the_last_lines_of_much_are_found(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    for batch in 0..4_u64 {
        let pieces = (0..100).map(|n| out(batch * 100 + n, &format!("{}\n", batch * 100 + n)));
        worker.write(&leased, pieces.collect()).await.unwrap();
    }
    worker.exit(&leased, 0).await;
    for lines in [1, 15, 16, 17, 200, 399, 400, 401] {
        let query = OutputQuery { tail: Some(lines), ..OutputQuery::default() };
        let given = text(&rig.output_with(id, query).await);
        assert_eq!(given.lines().count(), lines.min(400));
        assert!(given.ends_with("399\n"));
    }
    let too_many = OutputQuery { tail: Some(OutputQuery::MAX_TAIL + 1), ..OutputQuery::default() };
    assert!(matches!(rig.ada().output(id, too_many).await.map(drop), Err(Error::Invalid(_))));
}

pub async fn output_is_given_from_a_time_on(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    worker.write(&leased, vec![out(0, "early\n")]).await.unwrap();
    rig.clock.advance(std::time::Duration::from_secs(10));
    let time = rig.clock.now();
    let since = OutputQuery { since: Some(time), ..OutputQuery::default() };
    assert_eq!(text(&rig.output_with(id, since).await), "");
    let mut stream = rig.ada().output(id, OutputQuery { follow: true, ..since }).await.unwrap();
    worker.write(&leased, vec![out(1, "late\n"), out(2, "later\n")]).await.unwrap();
    assert_eq!(text(&[next(&mut stream).await]), "late\n");
    assert_eq!(text(&rig.output_with(id, since).await), "late\nlater\n");
    assert_eq!(text(&rig.output_with(id, OutputQuery { tail: Some(1), ..since }).await), "later\n");
    assert_eq!(text(&rig.output_with(id, OutputQuery { tail: Some(9), ..since }).await), "late\nlater\n");
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
