//! Files that jobs bring and leave.

use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::files::{FileId, GetRange};
use cmdexec_core::id::LeaseToken;
use cmdexec_core::job::{JobSpec, Outcome};
use cmdexec_core::service::{JobServiceExt, Role};
use futures_util::TryStreamExt;

use crate::service::Rig;
use crate::service::rig::report;

/// A ZIP without entries.
const EMPTY: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

pub async fn what_no_job_of_a_worker_brings_is_not_there_for_it(rig: Rig) {
    let worker = rig.worker("w").await;
    let file = rig.ada().upload_bytes(None, Bytes::from_static(EMPTY)).await.unwrap();
    rig.submit().await;
    worker.take().await;
    let download = async |file| worker.service.download(Some(&worker.id), file, None).await.map(drop);
    assert_eq!(download(file.id).await, Err(Error::FileNotFound));
    assert_eq!(download(FileId::from_sha256([7; 32])).await, Err(Error::FileNotFound));
}

pub async fn a_jobs_file_is_there_for_the_worker_that_has_it(rig: Rig) {
    let worker = rig.worker("w").await;
    let file = rig.ada().upload_bytes(Some("a/b.zip"), Bytes::from_static(EMPTY)).await.unwrap();
    let mut spec = JobSpec::shell("true");
    spec.input = Some(file.id);
    rig.submit_spec(spec).await;
    worker.take().await;
    let read = async |range| {
        let download = worker.service.download(Some(&worker.id), file.id, range).await.unwrap();
        let bytes: Vec<Bytes> = download.bytes.try_collect().await.unwrap();
        (download.range, bytes.concat())
    };
    assert_eq!(read(None).await, (0..22, EMPTY.to_vec()));
    assert_eq!(read(Some(GetRange::Offset(20))).await, (20..22, vec![0, 0]));
    let beyond = worker.service.download(Some(&worker.id), file.id, Some(GetRange::Offset(22))).await;
    assert!(matches!(beyond.map(drop), Err(Error::Invalid(problems)) if problems[0].field == "range"));
}

pub async fn an_upload_is_its_owners(rig: Rig) {
    let file = rig.ada().upload_bytes(Some("a/b.zip"), Bytes::from_static(EMPTY)).await.unwrap();
    assert_eq!((file.name.as_deref(), file.size), (Some("b.zip"), 22));
    assert_eq!(rig.ada().file(file.id).await.unwrap(), file);
    assert_eq!(rig.ada().files(None, 10).await.unwrap(), std::slice::from_ref(&file));
    assert_eq!(rig.user("bob", Role::User).file(file.id).await, Err(Error::FileNotFound));
    assert_eq!(rig.user("bob", Role::User).download(file.id, None).await.map(drop), Err(Error::FileNotFound));
    assert_eq!(rig.user("bob", Role::User).delete_file(file.id).await, Err(Error::FileNotFound));
    let mut spec = JobSpec::shell("true");
    spec.input = Some(file.id);
    assert!(
        matches!(rig.user("bob", Role::User).submit(spec.clone()).await, Err(Error::Invalid(problems)) if problems[0].field == "fileId")
    );

    let job = rig.ada().submit(spec).await.unwrap().id;
    assert_eq!(rig.ada().delete_file(file.id).await, Err(Error::FileInUse));
    rig.ada().cancel(job).await.unwrap();
    rig.ada().delete_file(file.id).await.unwrap();
    assert_eq!(rig.ada().file(file.id).await, Err(Error::FileNotFound));
}

pub async fn the_same_bytes_again_renew_the_file(rig: Rig) {
    let first = rig.ada().upload_bytes(Some("a.zip"), Bytes::from_static(EMPTY)).await.unwrap();
    rig.clock.advance(Duration::from_secs(3_600));
    let second = rig.ada().upload_bytes(Some("b.zip"), Bytes::from_static(EMPTY)).await.unwrap();
    assert_eq!((second.id, second.name.as_deref()), (first.id, Some("b.zip")));
    assert!(second.created > first.created && second.expires > first.expires);
    assert_eq!(rig.ada().files(None, 10).await.unwrap(), [second]);
}

pub async fn an_upload_expires_for_new_jobs(rig: Rig) {
    let file = rig.ada().upload_bytes(None, Bytes::from_static(EMPTY)).await.unwrap();
    let mut spec = JobSpec::shell("true");
    spec.input = Some(file.id);
    rig.submit_spec(spec.clone()).await;
    let worker = rig.worker("w").await;
    let leased = worker.take().await;
    rig.clock.advance(Duration::from_secs(8 * 86_400));
    assert_eq!(rig.ada().file(file.id).await, Err(Error::FileNotFound));
    assert_eq!(rig.ada().files(None, 10).await.unwrap(), []);
    assert!(matches!(rig.ada().submit(spec).await, Err(Error::Invalid(problems)) if problems[0].field == "fileId"));
    drop(leased);
}

pub async fn what_ends_early_is_not_kept(rig: Rig) {
    let broken = futures_util::stream::iter([Ok(Bytes::from_static(EMPTY)), Err(Error::JobNotFound)]);
    assert_eq!(rig.ada().upload(None, Box::pin(broken)).await, Err(Error::JobNotFound));
    let none = rig.ada().upload_bytes(None, Bytes::from_static(b"no ZIP")).await;
    assert!(matches!(none, Err(Error::Invalid(problems)) if problems[0].field == "file"));
    assert_eq!(rig.ada().files(None, 10).await.unwrap(), []);
    assert!(matches!(
        rig.user("ada", Role::Viewer).upload_bytes(None, Bytes::from_static(EMPTY)).await,
        Err(Error::Forbidden(_))
    ));
}

pub async fn what_a_job_leaves_is_its_owners(rig: Rig) {
    let worker = rig.worker("w").await;
    let id = rig.submit().await;
    let leased = worker.take().await;
    let zip = || Box::pin(futures_util::stream::iter([Ok(Bytes::from_static(EMPTY))]));
    let upload = async |token| worker.service.upload_artifacts(&worker.id, id, token, zip()).await;
    assert_eq!(upload(Some(LeaseToken::from_bits(7))).await, Err(Error::LeaseLost));
    let other = rig.worker("other").await;
    assert_eq!(other.service.upload_artifacts(&other.id, id, None, zip()).await, Err(Error::LeaseLost));
    let mut report = report(&leased, Outcome::Exited { code: 0 });
    report.details.artifacts = Some(FileId::from_sha256([7; 32]));
    assert!(matches!(worker.report(report.clone()).await, Err(Error::Invalid(_))), "it was not uploaded");
    let file = upload(Some(leased.token)).await.unwrap();
    report.details.artifacts = Some(file);
    report.details.warnings = vec!["a warning".to_owned()];
    worker.report(report.clone()).await.unwrap();
    worker.report(report).await.unwrap();
    let view = rig.view(id).await;
    assert_eq!((view.artifacts, view.details.artifacts), (Some(file), Some(file)));
    assert_eq!(view.details.warnings, ["a warning"]);
    let kept = rig.ada().file(file).await.unwrap();
    assert_eq!((kept.size, kept.expires), (22, None));
    assert_eq!(rig.ada().files(None, 10).await.unwrap(), [], "it is no upload");
    assert_eq!(rig.user("bob", Role::User).file(file).await, Err(Error::FileNotFound));
    assert_eq!(upload(Some(leased.token)).await, Err(Error::LeaseLost), "the attempt is over");
}
