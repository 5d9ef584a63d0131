//! Taking in files: uploads of users, and what jobs leave.

use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{BLOB, BlobRow, FILE, FileKey, FileRow, REFERENCE, ReferenceRow, UPLOAD, UploadRow, Use, read, write};
use crate::Error;
use crate::coordinator::Shared;
use crate::files::{self, ByteStream, FileId, Object, Received, StoredFile};
use crate::id::{JobId, LeaseToken, Owner, WorkerId};
use crate::job::JobSpec;
use crate::store::Written;

/// How many bytes of a name are kept.
const MAX_NAME: usize = 255;

impl Shared {
    /// Keeps an upload. As [`crate::service::JobService::upload`].
    pub(in crate::coordinator) async fn upload(
        self: &Arc<Self>,
        owner: &Owner,
        name: Option<&str>,
        bytes: ByteStream,
    ) -> Result<StoredFile, Error> {
        self.keep_all_or_nothing(owner.clone(), Use::Upload, name.and_then(file_name), bytes).await
    }

    /// Keeps what an attempt left. As [`crate::service::WorkerService::upload_artifacts`].
    pub(in crate::coordinator) async fn upload_artifacts(
        self: &Arc<Self>,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error> {
        let job = self.stored(job).await?.ok_or(Error::LeaseLost)?;
        let is_holder = job
            .life
            .lease()
            .is_some_and(|lease| lease.worker == *worker && token.is_none_or(|token| token == lease.token));
        if !is_holder {
            return Err(Error::LeaseLost);
        }
        let name = Some(format!("{}.zip", job.id));
        Ok(self.keep_all_or_nothing(job.owner, Use::Job(job.id), name, bytes).await?.id)
    }

    /// Whether an attempt's report may name these artifacts: they were uploaded for its job.
    pub(in crate::coordinator) async fn has_artifacts(
        &self,
        owner: &Owner,
        job: JobId,
        id: FileId,
    ) -> Result<bool, Error> {
        let key = FileKey::new(owner, id, Use::Job(job)).file();
        Ok(self.record::<FileRow>(FILE, key).await?.is_some_and(|(row, _)| !row.unfinished))
    }

    /// Keeps a file in a task of its own, so that a caller who goes away leaves nothing half done: while bytes still come, that
    /// is as if they had broken off; after the last, the file is kept all the same.
    async fn keep_all_or_nothing(
        self: &Arc<Self>,
        owner: Owner,
        what_for: Use,
        name: Option<String>,
        bytes: ByteStream,
    ) -> Result<StoredFile, Error> {
        let gone = CancellationToken::new();
        let _caller = gone.clone().drop_guard();
        let broken_off = futures_util::stream::once(async move {
            gone.cancelled().await;
            Err(Error::Unavailable { retry_after: Duration::ZERO })
        });
        let mut broken_off = Box::pin(broken_off);
        let mut bytes = Some(bytes);
        // The first of the two to give something; but only as long as the bytes have not ended.
        let bytes = futures_util::stream::poll_fn(move |cx| {
            let Some(open) = &mut bytes else { return Poll::Ready(None) };
            if let Poll::Ready(Some(error)) = broken_off.poll_next_unpin(cx) {
                bytes = None;
                return Poll::Ready(Some(error));
            }
            let piece = ready!(open.poll_next_unpin(cx));
            if piece.is_none() {
                bytes = None;
            }
            Poll::Ready(piece)
        });
        let shared = Arc::clone(self);
        let keeping = self.keeping.spawn(async move { shared.keep(&owner, what_for, name, Box::pin(bytes)).await });
        keeping.await.map_err(|error| {
            tracing::error!(%error, "keeping a file failed");
            Error::Internal
        })?
    }

    async fn keep(
        &self,
        owner: &Owner,
        what_for: Use,
        name: Option<String>,
        bytes: ByteStream,
    ) -> Result<StoredFile, Error> {
        let files = self.place()?;
        let quota = self.options.file_quota;
        let left = quota.saturating_sub(self.kept_bytes(owner).await?);
        let most = self.options.max_file_size.min(left);
        if most == 0 {
            return Err(Error::QuotaExceeded { quota });
        }
        let object = Object::new();
        self.put_record(UPLOAD, &object.name(), &UploadRow { started: self.store.now(), digest: None }).await?;
        let received = match files.put(object, most, bytes).await {
            Ok(received) => received,
            Err(error) => {
                // It may have arrived all the same. What can't be removed now, the sweep finds by its record.
                files.remove(object).await?;
                self.remove_record(UPLOAD, &object.name()).await?;
                return Err(match error {
                    Error::FileTooLarge { most } if most < self.options.max_file_size => Error::QuotaExceeded { quota },
                    error => error,
                });
            }
        };
        let key = FileKey::new(owner, received.digest, what_for);
        let row = self.note(object, received, &key, name).await?;
        Ok(row.view(&key))
    }

    /// Writes down what was received, in the order that keeps it right whenever this process dies.
    async fn note(
        &self,
        object: Object,
        received: Received,
        key: &FileKey,
        name: Option<String>,
    ) -> Result<FileRow, Error> {
        let now = self.store.now();
        let digest = Some(received.digest);
        self.put_record(UPLOAD, &object.name(), &UploadRow { started: now, digest }).await?;
        let keep = match key.what_for {
            Use::Upload => self.options.file_ttl,
            // The job ends now or soon, and is kept from then on.
            Use::Job(_) => self.options.retention.saturating_add(JobSpec::MAX_TIMEOUT),
        };
        let row = FileRow { name, size: received.size, created: now, unfinished: false, expires: now.after(keep) };
        let is_used = loop {
            let known = self.store.get_records(FILE, &[key.file()]).await?.pop().flatten();
            let version = known.as_ref().map_or(0, |record| record.version);
            // One that is finished has its bytes and stays so; what a death left unfinished has not.
            let is_finished =
                known.and_then(|record| read::<FileRow>(FILE, &record)).is_some_and(|row| !row.unfinished);
            let first = FileRow { unfinished: !is_finished, ..row.clone() };
            if self.store.put_records(FILE, vec![write(key.file(), &first, version)]).await? != [Written::Yes] {
                continue;
            }
            self.put_record(REFERENCE, &key.reference(), &ReferenceRow { created: now }).await?;
            let is_used = self.put_blob(object, received).await?;
            let finished = write(key.file(), &row, version + 1);
            if self.store.put_records(FILE, vec![finished]).await? == [Written::Yes] {
                break is_used;
            }
        };
        if !is_used {
            self.place()?.remove(object).await?;
        }
        self.remove_record(UPLOAD, &object.name()).await?;
        Ok(row)
    }

    /// Makes the object the one with the digest's bytes, unless there is one. The answer says whether it is.
    async fn put_blob(&self, object: Object, received: Received) -> Result<bool, Error> {
        let files = self.place()?;
        let key = received.digest.to_string();
        loop {
            let known = self.store.get_records(BLOB, std::slice::from_ref(&key)).await?.pop().flatten();
            let version = known.as_ref().map_or(0, |record| record.version);
            let known = match known.and_then(|record| read::<BlobRow>(BLOB, &record)) {
                None => None,
                Some(row) => match files.size(row.object).await {
                    Ok(_) => Some(row),
                    // Somebody removed it behind the coordinator's back: it is replaced.
                    Err(files::Error::NotFound) => None,
                    Err(error) => return Err(error.into()),
                },
            };
            let row = known.unwrap_or(BlobRow { object, size: received.size });
            // Written anew also if it is there: whoever is about to remove it must find another version.
            let written = self.store.put_records(BLOB, vec![write(key.clone(), &row, version)]).await?;
            if written == [Written::Yes] {
                return Ok(row.object == object);
            }
        }
    }

    /// How many bytes an owner's files have together.
    async fn kept_bytes(&self, owner: &Owner) -> Result<u64, Error> {
        let prefix = format!("{}/", super::owner_key(owner));
        let now = self.store.now();
        let (mut bytes, mut after) = (0_u64, None);
        loop {
            let page = self.records(FILE, &prefix, after.as_deref()).await?;
            let rows = page
                .iter()
                .filter_map(|record| Some((FileKey::parse_file(&record.key)?, read::<FileRow>(FILE, record)?)));
            // What has expired, or was removed, is only there until the sweep finds it.
            let counts = rows.filter(|(key, row)| key.what_for != Use::Upload || row.expires > now);
            bytes = counts.map(|(_, row)| row.size).fold(bytes, u64::saturating_add);
            match page.last() {
                Some(last) if page.len() == super::PAGE => after = Some(last.key.clone()),
                _ => return Ok(bytes),
            }
        }
    }

    /// Makes sure that a file is kept that a new job brings: one that expires soon is given its whole time again.
    pub(in crate::coordinator) async fn renew_file(&self, owner: &Owner, id: FileId) -> Result<bool, Error> {
        let now = self.store.now();
        let key = FileKey::new(owner, id, Use::Upload);
        let ttl = self.options.file_ttl;
        loop {
            let Some((mut row, version)) = self.record::<FileRow>(FILE, key.file()).await? else {
                // What a job left, another may bring.
                return Ok(self.find_file(owner, id).await?.is_some());
            };
            if row.unfinished || row.expires <= now {
                return Ok(false);
            }
            if row.expires.since(now) > ttl / 2 {
                return Ok(true);
            }
            row.expires = now.after(ttl);
            if self.store.put_records(FILE, vec![write(key.file(), &row, version)]).await? == [Written::Yes] {
                return Ok(true);
            }
        }
    }
}

/// The last component of what an uploader called a file, without what would break a header or a terminal.
fn file_name(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut kept = String::new();
    for c in last.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        kept.push(c);
    }
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn only_the_last_component_of_a_name_is_kept() {
        for (given, kept) in [
            ("a.zip", Some("a.zip")),
            ("../../etc/passwd", Some("passwd")),
            ("C:\\x\\y.zip", Some("y.zip")),
            ("a\r\nb\0", Some("ab")),
            ("dir/", None),
            ("", None),
        ] {
            assert_eq!(file_name(given).as_deref(), kept, "{given:?}");
        }
        assert_eq!(file_name(&"ä".repeat(200)).unwrap().len(), 254);
    }
}
