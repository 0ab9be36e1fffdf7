-- One segment: the messages whose id key lies between this file's start and the next one's, and all that hangs on them.
-- Columns that name another noun (app, endpoint, message) hold its 8-byte key; its tail is in control.db or in the row.

-- Defaults are left out of the rows: content_type NULL is application/json, created_at NULL is the time inside the id.
-- payload_dies_at is set only where the payload goes before the segment does.
-- The payload is in the row (encoding 0: as it came, 1: LZ4), or payload_bytes of a pack, from pack_at on; or it is gone.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    tail BLOB NOT NULL,
    app INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    event_id TEXT,
    encoding INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    content_type TEXT,
    channels TEXT,
    tags TEXT,
    created_at INTEGER,
    deliver_at INTEGER,
    payload_expires_at INTEGER NOT NULL,
    payload_dies_at INTEGER,
    payload BLOB,
    pack INTEGER,
    pack_at INTEGER,
    payload_bytes INTEGER
);
-- The rowid is part of every index entry: this one lists an application's messages in order.
CREATE INDEX message_by_app ON message (app);
CREATE UNIQUE INDEX message_by_event_id ON message (app, event_id) WHERE event_id IS NOT NULL;
CREATE INDEX message_by_death ON message (payload_dies_at) WHERE payload_dies_at IS NOT NULL;

-- Payloads of messages that were written together, compressed together (pack.rs). Its id is the key of the first of them.
CREATE TABLE pack (
    id INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
);

-- First tries outstanding. endpoints: 8-byte big-endian keys. The row goes when the last of them is done; until then those
-- that have an attempt or a row in retry are done too.
CREATE TABLE queue (
    message INTEGER PRIMARY KEY,
    tail BLOB NOT NULL,
    app INTEGER NOT NULL,
    endpoints BLOB NOT NULL
);

-- Deliveries whose first try did not succeed. state: 0 pending, 1 exhausted, 2 cancelled.
-- counted_minute: where the counter counts this terminal state. is_delivered: a successful attempt exists (manual repeat).
CREATE TABLE retry (
    message INTEGER NOT NULL,
    endpoint INTEGER NOT NULL,
    tail BLOB NOT NULL,
    app INTEGER NOT NULL,
    state INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    trigger INTEGER NOT NULL,
    resume_at INTEGER,
    reason TEXT,
    counted_minute INTEGER,
    is_delivered INTEGER NOT NULL,
    PRIMARY KEY (message, endpoint)
) WITHOUT ROWID;
-- In the order of scans; what counting the waiting ones of an endpoint needs is in it too.
CREATE INDEX retry_due ON retry (due_at, message, endpoint, is_delivered) WHERE state = 0;

CREATE TABLE url (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE
);

CREATE TABLE attempt (
    id INTEGER PRIMARY KEY,
    tail BLOB NOT NULL,
    message INTEGER NOT NULL,
    endpoint INTEGER NOT NULL,
    status INTEGER NOT NULL,
    trigger INTEGER NOT NULL,
    response_status INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    url INTEGER NOT NULL,
    response BLOB
);
-- status is in it so that the state of a delivery needs no look at the row.
CREATE INDEX attempt_by_message ON attempt (message, endpoint, status);
-- Covering, in order of attempts: which messages an endpoint was tried with is found without a look at the rows.
CREATE INDEX attempt_by_endpoint ON attempt (endpoint, id, message, status);

-- Finished deliveries of an endpoint by the minute they finished in.
CREATE TABLE counter (
    endpoint INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    success INTEGER NOT NULL,
    fail INTEGER NOT NULL,
    canceled INTEGER NOT NULL,
    PRIMARY KEY (endpoint, minute)
) WITHOUT ROWID;

-- Keys of publishing (response NULL: the message is the answer) and of resending (response sealed).
CREATE TABLE idempotency (
    key BLOB PRIMARY KEY,
    request BLOB NOT NULL,
    message INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    org BLOB,
    status INTEGER,
    response BLOB
) WITHOUT ROWID;

-- Keys of the latest messages, on their way into idempotency: those of a group in a row (keys.rs).
CREATE TABLE fresh_key (
    id INTEGER PRIMARY KEY,
    entries BLOB NOT NULL
);

-- Written to and emptied again to find out whether a full disk has space.
CREATE TABLE probe (filler BLOB NOT NULL);
