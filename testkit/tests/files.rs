//! What becomes of files when the coordinator dies between two writes, or somebody else is at the same file: no bytes are lost that
//! somebody may use, and none stay that nobody may.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::coordinator::Coordinator;
use cmdexec_core::files::{FileId, Files};
use cmdexec_core::job::JobSpec;
use cmdexec_core::service::{JobService, JobServiceExt, Role, UserPrincipal};
use cmdexec_core::store::{MemoryStore, Store};
use cmdexec_core::time::ManualClock;
use cmdexec_testkit::store::{Call, Fault, FaultyStore, Gate};
use futures_util::TryStreamExt;

const ZIP: &[u8] = b"PK\x03\x04 what is in it";
const DAY: Duration = Duration::from_secs(86_400);

/// More writes than taking in or letting go makes.
const WRITES: usize = 12;

struct World {
    clock: ManualClock,
    store: FaultyStore,
    coordinator: Coordinator,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::default();
        let store = FaultyStore::new(Arc::new(MemoryStore::with_clock(Arc::new(clock.clone()))));
        let dir = tempfile::tempdir().unwrap();
        let files = Files::local(dir.path()).unwrap();
        let builder = Coordinator::builder(store.clone()).clock(Arc::new(clock.clone())).seed(7).files(files);
        Self { clock, store, coordinator: builder.build().await.unwrap(), dir }
    }

    fn user(&self, name: &str) -> Arc<dyn JobService> {
        self.coordinator.as_user(UserPrincipal { owner: name.parse().unwrap(), role: Role::User })
    }

    async fn upload(&self, name: &str) -> Result<FileId, Error> {
        self.user(name).upload_bytes(Some("a.zip"), Bytes::from_static(ZIP)).await.map(|file| file.id)
    }

    /// The bytes of a file for a user who may have it.
    async fn read(&self, name: &str, id: FileId) -> Result<Vec<u8>, Error> {
        let download = self.user(name).download(id, None).await?;
        Ok(download.bytes.try_collect::<Vec<Bytes>>().await?.concat())
    }

    /// What a user is told to be there, is there.
    async fn holds_what_it_says(&self, name: &str) {
        for file in self.user(name).files(None, 10).await.unwrap() {
            assert_eq!(self.read(name, file.id).await.as_deref(), Ok(ZIP));
            let mut spec = JobSpec::shell("x");
            spec.input = Some(file.id);
            let job = self.user(name).submit(spec).await.unwrap().id;
            self.user(name).cancel(job).await.unwrap();
        }
    }

    /// Makes the write go wrong that comes after so many others.
    fn fail_write(&self, after: usize, fault: Fault) {
        let through = Gate::closed();
        through.open();
        for _ in 0..after {
            self.store.inject(Call::PutRecords, Fault::HoldBefore(through.clone()));
        }
        self.store.inject(Call::PutRecords, fault);
    }

    async fn records(&self) -> usize {
        let mut records = 0;
        for kind in ["file", "file-reference", "blob", "upload"] {
            records += self.store.list_records(kind, None, 100).await.unwrap().len();
        }
        records
    }

    /// Lets the sweep look again and again until something is so.
    async fn swept_until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        for _ in 0..500 {
            if is_so().await {
                return;
            }
            self.clock.advance(Duration::from_secs(601));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            // Files are read and removed by other threads.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{what} is not so: {} records, {:?}", self.records().await, kept(self.dir.path()));
    }

    async fn nothing_is_left(&self) {
        self.clock.advance(8 * DAY);
        self.swept_until("nothing left", async || self.records().await == 0 && kept(self.dir.path()).is_empty()).await;
    }
}

