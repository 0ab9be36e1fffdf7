-- Everything that is not a message: small, kept for as long as it is not deleted.
-- Ids are a time-ordered 8-byte key (the rowid) and a random 12-byte tail. Times are milliseconds since the Unix epoch.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE application (
    id INTEGER PRIMARY KEY,
    tail BLOB NOT NULL,
    org BLOB NOT NULL,
    kind INTEGER NOT NULL,
    uid TEXT,
    name TEXT NOT NULL,
    throttle_rate INTEGER,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
);
CREATE INDEX application_by_org ON application (org) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX application_by_uid ON application (org, uid) WHERE uid IS NOT NULL AND deleted_at IS NULL;
CREATE UNIQUE INDEX application_operational ON application (org) WHERE kind = 1 AND deleted_at IS NULL;

-- enabled_at: when it was last enabled after having been disabled.
-- headers and secret are sealed (see cipher.rs); a deleted endpoint stays without them, so that old attempts can be shown.
CREATE TABLE endpoint (
    id INTEGER PRIMARY KEY,
    tail BLOB NOT NULL,
    app INTEGER NOT NULL,
    uid TEXT,
    url TEXT NOT NULL,
    description TEXT NOT NULL,
    event_types TEXT,
    channels TEXT,
    throttle_rate INTEGER,
    disabled INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    headers BLOB,
    secret BLOB,
    failing_since INTEGER,
    enabled_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
);
CREATE INDEX endpoint_by_app ON endpoint (app) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX endpoint_by_uid ON endpoint (app, uid) WHERE uid IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE event_type (
    org BLOB NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    archived INTEGER NOT NULL,
    deprecated INTEGER NOT NULL,
    schemas TEXT,
    feature_flags TEXT,
    group_name TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (org, name)
) WITHOUT ROWID;

CREATE TABLE api_key (
    id INTEGER PRIMARY KEY,
    tail BLOB NOT NULL,
    org BLOB NOT NULL,
    name TEXT NOT NULL,
    hash BLOB NOT NULL,
    scopes TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    last_used_at INTEGER
);

CREATE TABLE revoked_token (
    id BLOB PRIMARY KEY,
    app BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX revoked_token_by_expiry ON revoked_token (expires_at);

-- response is sealed: it may hold a token.
CREATE TABLE idempotency (
    key BLOB PRIMARY KEY,
    request BLOB NOT NULL,
    org BLOB NOT NULL,
    status INTEGER NOT NULL,
    response BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

CREATE TABLE task (
    id INTEGER PRIMARY KEY,
    tail BLOB NOT NULL,
    org BLOB NOT NULL,
    kind INTEGER NOT NULL,
    status INTEGER NOT NULL,
    app BLOB NOT NULL,
    endpoint BLOB NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    position BLOB,
    messages_sent INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX task_by_org ON task (org);
CREATE INDEX task_running ON task (id) WHERE status = 0;
