-- Ways in. token, config and state are sealed; token_hash finds a source by the token of its public URL.
CREATE TABLE source (
    id bigint PRIMARY KEY,
    tail bytea NOT NULL,
    org bytea NOT NULL,
    app bytea NOT NULL,
    is_app_own boolean NOT NULL,
    uid text COLLATE "C",
    name text NOT NULL,
    kind text NOT NULL,
    token_hash bytea NOT NULL UNIQUE,
    token bytea NOT NULL,
    config bytea NOT NULL,
    settings text NOT NULL,
    state bytea NOT NULL,
    metadata text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE INDEX source_by_org ON source (org, id);
CREATE UNIQUE INDEX source_by_uid ON source (org, uid) WHERE uid IS NOT NULL;

-- What came to a source without becoming a message; of each source the newest stay.
CREATE TABLE receipt (
    id bigint PRIMARY KEY,
    tail bytea NOT NULL,
    source bigint NOT NULL,
    status integer NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    duplicate_of bytea,
    payload bytea,
    headers text NOT NULL,
    at bigint NOT NULL
);
CREATE INDEX receipt_by_source ON receipt (source, id);

-- Where a received message came from (JSON); NULL for published ones.
ALTER TABLE message ADD COLUMN origin text;
