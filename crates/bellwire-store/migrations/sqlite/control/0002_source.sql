-- Ways in. token, config and state are sealed; token_hash finds a source by the token of its public URL.
CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    tail BLOB NOT NULL,
    org BLOB NOT NULL,
    app BLOB NOT NULL,
    is_app_own INTEGER NOT NULL,
    uid TEXT,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    token_hash BLOB NOT NULL UNIQUE,
    token BLOB NOT NULL,
    config BLOB NOT NULL,
    settings TEXT NOT NULL,
    state BLOB NOT NULL,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX source_by_org ON source (org);
CREATE UNIQUE INDEX source_by_uid ON source (org, uid) WHERE uid IS NOT NULL;

-- What came to a source without becoming a message; of each source the newest stay.
CREATE TABLE receipt (
    id INTEGER PRIMARY KEY,
    tail BLOB NOT NULL,
    source INTEGER NOT NULL,
    status INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    duplicate_of BLOB,
    payload BLOB,
    headers TEXT NOT NULL,
    at INTEGER NOT NULL
);
CREATE INDEX receipt_by_source ON receipt (source);
