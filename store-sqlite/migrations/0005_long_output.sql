-- Where a chunk's bytes are that are kept in the job's file beside the database, and how many: `bytes` is empty then.
ALTER TABLE chunks ADD COLUMN place INTEGER;
ALTER TABLE chunks ADD COLUMN length INTEGER;
-- Whether a job ever had such a file: `purge` removes it then.
ALTER TABLE outputs ADD COLUMN file INTEGER NOT NULL DEFAULT 0;
