-- `list` by input: the jobs that bring a file.
CREATE INDEX specs_input ON specs (json_extract(spec, '$.input')) WHERE json_extract(spec, '$.input') IS NOT NULL;
