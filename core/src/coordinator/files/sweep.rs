//! Letting go of files: those whose time is over and that no job needs, and what dead processes have left behind.

use std::collections::HashSet;
use std::time::Duration;

use super::{
    BLOB, BlobRow, FILE, FileKey, FileRow, PAGE, REFERENCE, ReferenceRow, UPLOAD, UploadRow, Use, read, write,
};
use crate::Error;
use crate::coordinator::Shared;
use crate::files::{FileId, Object};
use crate::job::Status;
use crate::store::{Record, RecordWrite, Written};

/// How long an upload may take, and what looks left behind may be somebody's who is just at it.
const UNDER_WAY: Duration = Duration::from_secs(86_400);

/// How long something that has expired is left: a submission that was judged before it expired is committed by then.
const MARGIN: Duration = Duration::from_secs(600);

/// When it is next asked whether a job is still there that left a file.
const ASK_AGAIN: Duration = Duration::from_secs(86_400);

/// Every state in which a job may still need what it brings.
const UNFINISHED: [Status; 4] = [Status::Scheduled, Status::Queued, Status::Running, Status::Cancelling];

/// Looks at everything once. Any number of coordinators may do so at the same time.
pub(in crate::coordinator) async fn sweep(shared: &Shared) -> Result<(), Error> {
    if shared.files.is_none() {
        return Ok(());
    }
    let mut after = None;
    while let Some(page) = next_page(shared, FILE, &mut after).await? {
        for record in &page {
            expire(shared, record).await?;
        }
    }
    after = None;
    while let Some(page) = next_page(shared, REFERENCE, &mut after).await? {
        forget_references(shared, &page).await?;
    }
    after = None;
    while let Some(page) = next_page(shared, BLOB, &mut after).await? {
        forget_blobs(shared, &page).await?;
    }
    after = None;
    while let Some(page) = next_page(shared, UPLOAD, &mut after).await? {
        for record in &page {
            forget_upload(shared, record).await?;
        }
    }
    Ok(())
}

/// The next records of a kind, until there are none.
async fn next_page(shared: &Shared, kind: &str, after: &mut Option<String>) -> Result<Option<Vec<Record>>, Error> {
    let page = shared.store.list_records(kind, after.as_deref(), PAGE).await?;
    *after = page.last().map(|record| record.key.clone());
    Ok(after.is_some().then_some(page))
}

/// Lets go of a file whose time is over, unless a job needs it.
async fn expire(shared: &Shared, record: &Record) -> Result<(), Error> {
    let (Some(key), Some(mut row)) = (FileKey::parse_file(&record.key), read::<FileRow>(FILE, record)) else {
        return Ok(());
    };
    let now = shared.store.now();
    if row.unfinished && row.created.after(UNDER_WAY) <= now {
        return shared.let_go(&key, Some(record.version)).await;
    }
    if row.expires.after(MARGIN) > now {
        return Ok(());
    }
    match key.what_for {
        Use::Job(job) if shared.stored(job).await?.is_some() => {
            row.expires = now.after(ASK_AGAIN);
            // If somebody else was faster, so be it.
            shared.store.put_records(FILE, vec![write(record.key.clone(), &row, record.version)]).await?;
            Ok(())
        }
        // Also what a job left, another may bring.
        Use::Upload | Use::Job(_) if shared.is_needed(key.id).await? => Ok(()),
        Use::Upload | Use::Job(_) => {
            tracing::debug!(file = %key.id, "a file has expired");
            shared.let_go(&key, Some(record.version)).await
        }
    }
}

/// Forgets references whose file was removed, or never written, by a process that then died.
async fn forget_references(shared: &Shared, page: &[Record]) -> Result<(), Error> {
    let now = shared.store.now();
    let keys: Vec<_> = page.iter().filter_map(|record| FileKey::parse_reference(&record.key)).collect();
    let files = shared.store.get_records(FILE, &keys.iter().map(FileKey::file).collect::<Vec<_>>()).await?;
    for record in page {
        let Some(key) = FileKey::parse_reference(&record.key) else { continue };
        let has_file = keys.iter().zip(&files).any(|(of, file)| *of == key && file.is_some());
        let is_new =
            read::<ReferenceRow>(REFERENCE, record).is_some_and(|reference| reference.created.after(UNDER_WAY) > now);
        if !has_file && !is_new {
            shared.let_go(&key, None).await?;
        }
    }
    Ok(())
}

