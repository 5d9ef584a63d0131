-- The highest number of a chunk that ever was: once kept so that the writer could do without a look.
ALTER TABLE outputs DROP COLUMN seen;

-- `purge`. The condition was `status IN (4, 5, 6)`, for which every write of a job made a temporary table or two.
DROP INDEX jobs_ended;
CREATE INDEX jobs_ended ON jobs (ended, id) WHERE ended IS NOT NULL;
