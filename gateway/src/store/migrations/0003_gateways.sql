-- Gateways that work with this store together, each for as long as its lease is renewed. One that works alone is not here.
CREATE TABLE gateways (
    id TEXT NOT NULL PRIMARY KEY,
    -- where the others reach it
    url TEXT NOT NULL,
    -- when its lease ends, by the database's own clock
    until_ms BIGINT NOT NULL
);
-- Which of them has the newest session; NULL where one worked alone.
ALTER TABLE sandboxes ADD COLUMN owner TEXT;
CREATE INDEX sandboxes_owner ON sandboxes (owner);
-- One row: which of them does what one has to do for all.
CREATE TABLE leader (
    one BIGINT NOT NULL PRIMARY KEY,
    gateway TEXT NOT NULL
);
-- What a gateway has to be told of a session that it has; the newest of each kind counts.
CREATE TABLE notices (
    gateway TEXT NOT NULL,
    sandbox TEXT NOT NULL,
    -- moved, deleted or commands
    word TEXT NOT NULL,
    -- sessions with a lower fence have to end; of commands, the newest
    n BIGINT NOT NULL,
    PRIMARY KEY (gateway, sandbox, word)
);