/// Removes bytes that nobody refers to: whoever let go of them died before they were removed.
async fn forget_blobs(shared: &Shared, page: &[Record]) -> Result<(), Error> {
    let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(()) };
    // Read after the blobs: whoever refers to one since then has written it anew.
    let mut used = HashSet::new();
    let mut after = Some(format!("{}/", first.key));
    while let Some(references) = next_page(shared, REFERENCE, &mut after).await? {
        let keys = references.iter().filter_map(|record| record.key.split('/').next());
        used.extend(keys.map(str::to_owned));
        // Digests have one length, so that keys are in the digests' order.
        if references.last().and_then(|record| record.key.split('/').next()) > Some(last.key.as_str()) {
            break;
        }
    }
    for record in page.iter().filter(|record| !used.contains(&record.key)) {
        if let (Ok(id), Some(blob)) = (record.key.parse(), read::<BlobRow>(BLOB, record)) {
            shared.let_bytes_go(id, &blob, record.version).await?;
        }
    }
    Ok(())
}

/// Removes the object of an upload that nobody is at any more, unless it arrived whole and is used.
async fn forget_upload(shared: &Shared, record: &Record) -> Result<(), Error> {
    let (Some(object), Some(row)) = (Object::parse(&record.key), read::<UploadRow>(UPLOAD, record)) else {
        return Ok(());
    };
    if row.started.after(UNDER_WAY) > shared.store.now() {
        return Ok(());
    }
    let is_used = match row.digest {
        Some(digest) => {
            let blob = shared.record::<BlobRow>(BLOB, digest.to_string()).await?;
            blob.is_some_and(|(blob, _)| blob.object == object)
        }
        None => false,
    };
    if !is_used {
        shared.place()?.remove(object).await?;
    }
    shared.remove_record(UPLOAD, &record.key).await
}

impl Shared {
    /// Whether a job that has not ended brings a file.
    pub(super) async fn is_needed(&self, id: FileId) -> Result<bool, Error> {
        Ok(self.brings(id, &UNFINISHED).await?.is_some())
    }

    /// Removes what says that somebody may use a file, and the bytes if nobody else may. `file` is the version of its record,
    /// if there is one.
    pub(super) async fn let_go(&self, key: &FileKey, file: Option<u64>) -> Result<(), Error> {
        let reference = self.store.get_records(REFERENCE, &[key.reference()]).await?.pop().flatten();
        if let Some(version) = file
            && !self.remove_version(FILE, key.file(), version).await?
        {
            // Somebody has renewed it in the meantime.
            return Ok(());
        }
        if let Some(reference) = reference
            && !self.remove_version(REFERENCE, reference.key, reference.version).await?
        {
            return Ok(());
        }
        let Some((blob, version)) = self.record::<BlobRow>(BLOB, key.id.to_string()).await? else { return Ok(()) };
        if self.records(REFERENCE, &format!("{}/", key.id), None).await?.is_empty() {
            self.let_bytes_go(key.id, &blob, version).await?;
        }
        Ok(())
    }

    /// Removes bytes that nobody refers to, unless somebody has since that version was read.
    async fn let_bytes_go(&self, id: FileId, blob: &BlobRow, version: u64) -> Result<(), Error> {
        // Without its blob nothing would lead to the object if this process died.
        let trace = UploadRow { started: self.store.now(), digest: Some(id) };
        self.put_record(UPLOAD, &blob.object.name(), &trace).await?;
        if self.remove_version(BLOB, id.to_string(), version).await? {
            self.place()?.remove(blob.object).await?;
        }
        self.remove_record(UPLOAD, &blob.object.name()).await
    }

    /// Removes a record if it still has this version.
    async fn remove_version(&self, kind: &str, key: String, version: u64) -> Result<bool, Error> {
        let removal = RecordWrite { key, value: None, version, ttl: None };
        Ok(self.store.put_records(kind, vec![removal]).await? == [Written::Yes])
    }
}
