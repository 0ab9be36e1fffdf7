//! Every limit: a name, a unit and a reason, in one place. Those an operator may change are defaults here and keys in the configuration.

/// Payload of one published message. 1 MiB is ten times what senders document as their maximum for typical events.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Request body of any other API call: schemas are the largest thing in it.
pub const REQUEST_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Page size of lists when the caller does not say (Svix: 50) and at most (Svix: 250).
pub const PAGE_LIMIT_DEFAULT: usize = 50;
pub const PAGE_LIMIT_MAX: usize = 250;
/// Response bytes kept with an attempt: enough for an error page's first screen, little enough for millions of attempts.
pub const RESPONSE_BODY_KEPT_BYTES: usize = 16 * 1024;
/// Response bytes read and thrown away so that a connection stays usable; beyond it the connection is closed.
pub const RESPONSE_BODY_DRAINED_BYTES: usize = 256 * 1024;
/// One response head (status line and headers) of a receiver.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 32 * 1024;
pub const RESPONSE_HEADERS_MAX: usize = 100;
/// Chunk extensions of one chunk, which nobody uses: beyond it a receiver counts as broken.
pub const CHUNK_LINE_BYTES_MAX: usize = 1_024;
/// What is kept of a single response header (`Retry-After`, `Content-Type`).
pub const RESPONSE_HEADER_KEPT_BYTES: usize = 256;
/// Read buffer of one connection: a usual answer in one read, and 1,000 idle connections in 4 MB.
pub const CONNECTION_BUFFER_BYTES: usize = 4 * 1024;
/// Interim (1xx) responses before a receiver counts as broken.
pub const INTERIM_RESPONSES_MAX: usize = 8;
/// Extra headers an endpoint may carry.
pub const ENDPOINT_HEADERS_MAX: usize = 32;
pub const ENDPOINT_HEADERS_BYTES_MAX: usize = 8 * 1024;
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Content type of a raw payload: a media type with a parameter or two.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// URL of an endpoint; browsers and proxies agree on about this much.
pub const URL_BYTES_MAX: usize = 2_048;
/// Names, descriptions and metadata: long enough for people, short enough to list.
pub const NAME_CHARS_MAX: usize = 1_024;
pub const DESCRIPTION_CHARS_MAX: usize = 8_192;
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// From the Svix API.
pub const UID_CHARS_MAX: usize = 256;
pub const EVENT_TYPE_CHARS_MAX: usize = 256;
pub const CHANNEL_CHARS_MAX: usize = 128;
pub const TAG_CHARS_MAX: usize = 128;
pub const MESSAGE_CHANNELS_MAX: usize = 10;
pub const MESSAGE_TAGS_MAX: usize = 5;
pub const ENDPOINT_CHANNELS_MAX: usize = 10;
pub const ENDPOINT_EVENT_TYPES_MAX: usize = 1_000;
/// Endpoints of one application: a fan-out is one transaction.
pub const ENDPOINTS_PER_APPLICATION_MAX: usize = 1_000;
/// Old signing secrets that still sign during rotation (Svix: 10).
pub const OLD_SECRETS_MAX: usize = 10;
pub const ROTATION_GRACE_SECONDS_DEFAULT: u64 = 86_400;
pub const ROTATION_GRACE_SECONDS_MAX: u64 = 604_800;
/// How long an idempotency key answers the same.
pub const IDEMPOTENCY_WINDOW_HOURS: u64 = 24;
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 512;
/// Scheduled sends: between a minute and a day ahead (Svix).
pub const DELIVER_AT_SECONDS_MIN: u64 = 60;
pub const DELIVER_AT_SECONDS_MAX: u64 = 86_400;
/// Payloads above this are stored compressed (LZ4): below, the header costs what it saves.
pub const COMPRESS_ABOVE_BYTES: usize = 2 * 1024;
/// Packs of the embedded store: how large what a message carries may be to go into one, what an application must have in a commit to get
/// one, and how large one gets. LZ4 looks back 64 KiB, and reading one message unpacks all of it.
pub const PACK_ITEM_BYTES_MAX: usize = 16 * 1024;
pub const PACK_BYTES_MIN: usize = 4 * 1024;
pub const PACK_BYTES_MAX: usize = 64 * 1024 - 1;
/// Group commit of the embedded store: whichever comes first ends a group. When it is begun: below, and `pace.rs` of the store.
pub const GROUP_ITEMS_MAX: usize = 512;
pub const GROUP_BYTES_MAX: usize = 1024 * 1024;
/// So many must wait for the next group to be committed while the one before is still being synced.
pub const GROUP_ITEMS_AHEAD_MIN: usize = 16;
/// From the beginning of one group to the next at least so often what it cost to write and sync one: then a third of a thread's time goes
/// into commits at most. Unless so many wait, or all that are to be expected; and never longer than a request can afford (a millisecond and
/// a half).
pub const GROUP_COSTS_BETWEEN: u32 = 3;
pub const GROUP_ITEMS_ENOUGH: usize = 32;
pub const GROUP_WAIT_US_MAX: u64 = 1_500;
/// The same on PostgreSQL, where a commit is a few milliseconds of waiting for somebody else: half of the time nobody of a node's commits.
/// Half of those who were there lately are enough, within these bounds: one half is served while the other one is committed. A node that has
/// few of the shards waits up to twice as long as one that has all: the database pays for every batch of all nodes.
pub const BATCH_COSTS_BETWEEN: u32 = 2;
pub const BATCH_ITEMS_ENOUGH_MIN: usize = 32;
pub const BATCH_ITEMS_ENOUGH_MAX: usize = 256;
pub const BATCH_WAIT_US_MAX: u64 = 4_000;
/// Keys of publishing that are kept in memory (some 80 bytes each, and as many again while these are taken over into the table of keys),
/// and how many of them are taken over for each message that comes meanwhile.
pub const FRESH_KEYS_MAX: usize = 65_536;
pub const FRESH_KEYS_MOVED: usize = 2;
/// Completions may wait this long to ride with the next create.
pub const COMPLETION_DELAY_MS_MAX: u64 = 8;
/// Commands waiting for the writer; above it callers wait.
pub const WRITER_QUEUE_MAX: usize = 4_096;
/// A read that takes longer is ended and answered 503.
pub const READ_STATEMENT_MS_MAX: u64 = 5_000;
/// Attempts running at once in one process: what a crash may repeat.
pub const IN_FLIGHT_MAX: usize = 1_024;
/// Attempts running at once for one endpoint, at the start and at most.
pub const ENDPOINT_WINDOW_START: usize = 16;
pub const ENDPOINT_WINDOW_MAX: usize = 256;
/// Payload bytes of queued deliveries kept in memory; beyond it they are read back from the store when their turn comes.
pub const QUEUED_PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// First tries kept in memory per endpoint and in all (32 bytes each without payload): 8 MB and 64 MB. Beyond it they stay in
/// the store until there is room.
pub const ENDPOINT_QUEUE_MAX: usize = 262_144;
pub const QUEUE_MAX: usize = 2_097_152;
/// Retries due within this time are in memory; later ones are read from the store when their time comes near.
pub const RETRY_HORIZON_SECONDS: u64 = 120;
/// `Retry-After` is honoured up to this: a receiver cannot park a delivery for longer.
pub const RETRY_AFTER_SECONDS_MAX: u64 = 86_400;
/// Idle keep-alive connections are closed after this.
pub const CONNECTION_IDLE_SECONDS: u64 = 60;
/// Keep-alive connections are replaced after this, so that a receiver's DNS change is seen and its balancer can spread load.
pub const CONNECTION_AGE_SECONDS_MAX: u64 = 600;
/// Resolving one name. Resolvers answer in milliseconds; two seconds allow one lost packet.
pub const RESOLVE_MS_MAX: u64 = 2_000;
/// Resolved names kept, and for how long at most whatever their TTL says; failures are kept briefly.
pub const RESOLVE_CACHE_ENTRIES: u64 = 4_096;
pub const RESOLVE_TTL_SECONDS_MAX: u64 = 60;
pub const RESOLVE_NEGATIVE_TTL_SECONDS: u64 = 5;
/// One TCP connect. A lost SYN is repeated after one and three seconds; who has not answered by then is not there.
pub const CONNECT_MS_MAX: u64 = 5_000;
/// Addresses of one name that are tried, one after another.
pub const DIAL_ADDRESSES_MAX: usize = 4;
/// Answer of an egress proxy to CONNECT.
pub const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Request head and body of our own server: slow clients are cut off.
pub const SERVER_HEADER_SECONDS_MAX: u64 = 10;
pub const SERVER_BODY_SECONDS_MAX: u64 = 30;
pub const SERVER_CONNECTIONS_MAX: usize = 16_384;
pub const SERVER_HEADERS_MAX: usize = 64;
pub const SERVER_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Body of a publish call: the payload and what stands around it (application, channels, tags).
pub const MESSAGE_BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 64 * 1024;
/// Throttle, in messages per second; the wire type is 16 bits (Svix API).
pub const THROTTLE_RATE_MIN: u16 = 1;
/// Caller keys and feature flags of the Svix API.
pub const FEATURE_FLAG_CHARS_MAX: usize = 256;
pub const FEATURE_FLAGS_MAX: usize = 25;
pub const SESSION_ID_CHARS_MAX: usize = 64;
/// Versions of one event type's schema, and the length of a version's name.
pub const SCHEMA_VERSIONS_MAX: usize = 100;
pub const SCHEMA_VERSION_CHARS_MAX: usize = 64;
/// Depth to which an example payload is made up from a schema: schemas may refer to themselves.
pub const EXAMPLE_DEPTH_MAX: usize = 8;
/// Payloads may be kept for an hour to 90 days (Svix API).
pub const PAYLOAD_RETENTION_DAYS_MAX: i64 = 90;
pub const PAYLOAD_RETENTION_HOURS_MAX: i64 = 2_160;
/// Portal tokens: one hour to seven days (Svix API).
pub const PORTAL_TOKEN_SECONDS_MIN: u64 = 3_600;
pub const PORTAL_TOKEN_SECONDS_MAX: u64 = 604_800;
/// Credentials whose check is remembered, so that a request costs one hash; 200 bytes each.
pub const SESSIONS_CACHED: usize = 16_384;
/// How long a remembered credential is believed: what a revocation on another node may take.
pub const SESSION_FRESH_MS: i64 = 5_000;
/// Clock difference allowed in `exp` and `nbf` of tokens.
pub const TOKEN_LEEWAY_SECONDS: i64 = 30;
/// A credential in a header; a JWT with generous claims is a quarter of it.
pub const CREDENTIAL_BYTES_MAX: usize = 8 * 1024;
/// An API key's use is noted at most this often: a write per minute, not per request.
pub const KEY_USE_NOTED_MS: i64 = 60_000;
pub const API_KEY_NAME_CHARS_MAX: usize = 256;
/// Event type names whose being archived is remembered between publish calls, and for how long.
pub const ARCHIVED_NAMES_CACHED: usize = 16_384;
/// Control writes to one application, and calls with one idempotency key, wait for each other at most this long.
pub const CONTROL_LOCK_MS_MAX: u64 = 10_000;
/// Locks for that; two applications seldom share one.
pub const CONTROL_LOCKS: usize = 256;
/// How often a change is decided and written again when another node was quicker. A round loses against each other node that changes
/// the same object about as often as it wins: of eight nodes that do nothing else, one change in five thousand would be refused.
pub const CHANGE_TRIES_MAX: u32 = 64;
/// A pause before each is shorter than this; a round takes a few milliseconds itself.
pub const CHANGE_PAUSE_MS: u64 = 8;
/// Query string pairs read of one request; the rest is refused.
pub const QUERY_PAIRS_MAX: usize = 1_100;
/// What `Retry-After` says when the store is busy, and when the disk is full.
pub const RETRY_AFTER_BUSY_SECONDS: u64 = 1;
pub const RETRY_AFTER_FULL_SECONDS: u64 = 10;
/// A write waits this long for its place in the writer's queue before it is answered 503.
pub const WRITER_WAIT_MS_MAX: u64 = 10_000;
/// Reads waiting for a reading thread; above it they are answered 503.
pub const READ_QUEUE_MAX: usize = 1_024;
/// Open files of one reading thread beside the control file: the newest segments are read most.
pub const READER_SEGMENTS_OPEN_MAX: usize = 16;
/// Page cache of one reading connection: the inner pages of its trees.
pub const READER_CACHE_BYTES: usize = 1024 * 1024;
/// Page cache of the writer for a segment that takes no new messages.
pub const OLD_SEGMENT_CACHE_BYTES: usize = 2 * 1024 * 1024;
/// Pages of the embedded store's files: two rows with an event of some kilobytes, compressed, fit into one; each costs two system
/// calls to log and two to copy.
pub const PAGE_BYTES: u32 = 8 * 1024;
/// Pages in a write-ahead log that are copied into the database at once, beside the writer (2 MiB: syncs of the log wait for what is
/// copied). A log of [`LOG_PAGES`] (16 MiB) of which no more are left is finished by the writer, so that it begins anew: while commits
/// come without a pause, nobody else ever has all of it copied. At [`LOG_PAGES_MAX`] (64 MiB) the writer copies whatever is left.
pub const CHECKPOINT_PAGES: u32 = 256;
pub const LOG_PAGES: u32 = 2_048;
pub const LOG_PAGES_MAX: u32 = 8_192;
/// Whether a full disk has space again is tried this often.
pub const FULL_PROBE_MS: u64 = 250;
/// Fan-outs whose outstanding endpoints the writer knows by heart (8 bytes an endpoint); others are looked up.
pub const OUTSTANDING_ENDPOINTS_KEPT: usize = 262_144;
/// Tails of application and endpoint ids kept in memory (32 bytes each).
pub const ID_TAILS_KEPT: usize = 65_536;
/// URLs of endpoints whose number in the current segment is known by heart.
pub const URLS_KEPT: usize = 16_384;
/// Rows one retention step deletes or empties, and pages it gives back to the file system: some tens of milliseconds.
pub const RETAIN_ROWS_MAX: usize = 1_000;
/// Packs one retention step writes again, for payloads that go earlier than their message.
pub const RETAIN_PACKS_MAX: usize = 128;
pub const RETAIN_PAGES_MAX: u32 = 1_000;
/// How long a received event is remembered so that a repeat is recognised: providers repeat for up to three days, rarely longer; and
/// at most as long as anybody repeats by hand.
pub const DUPLICATE_WINDOW_SECONDS_DEFAULT: u64 = 3 * 86_400;
pub const DUPLICATE_WINDOW_SECONDS_MAX: u64 = 30 * 86_400;
/// Entries of a source's log that are kept: enough to see what is wrong, little enough that an attacker fills nothing.
pub const SOURCE_LOG_ENTRIES_KEPT: i64 = 1_000;
/// Body of a received request; a source may set less. GitHub sends up to 25 MB, everybody else stays below one.
pub const RECEIVED_BODY_BYTES_MAX: usize = 26 * 1024 * 1024;
/// Bodies being received, in memory together, with what is copied while one of them is put together: five of the largest, or nearly
/// two hundred thousand usual ones. What the allocator rounds up and keeps comes on top: with it they stay below 256 MiB (measured).
pub const RECEIVED_BODIES_BYTES_MAX: usize = 192 * 1024 * 1024;
/// Of it for bodies that stay small, however many large ones come: as many as there are connections, at 3 KiB each.
pub const RECEIVED_SMALL_BODIES_BYTES_MAX: usize = 48 * 1024 * 1024;
/// What is small: nearly every event of every provider.
pub const RECEIVED_SMALL_BODY_BYTES_MAX: usize = 64 * 1024;
/// Large bodies of one source: half of what there is for them, so that the others are never without.
pub const RECEIVED_BODIES_OF_SOURCE_BYTES_MAX: usize = 72 * 1024 * 1024;
/// Body of a request that can only be a handshake: challenges are a few hundred bytes.
pub const HANDSHAKE_BODY_BYTES_MAX: usize = 64 * 1024;
/// What is verified with its body at once, and not by its head before: it comes in the same few packets.
pub const RECEIVED_WITH_HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Sources kept in memory, and for how long without another look: what a change on another node may take.
pub const SOURCES_CACHED: usize = 16_384;
pub const SOURCE_FRESH_MS: u64 = 2_000;
/// Entries of sources' logs waiting to be written, written at once, and how often: beyond it they are counted, not kept, so that
/// a flood of bad requests costs a few small writes a second.
pub const RECEIPTS_QUEUE_MAX: usize = 1_024;
pub const RECEIPTS_BATCH_MAX: usize = 128;
pub const RECEIPTS_DELAY_MS: u64 = 250;
/// Entries of one source's log in a second; as many as people read.
pub const RECEIPTS_PER_SECOND_MAX: f64 = 20.0;
/// Body kept with a quarantined request; with a thousand of them a source's log stays below a gigabyte.
pub const QUARANTINED_BYTES_MAX: usize = 1024 * 1024;
/// Fetching a provider's certificate, or confirming a subscription, while the provider waits.
pub const HANDSHAKE_FETCH_MS_MAX: u64 = 5_000;
/// Certificates of providers that are kept, for how long, and how soon one that could not be fetched is asked for again.
pub const CERTIFICATES_CACHED: usize = 256;
pub const CERTIFICATE_FRESH_SECONDS: u64 = 86_400;
pub const CERTIFICATE_RETRY_SECONDS: u64 = 10;
/// Ordering keys whose newest event is known by heart, to mark late ones.
pub const ORDERING_KEYS_CACHED: usize = 65_536;
/// Depth and nodes of an XML document that is read as JSON.
pub const XML_DEPTH_MAX: usize = 64;
pub const XML_NODES_MAX: u32 = 100_000;
/// Random bytes of a source's token: nobody guesses one.
pub const SOURCE_TOKEN_BYTES: usize = 24;
/// JSON Schema of a source, and entries of its lists: enough for any provider.
pub const SOURCE_SCHEMA_BYTES_MAX: usize = 256 * 1024;
pub const SOURCE_LIST_ENTRIES_MAX: usize = 256;
/// Custom answer of a source: a short text or a small XML document.
pub const SOURCE_ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Settings of one source, and bytes of one: a set of public keys is a few kilobytes.
pub const SOURCE_CONFIG_ENTRIES_MAX: usize = 32;
pub const SOURCE_CONFIG_BYTES_MAX: usize = 16 * 1024;
/// Sources with a schedule in one server; each is looked at once a minute.
pub const CRON_SOURCES_MAX: i64 = 10_000;
/// How far back a schedule is looked at after nobody had looked: what was missed longer ago is not made up.
pub const CRON_LOOK_BACK_MINUTES: u32 = 60;
/// Deliveries begun by one group commit of the PostgreSQL store: eight of the widest fan-outs. More would hold its locks for seconds.
pub const GROUP_DELIVERIES_MAX: usize = 8_192;
