-- What a backend was asked to make, as JSON; NULL where somebody else makes the sandbox.
ALTER TABLE sandboxes ADD COLUMN spec TEXT;
-- Its end is wanted: it is forgotten once its backend has ended it.
ALTER TABLE sandboxes ADD COLUMN ending BIGINT NOT NULL DEFAULT 0;
