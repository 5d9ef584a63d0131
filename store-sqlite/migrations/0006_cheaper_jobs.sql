-- The file that a job brings, in a column of its own: every insertion parsed its spec twice for an index over it.
ALTER TABLE specs ADD COLUMN input TEXT;
UPDATE specs SET input = json_extract(spec, '$.input') WHERE json_extract(spec, '$.input') IS NOT NULL;
DROP INDEX specs_input;
-- `list` by input: the jobs that bring a file.
CREATE INDEX specs_input ON specs (input) WHERE input IS NOT NULL;

-- `leased`; `expired`, which asks for sessions by the workers that hold leases, and for hard ends by looking at every lease once: an index
-- for those alone was written twice in each job's life.
DROP INDEX jobs_hard_end;
DROP INDEX jobs_leases;
CREATE INDEX jobs_leases ON jobs (worker, floor, hard_end) WHERE status IN (2, 3);
