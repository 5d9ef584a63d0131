-- Jobs, their output, workers, idempotency keys and records. Times are milliseconds since 1970.
--
-- Texts that a user chooses freely (keys, kinds) are kept as blobs: SQLite's text functions end at a NUL, blobs don't,
-- and their order is that of the bytes. Names that are visible ASCII, and JSON, are text, for people with a shell.

-- A job's mutable part, and what finds it. `seq` is the order of insertion: as a rowid it keeps rows that live together
-- together, and is the short key by which everything else refers to the job.
CREATE TABLE jobs (
    seq      INTEGER PRIMARY KEY,
    id       BLOB    NOT NULL,
    version  INTEGER NOT NULL,
    status   INTEGER NOT NULL, -- 0 scheduled, 1 queued, 2 running, 3 cancelling, 4 completed, 5 failed, 6 cancelled
    class    INTEGER NOT NULL,
    rank     INTEGER NOT NULL, -- minus the priority: the least is served first
    owner    TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    due      INTEGER,
    floor    INTEGER,
    hard_end INTEGER,
    ended    INTEGER,
    worker   TEXT,             -- of the current lease, or of the last
    life     TEXT    NOT NULL
) STRICT;

-- Every call that names jobs; the listing without conditions.
CREATE UNIQUE INDEX jobs_id ON jobs (id);
-- `ready`: a class's queue in its order; the heads in `classes`.
CREATE INDEX jobs_ready ON jobs (class, rank, id) WHERE status = 1;
-- `due`, `next_due`.
CREATE INDEX jobs_due ON jobs (due, id) WHERE status = 0;
-- `leased`; `expired`, the part that asks for sessions: the workers that hold leases, and of one those past the floor.
CREATE INDEX jobs_leases ON jobs (worker, floor) WHERE status IN (2, 3);
-- `expired`, the part that asks for hard ends.
CREATE INDEX jobs_hard_end ON jobs (hard_end) WHERE status IN (2, 3);
-- `purge`.
CREATE INDEX jobs_ended ON jobs (ended, id) WHERE status IN (4, 5, 6);
-- `list` by owner.
CREATE INDEX jobs_owner ON jobs (owner, id);
-- `list` by status.
CREATE INDEX jobs_status ON jobs (status, id);
-- `list` by worker.
CREATE INDEX jobs_worker ON jobs (worker, id) WHERE worker IS NOT NULL;

-- What never changes, out of the way of what does.
CREATE TABLE specs (
    seq  INTEGER PRIMARY KEY,
    spec TEXT NOT NULL
) STRICT;

-- `counts`, exact: written in the transaction that changes what is counted.
CREATE TABLE counts (
    status INTEGER PRIMARY KEY,
    jobs   INTEGER NOT NULL
) STRICT;
INSERT INTO counts (status, jobs) VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0);

-- The classes that were ever seen, and how many jobs are queued in each, exact as `counts` is.
CREATE TABLE classes (
    class  INTEGER PRIMARY KEY,
    key    TEXT    NOT NULL,
    queued INTEGER NOT NULL
) STRICT;
-- `ready`, and the writer when it meets a class that it does not know by heart.
CREATE UNIQUE INDEX classes_key ON classes (key);
-- `classes`.
CREATE INDEX classes_queued ON classes (class) WHERE queued > 0;

-- What is kept of each job's newest attempt's output: one row a job.
CREATE TABLE outputs (
    job     INTEGER PRIMARY KEY, -- jobs.seq
    attempt INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    seen    INTEGER NOT NULL     -- one more than the highest number that ever was: from there on nothing can be there
) STRICT;

-- Rows of one attempt lie side by side, and are read, trimmed and removed so.
CREATE TABLE chunks (
    job    INTEGER NOT NULL, -- jobs.seq
    n      INTEGER NOT NULL,
    stream INTEGER NOT NULL, -- 1 stdout, 2 stderr
    bytes  BLOB    NOT NULL,
    PRIMARY KEY (job, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    owner       TEXT    NOT NULL,
    key         BLOB    NOT NULL,
    fingerprint BLOB    NOT NULL,
    ids         BLOB    NOT NULL, -- 16 bytes each
    expires     INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
-- `purge`.
CREATE INDEX keys_expires ON keys (expires);

CREATE TABLE workers (
    id         TEXT    PRIMARY KEY,
    info       BLOB    NOT NULL,
    registered INTEGER NOT NULL,
    removed    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Apart from the registration, so that a heartbeat writes little.
CREATE TABLE sessions (
    id      TEXT    PRIMARY KEY,
    renewed INTEGER NOT NULL,
    beat    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    kind    BLOB    NOT NULL,
    key     BLOB    NOT NULL,
    value   BLOB    NOT NULL,
    version INTEGER NOT NULL,
    expires INTEGER,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
-- `purge`.
CREATE INDEX records_expires ON records (expires) WHERE expires IS NOT NULL;
