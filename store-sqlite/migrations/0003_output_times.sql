-- When a chunk was added. Those that earlier versions wrote have none, and count as older than any time.
ALTER TABLE chunks ADD COLUMN at INTEGER;
-- `output_since`, without the bytes, which lie in front of the time.
CREATE INDEX chunks_times ON chunks (job, at);

-- One more than the highest number that was ever trimmed. Of earlier versions' outputs it is not known; nothing of what
-- is missing there is waited for.
ALTER TABLE outputs ADD COLUMN trimmed INTEGER NOT NULL DEFAULT 0;
UPDATE outputs SET trimmed = coalesce((SELECT max(n) + 1 FROM chunks WHERE job = outputs.job), 0) WHERE dropped > 0;
