PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO _sqlx_migrations VALUES(1,'initial','2026-11-20 17:18:51',1,X'ef73054ea2f54a62cad95f2d4ec31fe1d265fc910a923b43004b32d97d7d735d5b721e1934549766f978bd5267ccc131',2738304);
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
INSERT INTO jobs VALUES(1,X'01020304050600000000000000000000',0,0,1,-7,'ann',1767225600000,1767225630000,NULL,NULL,NULL,NULL,'{"state":{"is":"scheduled","wait":{"for":"time","at":1767225602000}},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(2,X'01020304050600000000000000000001',0,0,1,-7,'ann',1767225600000,1767225630000,NULL,NULL,NULL,NULL,'{"state":{"is":"scheduled","wait":{"for":"retry","since":1767225600000,"delayMs":5000}},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(3,X'01020304050600000000000000000002',0,1,1,-7,'ann',1767225600000,NULL,NULL,NULL,NULL,NULL,'{"state":{"is":"queued","since":1767225600000},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(4,X'01020304050600000000000000000003',0,2,1,-7,'ann',1767225600000,NULL,1767225660000,1767226200000,NULL,'w-1','{"state":{"is":"running","lease":{"attempt":10,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000}},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(5,X'01020304050600000000000000000004',0,3,1,-7,'ann',1767225600000,NULL,1767225660000,1767226200000,NULL,'w-1','{"state":{"is":"cancelling","lease":{"attempt":10,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000},"since":1767225602000},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(6,X'01020304050600000000000000000005',0,4,1,-7,'ann',1767225600000,NULL,NULL,NULL,1767225602000,NULL,'{"state":{"is":"completed","at":1767225602000},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(7,X'01020304050600000000000000000006',0,6,1,-7,'ann',1767225600000,NULL,NULL,NULL,1767225602000,NULL,'{"state":{"is":"cancelled","at":1767225602000},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(8,X'01020304050600000000000000000007',0,5,1,-7,'ann',1767225600000,NULL,NULL,NULL,1767225602000,NULL,'{"state":{"is":"failed","at":1767225602000,"reason":"exit_code","error":"why"},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(9,X'01020304050600000000000000000008',0,5,1,-7,'ann',1767225600000,NULL,NULL,NULL,1767225602000,NULL,'{"state":{"is":"failed","at":1767225602000,"reason":"timeout","error":"why"},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(10,X'01020304050600000000000000000009',0,5,1,-7,'ann',1767225600000,NULL,NULL,NULL,1767225602000,NULL,'{"state":{"is":"failed","at":1767225602000,"reason":"out_of_memory","error":"why"},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(11,X'0102030405060000000000000000000a',0,5,1,-7,'ann',1767225600000,NULL,NULL,NULL,1767225602000,NULL,'{"state":{"is":"failed","at":1767225602000,"reason":"worker_lost","error":"why"},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(12,X'0102030405060000000000000000000b',0,5,1,-7,'ann',1767225600000,NULL,NULL,NULL,1767225602000,NULL,'{"state":{"is":"failed","at":1767225602000,"reason":"input_error","error":"why"},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(13,X'0102030405060000000000000000000c',0,5,1,-7,'ann',1767225600000,NULL,NULL,NULL,1767225602000,NULL,'{"state":{"is":"failed","at":1767225602000,"reason":"executor_error","error":"why"},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(14,X'0102030405060000000000000000000d',0,5,1,-7,'ann',1767225600000,NULL,NULL,NULL,1767225602000,NULL,'{"state":{"is":"failed","at":1767225602000,"reason":"dependency_failed","error":"why"},"claimed":0,"lost":0,"failed":0}');
INSERT INTO jobs VALUES(15,X'0102030405060000000000000000000e',0,1,1,-7,'ann',1767225600000,NULL,NULL,NULL,NULL,'w-1','{"state":{"is":"queued","since":1767225600000},"attempts":[{"attempt":1,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000,"ended":1767225601000,"outcome":{"how":"exited","code":3},"durationMs":250},{"attempt":2,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000,"ended":1767225601000,"outcome":{"how":"signaled","signal":11}},{"attempt":3,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000,"ended":1767225601000,"outcome":{"how":"timedOut"}},{"attempt":4,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000,"ended":1767225601000,"outcome":{"how":"outOfMemory"}},{"attempt":5,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000,"ended":1767225601000,"outcome":{"how":"stopped"}},{"attempt":6,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000,"ended":1767225601000,"outcome":{"how":"returned"}},{"attempt":7,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000,"ended":1767225601000,"outcome":{"how":"inputError","message":"no such file"}},{"attempt":8,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000,"ended":1767225601000,"outcome":{"how":"executorError","message":"no space"}},{"attempt":9,"worker":"w-1","token":"0000000000000000000000000000feed","since":1767225600000,"ended":1767225601000,"outcome":{"how":"lost"}}],"claimed":9,"lost":2,"failed":3}');
INSERT INTO jobs VALUES(16,X'01020304050600000000000000000064',1,1,2,0,'local',1767225600000,NULL,NULL,NULL,NULL,NULL,'{"state":{"is":"queued","since":1767225600000},"claimed":0,"lost":0,"failed":0}');
CREATE TABLE specs (
    seq  INTEGER PRIMARY KEY,
    spec TEXT NOT NULL
) STRICT;
INSERT INTO specs VALUES(1,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(2,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(3,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(4,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(5,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(6,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(7,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(8,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(9,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(10,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(11,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(12,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(13,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(14,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(15,'{"command":{"steps":["make","make test"]},"name":"nightly ä","containerImage":"debian:12","input":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","workingDirectory":"src","env":{"LANG":"C.UTF-8"},"timeoutMs":1500,"resources":{"cpuMillis":1500,"memoryMb":256,"pids":64},"network":"bridge","labels":["gpu","x86"],"priority":7,"maxAttempts":5,"retries":2,"backoff":{"initialMs":2000,"factor":1.5,"maxMs":30000},"exclusive":true,"runAt":1767225600000}');
INSERT INTO specs VALUES(16,'{"command":{"shell":"echo 100"},"timeoutMs":300000,"resources":{},"priority":0,"maxAttempts":3,"retries":0,"backoff":{"initialMs":1000,"factor":2.0,"maxMs":60000},"exclusive":false}');
CREATE TABLE counts (
    status INTEGER PRIMARY KEY,
    jobs   INTEGER NOT NULL
) STRICT;
INSERT INTO counts VALUES(0,2);
INSERT INTO counts VALUES(1,3);
INSERT INTO counts VALUES(2,1);
INSERT INTO counts VALUES(3,1);
INSERT INTO counts VALUES(4,1);
INSERT INTO counts VALUES(5,7);
INSERT INTO counts VALUES(6,1);
CREATE TABLE classes (
    class  INTEGER PRIMARY KEY,
    key    TEXT    NOT NULL,
    queued INTEGER NOT NULL
) STRICT;
INSERT INTO classes VALUES(1,'{"kind":"docker","cpuMillis":1500,"memoryMb":256,"network":"bridge","labels":["gpu","x86"]}',2);
INSERT INTO classes VALUES(2,'{"kind":"process"}',1);
CREATE TABLE outputs (
    job     INTEGER PRIMARY KEY, -- jobs.seq
    attempt INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    seen    INTEGER NOT NULL     -- one more than the highest number that ever was: from there on nothing can be there
) STRICT;
INSERT INTO outputs VALUES(4,10,7,4,2);
CREATE TABLE chunks (
    job    INTEGER NOT NULL, -- jobs.seq
    n      INTEGER NOT NULL,
    stream INTEGER NOT NULL, -- 1 stdout, 2 stderr
    bytes  BLOB    NOT NULL,
    PRIMARY KEY (job, n)
) STRICT, WITHOUT ROWID;
INSERT INTO chunks VALUES(4,0,1,X'6f7574');
INSERT INTO chunks VALUES(4,1,2,X'00657272');
CREATE TABLE keys (
    owner       TEXT    NOT NULL,
    key         BLOB    NOT NULL,
    fingerprint BLOB    NOT NULL,
    ids         BLOB    NOT NULL, -- 16 bytes each
    expires     INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
INSERT INTO keys VALUES('local',X'6b00c3a4',X'0707070707070707070707070707070707070707070707070707070707070707',X'010203040506000000000000000000000102030405060000000000000000000101020304050600000000000000000002010203040506000000000000000000030102030405060000000000000000000401020304050600000000000000000005010203040506000000000000000000060102030405060000000000000000000701020304050600000000000000000008010203040506000000000000000000090102030405060000000000000000000a0102030405060000000000000000000b0102030405060000000000000000000c0102030405060000000000000000000d0102030405060000000000000000000e',1767225660000);
CREATE TABLE workers (
    id         TEXT    PRIMARY KEY,
    info       BLOB    NOT NULL,
    registered INTEGER NOT NULL,
    removed    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO workers VALUES('w-1',X'00696e666f',1767225600000,0);
CREATE TABLE sessions (
    id      TEXT    PRIMARY KEY,
    renewed INTEGER NOT NULL,
    beat    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO sessions VALUES('w-1',1767225600000,'{"report":{"load":[0.5,1],"version":"1.0"},"held":[{"job":"01020304-0506-0000-0000-000000000001","token":"00000000000000000000000000000001"}],"completed":3,"failed":1}');
CREATE TABLE records (
    kind    BLOB    NOT NULL,
    key     BLOB    NOT NULL,
    value   BLOB    NOT NULL,
    version INTEGER NOT NULL,
    expires INTEGER,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
INSERT INTO records VALUES(X'75736572',X'6100',X'76',1,NULL);
INSERT INTO records VALUES(X'75736572',X'62',X'76',1,1767225660000);
CREATE UNIQUE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_ready ON jobs (class, rank, id) WHERE status = 1;
CREATE INDEX jobs_due ON jobs (due, id) WHERE status = 0;
CREATE INDEX jobs_leases ON jobs (worker, floor) WHERE status IN (2, 3);
CREATE INDEX jobs_hard_end ON jobs (hard_end) WHERE status IN (2, 3);
CREATE INDEX jobs_ended ON jobs (ended, id) WHERE status IN (4, 5, 6);
CREATE INDEX jobs_owner ON jobs (owner, id);
CREATE INDEX jobs_status ON jobs (status, id);
CREATE INDEX jobs_worker ON jobs (worker, id) WHERE worker IS NOT NULL;
CREATE UNIQUE INDEX classes_key ON classes (key);
CREATE INDEX classes_queued ON classes (class) WHERE queued > 0;
CREATE INDEX keys_expires ON keys (expires);
CREATE INDEX records_expires ON records (expires) WHERE expires IS NOT NULL;
COMMIT;
