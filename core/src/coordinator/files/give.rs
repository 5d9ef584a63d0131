//! Giving out files.

use super::{BLOB, BlobRow, FILE, FileKey, FileRow, REFERENCE, Use, owner_key, read, write};
use crate::Error;
use crate::coordinator::Shared;
use crate::files::{Download, FileId, GetRange, StoredFile};
use crate::id::{Owner, WorkerId};
use crate::job::Status;
use crate::store::{ListQuery, Written};

impl Shared {
    /// What is kept of a file that its owner may use; with `None`, anybody's.
    pub(in crate::coordinator) async fn file(&self, owner: Option<&Owner>, id: FileId) -> Result<StoredFile, Error> {
        let found = match owner {
            Some(owner) => self.find_file(owner, id).await?,
            None => self.find_anybodys(id).await?,
        };
        found.ok_or(Error::FileNotFound)
    }

    /// What an owner may use of a file; none if that has expired.
    pub(super) async fn find_file(&self, owner: &Owner, id: FileId) -> Result<Option<StoredFile>, Error> {
        let now = self.store.now();
        let page = self.records(FILE, &format!("{}/{id}/", owner_key(owner)), None).await?;
        let mut found: Vec<_> = page.iter().filter_map(file_of).collect();
        found.retain(|file| file.expires.is_none_or(|expires| expires > now));
        // An upload carries its owner's name for it.
        found.sort_by_key(|file| file.expires.is_none());
        Ok(found.into_iter().next())
    }

    async fn find_anybodys(&self, id: FileId) -> Result<Option<StoredFile>, Error> {
        let page = self.records(REFERENCE, &format!("{id}/"), None).await?;
        let keys: Vec<_> =
            page.iter().filter_map(|record| Some(FileKey::parse_reference(&record.key)?.file())).collect();
        let found = self.store.get_records(FILE, &keys).await?;
        Ok(found.iter().flatten().find_map(file_of))
    }

    /// A page of an owner's uploads.
    pub(in crate::coordinator) async fn uploads(
        &self,
        owner: &Owner,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<StoredFile>, Error> {
        if !(1..=500).contains(&limit) {
            return Err(Error::invalid("limit", "must be from 1 to 500"));
        }
        let prefix = format!("{}/", owner_key(owner));
        let now = self.store.now();
        // After every key of the file, whatever it is kept for.
        let mut place = after.map(|id| format!("{prefix}{id}/~"));
        let mut uploads = Vec::new();
        loop {
            let page = self.records(FILE, &prefix, place.as_deref()).await?;
            let files = page.iter().filter_map(file_of);
            uploads.extend(files.filter(|file| file.expires.is_some_and(|expires| expires > now)));
            match page.last() {
                Some(last) if page.len() == super::PAGE && uploads.len() < limit => place = Some(last.key.clone()),
                _ => break,
            }
        }
        uploads.truncate(limit);
        Ok(uploads)
    }

    /// The bytes of a file, for whoever may have them.
    pub(in crate::coordinator) async fn open(
        &self,
        file: StoredFile,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        let Some((blob, _)) = self.record::<BlobRow>(BLOB, file.id.to_string()).await? else {
            return Err(Error::FileNotFound);
        };
        let (bytes, range, size) = self.place()?.open(blob.object, range).await?;
        Ok(Download { file: StoredFile { size, ..file }, range, bytes })
    }

    /// The bytes of a file that a job brings, for a worker that has a lease for such a job; without a worker, any has.
    pub(in crate::coordinator) async fn open_input(
        &self,
        worker: Option<&WorkerId>,
        id: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        let leased = match worker {
            Some(worker) => self
                .store
                .leased(std::slice::from_ref(worker))
                .await?
                .into_iter()
                .find(|job| job.spec.input == Some(id)),
            None => self.brings(id, &[Status::Running, Status::Cancelling]).await?,
        };
        let owner = leased.ok_or(Error::FileNotFound)?.owner;
        let file = match self.find_file(&owner, id).await? {
            Some(file) => file,
            // It can't be used any more, and is kept for the jobs that brought it before.
            None => self.find_anybodys(id).await?.ok_or(Error::FileNotFound)?,
        };
        self.open(file, range).await
    }

    /// A job in one of these states that brings a file.
    pub(super) async fn brings(&self, id: FileId, states: &[Status]) -> Result<Option<crate::job::Job>, Error> {
        for status in states {
            let query = ListQuery { input: Some(id), status: Some(*status), limit: 1, ..ListQuery::default() };
            if let Some(job) = self.store.list(&query).await?.jobs.pop() {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// Removes an upload. As [`crate::service::JobService::delete_file`].
    ///
    /// It can't be used from now on; its bytes go with the sweep, when a job is committed that was judged just before, and keeps
    /// them.
    pub(in crate::coordinator) async fn delete_file(&self, owner: &Owner, id: FileId) -> Result<(), Error> {
        let key = FileKey::new(owner, id, Use::Upload).file();
        loop {
            let now = self.store.now();
            let known = self.record::<FileRow>(FILE, key.clone()).await?;
            let usable = known.filter(|(row, _)| !row.unfinished && row.expires > now);
            let (mut row, version) = usable.ok_or(Error::FileNotFound)?;
            if self.is_needed(id).await? {
                return Err(Error::FileInUse);
            }
            row.expires = now;
            if self.store.put_records(FILE, vec![write(key.clone(), &row, version)]).await? == [Written::Yes] {
                return Ok(());
            }
        }
    }
}

/// The file that a record is about, unless it is unfinished.
fn file_of(record: &crate::store::Record) -> Option<StoredFile> {
    let row = read::<FileRow>(FILE, record).filter(|row| !row.unfinished)?;
    Some(row.view(&FileKey::parse_file(&record.key)?))
}
