-- SQL that both SQLite and PostgreSQL take. Sequences and times (Unix milliseconds) are signed 64-bit.

CREATE TABLE sandboxes (
    id TEXT NOT NULL PRIMARY KEY,
    created_ms BIGINT NOT NULL,
    -- SHA-256 of the token that this gateway gave out, in hex; NULL where the token file has it
    token TEXT,
    -- grows with every session; writes of an older one are refused
    fence BIGINT NOT NULL DEFAULT 0,
    -- of the newest record: every record has the next one, whatever its class, so it is a cursor for readers
    position BIGINT NOT NULL DEFAULT 0,
    -- the hello of the newest session, as JSON; NULL before the first
    hello TEXT,
    -- the state that was current when the session ended, with its digest
    state TEXT,
    digest TEXT,
    -- when the newest session began and ended by the wall clock; ended is NULL while it goes on
    begun_ms BIGINT,
    ended_ms BIGINT,
    -- when it ended by the awake clock
    ended_awake_ms BIGINT,
    -- the supervisor said that no session of its boot will follow
    gone BIGINT NOT NULL DEFAULT 0,
    -- commands: the newest that was given, and the newest that was applied
    commanded BIGINT NOT NULL DEFAULT 0,
    applied BIGINT NOT NULL DEFAULT 0
);

CREATE UNIQUE INDEX sandboxes_token ON sandboxes (token);

-- What is expected next of each class of each log epoch. It moves in the transaction that stores the records.
CREATE TABLE cursors (
    sandbox TEXT NOT NULL,
    epoch TEXT NOT NULL,
    class TEXT NOT NULL,
    next BIGINT NOT NULL,
    PRIMARY KEY (sandbox, epoch, class)
);

-- Records, and gaps: sequences that will never come.
CREATE TABLE records (
    sandbox TEXT NOT NULL,
    position BIGINT NOT NULL,
    class TEXT NOT NULL,
    epoch TEXT NOT NULL,
    -- first and last sequence; they differ in gaps only
    seq BIGINT NOT NULL,
    last BIGINT NOT NULL,
    -- 1 for a gap
    gap BIGINT NOT NULL,
    -- the record as it was buffered, or the gap, as JSON
    body TEXT NOT NULL,
    stored_ms BIGINT NOT NULL,
    PRIMARY KEY (sandbox, position)
);

CREATE INDEX records_class ON records (sandbox, class, position);

CREATE TABLE commands (
    sandbox TEXT NOT NULL,
    n BIGINT NOT NULL,
    verb TEXT NOT NULL,
    body TEXT NOT NULL,
    given_ms BIGINT NOT NULL,
    -- what became of it, as JSON; NULL until that is known
    outcome TEXT,
    PRIMARY KEY (sandbox, n)
);

-- One row: how long this gateway has been awake.
CREATE TABLE awake (
    one BIGINT NOT NULL PRIMARY KEY,
    reading_ms BIGINT NOT NULL
);

INSERT INTO awake (one, reading_ms) VALUES (1, 0);
