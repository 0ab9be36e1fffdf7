-- The whole store. Ids are a time-ordered 8-byte key and a random 12-byte tail; columns that name another noun hold its key.
-- Keys of several nodes never collide: each node has a number in their low bits. Times are milliseconds since the Unix epoch.
--
-- What grows with messages is partitioned by day and dropped whole: message, attempt, outcome (by the message's key) and counter
-- (by minute). What is unfinished stands in queue and retry, which stay small. There is no default partition: a row
-- outside all days is an error, upon which the day's partitions are made.
-- Differs from SQLite: one queue row a delivery (its shard decides who works on it), terminal deliveries apart in outcome, and
-- event ids in a table of their own, since a unique index cannot span partitions.

CREATE TABLE meta (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

-- version goes up with every write to the application or one of its endpoints.
CREATE TABLE application (
    id bigint PRIMARY KEY,
    tail bytea NOT NULL,
    org bytea NOT NULL,
    kind smallint NOT NULL,
    uid text COLLATE "C",
    name text NOT NULL,
    throttle_rate integer,
    metadata text NOT NULL,
    version bigint NOT NULL DEFAULT 0,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    deleted_at bigint
);
CREATE INDEX application_by_org ON application (org, id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX application_by_uid ON application (org, uid) WHERE uid IS NOT NULL AND deleted_at IS NULL;
CREATE UNIQUE INDEX application_operational ON application (org) WHERE kind = 1 AND deleted_at IS NULL;

-- enabled_at: when it was last enabled after having been disabled.
-- headers and secret are sealed (see cipher.rs); a deleted endpoint stays without them, so that old attempts can be shown.
CREATE TABLE endpoint (
    id bigint PRIMARY KEY,
    tail bytea NOT NULL,
    app bigint NOT NULL,
    uid text COLLATE "C",
    url text NOT NULL,
    description text NOT NULL,
    event_types text,
    channels text,
    throttle_rate integer,
    disabled boolean NOT NULL,
    metadata text NOT NULL,
    headers bytea,
    secret bytea,
    failing_since bigint,
    enabled_at bigint,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    deleted_at bigint
);
CREATE INDEX endpoint_by_app ON endpoint (app, id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX endpoint_by_uid ON endpoint (app, uid) WHERE uid IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE event_type (
    org bytea NOT NULL,
    name text COLLATE "C" NOT NULL,
    description text NOT NULL,
    archived boolean NOT NULL,
    deprecated boolean NOT NULL,
    schemas text,
    feature_flags text,
    group_name text,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (org, name)
);

CREATE TABLE api_key (
    id bigint PRIMARY KEY,
    tail bytea NOT NULL,
    org bytea NOT NULL,
    name text NOT NULL,
    hash bytea NOT NULL,
    scopes text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint,
    last_used_at bigint
);

CREATE TABLE revoked_token (
    id bytea PRIMARY KEY,
    app bytea NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX revoked_token_by_expiry ON revoked_token (expires_at);

CREATE TABLE task (
    id bigint PRIMARY KEY,
    tail bytea NOT NULL,
    org bytea NOT NULL,
    kind smallint NOT NULL,
    status smallint NOT NULL,
    app bytea NOT NULL,
    endpoint bytea NOT NULL,
    since bigint NOT NULL,
    until bigint NOT NULL,
    position bytea,
    messages_sent bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE INDEX task_by_org ON task (org, id);
CREATE INDEX task_running ON task (id) WHERE status = 0;

-- Keys of every call that makes something. message: of publishing, the message it made (response NULL: it is the answer).
-- response is sealed: it may hold a token.
CREATE TABLE idempotency (
    key bytea PRIMARY KEY,
    request bytea NOT NULL,
    message bigint,
    tail bytea,
    org bytea,
    status smallint,
    response bytea,
    expires_at bigint NOT NULL
);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

-- Defaults are left out of the rows: content_type NULL is application/json, created_at NULL is the time inside the id.
-- payload_dies_at is set only where the payload goes before its day does.
CREATE TABLE message (
    id bigint NOT NULL,
    tail bytea NOT NULL,
    app bigint NOT NULL,
    event_type text NOT NULL,
    event_id text,
    encoding smallint NOT NULL,
    checksum bigint NOT NULL,
    content_type text,
    channels text,
    tags text,
    created_at bigint,
    deliver_at bigint,
    payload_expires_at bigint NOT NULL,
    payload_dies_at bigint,
    payload bytea,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX message_by_app ON message (app, id);
CREATE INDEX message_by_death ON message (payload_dies_at) WHERE payload_dies_at IS NOT NULL;
-- Compressed by us where it pays; the server need not try again.
ALTER TABLE message ALTER COLUMN payload SET STORAGE EXTERNAL;

-- Callers' event ids: what makes them unique over all days.
CREATE TABLE message_event (
    app bigint NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    message bigint NOT NULL,
    PRIMARY KEY (app, event_id)
);
CREATE INDEX message_event_by_message ON message_event (message);

-- First tries outstanding, one row a delivery.
CREATE TABLE queue (
    message bigint NOT NULL,
    endpoint bigint NOT NULL,
    shard smallint NOT NULL,
    app bigint NOT NULL,
    tail bytea NOT NULL,
    PRIMARY KEY (message, endpoint)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

-- Retries and manual tries that wait. is_delivered: a successful attempt exists (manual repeat).
CREATE TABLE retry (
    message bigint NOT NULL,
    endpoint bigint NOT NULL,
    shard smallint NOT NULL,
    app bigint NOT NULL,
    tail bytea NOT NULL,
    tries integer NOT NULL,
    due_at bigint NOT NULL,
    trigger smallint NOT NULL,
    resume_at bigint,
    is_delivered boolean NOT NULL,
    PRIMARY KEY (message, endpoint)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX retry_due ON retry (due_at, message, endpoint);
CREATE INDEX retry_by_endpoint ON retry (endpoint, message);

-- Deliveries that ended without success. state: 1 exhausted, 2 cancelled. counted_minute: where the counter counts it.
CREATE TABLE outcome (
    message bigint NOT NULL,
    endpoint bigint NOT NULL,
    state smallint NOT NULL,
    tries integer NOT NULL,
    reason text,
    counted_minute bigint,
    is_delivered boolean NOT NULL,
    PRIMARY KEY (message, endpoint)
) PARTITION BY RANGE (message);
CREATE INDEX outcome_by_endpoint ON outcome (endpoint, message, state);

CREATE TABLE attempt (
    message bigint NOT NULL,
    id bigint NOT NULL,
    tail bytea NOT NULL,
    endpoint bigint NOT NULL,
    status smallint NOT NULL,
    trigger smallint NOT NULL,
    response_status smallint NOT NULL,
    duration_ms bigint NOT NULL,
    "timestamp" bigint NOT NULL,
    url text NOT NULL,
    response bytea,
    PRIMARY KEY (message, id)
) PARTITION BY RANGE (message);
CREATE INDEX attempt_by_endpoint ON attempt (endpoint, id);

-- Finished deliveries of an endpoint by the minute they finished in.
CREATE TABLE counter (
    endpoint bigint NOT NULL,
    minute bigint NOT NULL,
    success bigint NOT NULL,
    fail bigint NOT NULL,
    canceled bigint NOT NULL,
    PRIMARY KEY (endpoint, minute)
) PARTITION BY RANGE (minute);

-- Days that have their partitions, by the day's number since the Unix epoch (UTC).
CREATE TABLE day (
    number integer PRIMARY KEY
);

-- Living nodes. A node is alive while its beat goes up; nobody compares clocks. Epochs are never used twice.
-- address: where other nodes reach it directly, or empty.
CREATE SEQUENCE node_epoch;
CREATE TABLE node (
    epoch bigint PRIMARY KEY,
    slot smallint NOT NULL UNIQUE,
    beat bigint NOT NULL,
    name text NOT NULL,
    is_worker boolean NOT NULL,
    version text NOT NULL,
    address text NOT NULL
) WITH (fillfactor = 50);

-- What a node's writes hold while they rest on its ownership, one row for each of its writing connections; deleted with the node.
CREATE TABLE fence (
    epoch bigint NOT NULL,
    lane smallint NOT NULL,
    PRIMARY KEY (epoch, lane)
) WITH (fillfactor = 50);

CREATE TABLE shard (
    id smallint PRIMARY KEY,
    owner bigint
);
INSERT INTO shard (id) SELECT generate_series(0, 255);

-- Deliveries accepted by a node that does not own their shard: fetched, and deleted, by the one that does. A row has those that one
-- commit made for one shard. retries: whether each stands in retry, not in queue.
CREATE TABLE handover (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    shard smallint NOT NULL,
    messages bigint[] NOT NULL,
    endpoints bigint[] NOT NULL,
    retries boolean[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- Applications written to: what other nodes forget from their caches. transaction: for reading on without a gap, whatever the
-- order of commits.
CREATE TABLE change (
    transaction bigint NOT NULL DEFAULT txid_current(),
    app bigint NOT NULL,
    tail bytea NOT NULL,
    made_at bigint NOT NULL
);
CREATE INDEX change_by_transaction ON change (transaction);
