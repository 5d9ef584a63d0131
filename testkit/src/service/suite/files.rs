//! Files that jobs bring and leave.

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::files::{FileId, GetRange};
use cmdexec_core::job::JobSpec;
use cmdexec_core::service::{JobServiceExt, Role};
use futures_util::TryStreamExt;

use crate::service::Rig;

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
