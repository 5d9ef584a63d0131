//! How a store is opened.

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::store::{self, ErrorKind};
use cmdexec_core::time::Clock;
use mongodb::Client;
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio_util::task::TaskTracker;

use crate::bell::Bell;
use crate::client::{Mongo, Ops};
use crate::clock::{Measured, ServerClock};
use crate::error::Error;
use crate::schema;
use crate::store::MongoStore;

/// The database if the address names none.
const DATABASE: &str = "cmdexec";

/// How long a primary is looked for before a call fails as `Unavailable`, if the address does not say otherwise.
const SELECT: Duration = Duration::from_secs(5);

/// How to open a [`MongoStore`]. Start from [`MongoStore::options`].
#[derive(Debug, Clone, Default)]
pub struct Options {
    database: Option<String>,
    pool_size: Option<u32>,
    clock: Option<Arc<dyn Clock>>,
}

impl Options {
    /// The database; by default the one that the address names, or `cmdexec`.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = Some(name.into());
        self
    }

    /// How many connections there may be to each server; by default what the address says, or 10. At least 1.
    #[must_use]
    pub fn pool_size(mut self, connections: u32) -> Self {
        self.pool_size = Some(connections.max(1));
        self
    }

    /// A clock in place of the database server's, for tests under simulated time. Every store over one database must be
    /// given the same.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Connects to a replica set, such as `mongodb://a,b,c/cmdexec?replicaSet=rs0`, and makes what is missing of collections and indexes.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// - `Unavailable`: there is no primary now.
    /// - `Invalid`: the address or the credentials are wrong, the server is no member of a replica set, or the
    ///   database was written by a newer version.
    pub async fn open(self, address: &str) -> Result<MongoStore, store::Error> {
        Ok(self.try_open(address).await?)
    }

    async fn try_open(self, address: &str) -> Result<MongoStore, Error> {
        let mut client = ClientOptions::parse(address).await?;
        let measured = Arc::new(Measured::new());
        // Whatever the address says: what is acknowledged must last, and what is read must have lasted.
        let majority = WriteConcern::builder().w(Acknowledgment::Majority).journal(true);
        client.write_concern = Some(majority.w_timeout(crate::client::MAJORITY).build());
        client.read_concern = Some(ReadConcern::majority());
        client.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        // The store knows its own writes again, and so may repeat any: the driver's way takes a server that counts them.
        client.retry_writes = Some(false);
        client.server_selection_timeout.get_or_insert(SELECT);
        client.connect_timeout.get_or_insert(SELECT);
        client.app_name.get_or_insert_with(|| "cmdexec".to_owned());
        if self.pool_size.is_some() {
            client.max_pool_size = self.pool_size;
        }
        client.sdam_event_handler = Some(EventHandler::callback({
            let measured = Arc::clone(&measured);
            move |event| {
                if matches!(event, SdamEvent::TopologyDescriptionChanged(_)) {
                    measured.doubt();
                }
            }
        }));
        let name = self.database.or_else(|| client.default_database.clone()).unwrap_or_else(|| DATABASE.to_owned());
        let client = Client::with_options(client)?;
        let database = client.database(&name);
        refuse_single(&database).await?;
        schema::prepare(&database).await?;
        let mut instance = [0; 8];
        SysRng
            .try_fill_bytes(&mut instance)
            .map_err(|error| Error::unavailable(format!("no random numbers: {error}")))?;
        let clock = self.clock.map_or_else(|| ServerClock::Measured(measured), ServerClock::Given);
        let tasks = TaskTracker::new();
        let bell = Bell::new(instance, database.clone(), clock.clone(), tasks.clone());
        let mongo = Mongo { client, database, clock, ops: Ops::new(instance), bell, tasks };
        mongo.now().await?;
        Ok(MongoStore::new(mongo))
    }
}

/// A server alone has neither majorities nor transactions.
async fn refuse_single(database: &mongodb::Database) -> Result<(), Error> {
    let hello = database.run_command(mongodb::bson::doc! { "hello": 1 }).await?;
    if hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        return Ok(());
    }
    let what = "the MongoDB server is no member of a replica set: start it with --replSet, also if it is alone";
    Err(Error::Refused(ErrorKind::Invalid, what.to_owned()))
}
