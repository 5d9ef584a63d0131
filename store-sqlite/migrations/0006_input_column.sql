-- The file that a job brings, in a column of its own: every insertion parsed its spec twice for an index over it.
ALTER TABLE specs ADD COLUMN input TEXT;
UPDATE specs SET input = json_extract(spec, '$.input') WHERE json_extract(spec, '$.input') IS NOT NULL;
DROP INDEX specs_input;
-- `list` by input: the jobs that bring a file.
CREATE INDEX specs_input ON specs (input) WHERE input IS NOT NULL;
