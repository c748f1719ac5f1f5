-- The hub's one file: what it has read and not yet been receipted for, and what it remembers of
-- its devices. Unsigned 64-bit ids (hub, device) are 16 hexadecimal digits; instants are
-- milliseconds after 1970-01-01T00:00Z; blobs are the wire format's (docs/wire.md).

-- One row: whose file this is and where its numbering stands.
CREATE TABLE hub (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL CHECK (epoch > 0),
    next_sequence INTEGER NOT NULL CHECK (next_sequence > 0),
    -- device and inode: a copy or a restored backup has others
    place TEXT NOT NULL,
    -- the machine's boot while the file is open, null once it is closed in order
    open_in_boot TEXT
);

-- Read and durable, not yet part of a batch. A body is one record, or one undecoded entry, whose
-- reference is its own reception.
CREATE TABLE entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    body BLOB NOT NULL
);

-- Sealed: these bytes are what (hub, epoch, sequence) means, for ever. Moved to `receipted` on the
-- receipt.
CREATE TABLE batch (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    count INTEGER NOT NULL,
    message BLOB NOT NULL,
    times_receipted INTEGER NOT NULL DEFAULT 0,
    UNIQUE (epoch, sequence)
);

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

-- Counts since the file was made; edge.outbox.Tally names them.
CREATE TABLE tally (
    name TEXT PRIMARY KEY,
    n INTEGER NOT NULL
);

-- The stretches during which a device's clock ran on without a jump (edge.clock), oldest first.
CREATE TABLE time_line (
    device TEXT NOT NULL,
    position INTEGER NOT NULL,
    type INTEGER NOT NULL,
    ahead_ms INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    set_ms INTEGER,
    drift_ppm REAL NOT NULL DEFAULT 0,
    observed_ms INTEGER NOT NULL DEFAULT 0,
    doubtful INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (device, position)
);

-- The advertised packets that were taken last, so that a repeat is known after a restart too.
CREATE TABLE packet (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    source INTEGER NOT NULL,
    digest BLOB NOT NULL,
    UNIQUE (device, source, digest)
);

-- Read while the hub did not know the time (edge.undated): bytes as they came, and when, in
-- milliseconds since the start of the machine's boot. A source is a characteristic or service data.
CREATE TABLE undated (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    boot TEXT NOT NULL,
    device TEXT NOT NULL,
    counted_ms INTEGER NOT NULL,
    source INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    body BLOB NOT NULL
);

-- One row: when the machine's boot began, once that was known.
CREATE TABLE boot (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL,
    started_ms INTEGER NOT NULL
);
