-- From schema 2 to 3: batches that have their receipt are kept for a while.

ALTER TABLE batch ADD COLUMN times_receipted INTEGER NOT NULL DEFAULT 0;

-- Batches that have their receipt, kept aside for a while: a store that is restored to an older state
-- asks for them again. Instants are the hub's clock.
CREATE TABLE receipted (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    count INTEGER NOT NULL,
    message BLOB NOT NULL,
    receipted_ms INTEGER NOT NULL,
    times_receipted INTEGER NOT NULL,
    UNIQUE (epoch, sequence)
);

-- One row: the request to send again that was met last.
CREATE TABLE request (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL
);