fn kept(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { kept(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn an_upload_that_dies_between_two_writes_neither_lies_nor_stays() {
    let mut failed = 0;
    for fault in [Fault::Refuse, Fault::LoseReply] {
        for after in 0..WRITES {
            for tries_again in [false, true] {
                let world = World::new().await;
                world.fail_write(after, fault.clone());
                let first = world.upload("ada").await;
                failed += usize::from(first.is_err());
                world.holds_what_it_says("ada").await;
                if tries_again {
                    // A fault that the first did not come to is the second's.
                    let Ok(id) = world.upload("ada").await else { continue };
                    assert_eq!(world.read("ada", id).await.as_deref(), Ok(ZIP), "{fault:?} {after}");
                    assert_eq!(world.user("ada").files(None, 10).await.unwrap().len(), 1);
                }
                world.nothing_is_left().await;
            }
        }
    }
    assert!(failed > 12, "{failed} of them failed at all");
}

#[tokio::test]
async fn letting_go_that_dies_between_two_writes_is_done_in_the_end() {
    for fault in [Fault::Refuse, Fault::LoseReply] {
        for after in 0..6 {
            let world = World::new().await;
            let id = world.upload("ada").await.unwrap();
            world.upload("bob").await.unwrap();
            world.user("ada").delete_file(id).await.unwrap();
            world.fail_write(after, fault.clone());
            assert_eq!(world.read("ada", id).await, Err(Error::FileNotFound));
            world.swept_until("ada's gone", async || world.records().await == 3).await;
            assert_eq!(world.read("bob", id).await.as_deref(), Ok(ZIP), "{fault:?} {after}");
            world.nothing_is_left().await;
        }
    }
}

#[tokio::test]
async fn letting_go_meets_somebody_who_brings_the_same() {
    for uploader in ["ada", "bob"] {
        for after in 0..4 {
            let world = World::new().await;
            let id = world.upload("ada").await.unwrap();
            world.user("ada").delete_file(id).await.unwrap();
            let gate = Gate::closed();
            world.fail_write(after, Fault::HoldBefore(gate.clone()));
            let is_held = async || tokio::time::timeout(Duration::from_millis(1), gate.reached()).await.is_ok();
            let swept = async || is_held().await || world.records().await == 0;
            world.swept_until("the sweep at it", swept).await;
            if !is_held().await {
                // It had no so many writes.
                gate.open();
            }
            // While it is held at that very write.
            world.upload(uploader).await.unwrap();
            gate.open();
            world.clock.advance(Duration::from_secs(601));
            for _ in 0..50 {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(world.read(uploader, id).await.as_deref(), Ok(ZIP), "{uploader} {after}");
            world.nothing_is_left().await;
        }
    }
}

#[tokio::test]
async fn an_upload_meets_somebody_who_lets_the_same_go() {
    for after in 0..6 {
        let world = World::new().await;
        let id = world.upload("ada").await.unwrap();
        world.user("ada").delete_file(id).await.unwrap();
        let gate = Gate::closed();
        world.fail_write(after, Fault::HoldBefore(gate.clone()));
        let bob = world.user("bob");
        let uploading = tokio::spawn(async move { bob.upload_bytes(None, Bytes::from_static(ZIP)).await });
        tokio::select! {
            () = gate.reached() => {}
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
        for _ in 0..5 {
            world.clock.advance(Duration::from_secs(601));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        gate.open();
        uploading.await.unwrap().unwrap();
        assert_eq!(world.read("bob", id).await.as_deref(), Ok(ZIP), "{after}");
        world.nothing_is_left().await;
    }
}

#[tokio::test]
async fn two_uploads_of_the_same_at_once_keep_one() {
    for after in 0..6 {
        let world = World::new().await;
        let gate = Gate::closed();
        world.fail_write(after, Fault::HoldBefore(gate.clone()));
        let ada = world.user("ada");
        let first = tokio::spawn(async move { ada.upload_bytes(None, Bytes::from_static(ZIP)).await });
        gate.reached().await;
        let id = world.upload("ada").await.unwrap();
        gate.open();
        first.await.unwrap().unwrap();
        assert_eq!(world.read("ada", id).await.as_deref(), Ok(ZIP), "{after}");
        assert_eq!(kept(world.dir.path()).len(), 1, "{after}");
        world.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_half_done() {
    let world = World::new().await;
    let ada = world.user("ada");
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, Error>>(1);
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let uploading = tokio::spawn(async move { ada.upload(None, Box::pin(stream)).await });
    sender.send(Ok(Bytes::from_static(ZIP))).await.unwrap();
    while kept(world.dir.path()).is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    uploading.abort();
    for _ in 0..1_000 {
        if kept(world.dir.path()).is_empty() && world.records().await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{} records, {:?}", world.records().await, kept(world.dir.path()));
}

#[tokio::test]
async fn nothing_is_removed_that_a_job_needs() {
    let world = World::new().await;
    let id = world.upload("ada").await.unwrap();
    let mut spec = JobSpec::shell("x");
    spec.input = Some(id);
    let job = world.user("ada").submit(spec.clone()).await.unwrap().id;
    world.clock.advance(30 * DAY);
    for _ in 0..10 {
        world.clock.advance(Duration::from_secs(601));
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    // It has expired for new jobs, and is there for this one.
    assert!(matches!(world.user("ada").submit(spec).await, Err(Error::Invalid(_))));
    assert_eq!(kept(world.dir.path()).len(), 1);
    world.user("ada").cancel(job).await.unwrap();
    world.nothing_is_left().await;
}
