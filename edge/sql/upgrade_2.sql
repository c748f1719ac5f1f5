-- From schema 1 to 2: clocks that drift, and a hub that does not know the time.

ALTER TABLE time_line ADD COLUMN drift_ppm REAL NOT NULL DEFAULT 0;
ALTER TABLE time_line ADD COLUMN observed_ms INTEGER NOT NULL DEFAULT 0;

CREATE TABLE undated (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    boot TEXT NOT NULL,
    device TEXT NOT NULL,
    counted_ms INTEGER NOT NULL,
    source INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE boot (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL,
    started_ms INTEGER NOT NULL
);
