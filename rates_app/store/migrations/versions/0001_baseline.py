"""Create the schema: locations, batches with their ledger, prices, rollups, cache versions and tokens.

docs/architecture.md, section "Storage", explains how the tables work together.
"""

from alembic import op

revision = "0001"
down_revision = None

LOCATIONS = """
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Ports and regions are one tree: a query names a location without its kind.
CREATE TABLE locations (
    id        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code      text NOT NULL UNIQUE,
    kind      text NOT NULL CHECK (kind IN ('port', 'region')),
    name      text NOT NULL,
    parent_id integer REFERENCES locations
);
CREATE INDEX locations_parent ON locations (parent_id);
CREATE INDEX locations_fuzzy ON locations USING gin ((lower(code || ' ' || name)) gin_trgm_ops);

-- Transitive closure of the tree: each location under itself (depth 0) and under every region above it.
CREATE TABLE location_ancestors (
    location_id integer NOT NULL REFERENCES locations ON DELETE CASCADE,
    ancestor_id integer NOT NULL REFERENCES locations ON DELETE CASCADE,
    depth       smallint NOT NULL,
    PRIMARY KEY (location_id, ancestor_id)
);
CREATE INDEX location_ancestors_down ON location_ancestors (ancestor_id, location_id);
"""

BATCHES = """
CREATE TABLE batches (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL,
    supplier     text NOT NULL,
    content_hash bytea NOT NULL CHECK (octet_length(content_hash) = 32),
    size_bytes   bigint NOT NULL,
    format       text NOT NULL,
    compression  text NOT NULL,
    state        text NOT NULL DEFAULT 'received' CHECK (state IN
                     ('received', 'staging', 'verified', 'held', 'published', 'refused', 'withdrawn', 'failed',
                      'checked')),
    -- True when the same content was resubmitted, so that this row no longer answers for it.
    superseded   boolean NOT NULL DEFAULT false,
    max_rejected_rows bigint NOT NULL DEFAULT 0 CHECK (max_rejected_rows >= 0),
    -- What the supplier says that the file has: rows, good and rejected, and the sum of its prices.
    expected_rows        bigint CHECK (expected_rows >= 0),
    expected_total_cents numeric CHECK (expected_total_cents >= 0),
    rows         bigint,
    rejected     bigint,
    total_cents  numeric,
    first_day    date,
    last_day     date,
    lanes        integer,
    generation   bigint,
    failure      text,
    -- How the file's columns and values are read, found before its rows are staged.
    layout       jsonb,
    -- What was assumed about the file, a sentence each, for its supplier.
    assumptions  text[] NOT NULL DEFAULT '{}',
    -- The sum of its rows' hashes: equal for files with the same rows, however they are written.
    row_digest   numeric,
    -- The batch whose place this one takes when it is published, and, once that has happened, the reverse. A batch has
    -- a higher id than the one it replaces, so locking them in descending order cannot deadlock.
    replaces     integer REFERENCES batches CHECK (replaces < id),
    replaced_by  integer REFERENCES batches,
    -- A batch that is only checked is never published, and does not answer for its content.
    check_only   boolean NOT NULL DEFAULT false CHECK (superseded OR NOT check_only),
    -- Failed plausibility checks, and what publishing would change (rates_app.batches.pipeline.comparison).
    findings     jsonb NOT NULL DEFAULT '[]',
    changes      jsonb,
    -- Who published or refused a held batch.
    decided_by   text,
    deadline     timestamptz,
    received_at  timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    verified_at  timestamptz,
    published_at timestamptz,
    ended_at     timestamptz
);
-- Equal files of two suppliers are two batches.
CREATE UNIQUE INDEX batches_content ON batches (supplier, content_hash) WHERE NOT superseded;
CREATE INDEX batches_state ON batches (state);
CREATE INDEX batches_rows ON batches (supplier, row_digest);
CREATE INDEX batches_supplier ON batches (supplier, id);
CREATE INDEX batches_received ON batches (supplier, received_at);

-- How a supplier's files are read.
CREATE TABLE supplier_profiles (
    supplier   text PRIMARY KEY,
    profile    jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Idempotency-Key headers. Keys are scoped to a supplier, so two suppliers may use the same key.
CREATE TABLE deliveries (
    supplier        text NOT NULL,
    idempotency_key text NOT NULL,
    content_hash    bytea NOT NULL,
    PRIMARY KEY (supplier, idempotency_key)
);

-- Attempts at deliveries that are not archived yet, by pinned address. `attempts` are counted before they begin.
CREATE TABLE delivery_attempts (
    address         text PRIMARY KEY,
    batch_id        integer REFERENCES batches ON DELETE CASCADE,
    attempts        integer NOT NULL,
    outages         integer NOT NULL DEFAULT 0,
    error           text,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""

SLICES = """
-- The attempt that sets a slice to 'staged', in the transaction that copied its rows, wins. Every other attempt rolls
-- back, and its table with it.
CREATE TABLE slices (
    batch_id    integer NOT NULL REFERENCES batches ON DELETE CASCADE,
    number      integer NOT NULL,
    start       bigint NOT NULL,
    stop        bigint NOT NULL,
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'staged')),
    winner      text,
    lines       bigint,
    rows        bigint,
    rejected    bigint,
    total_cents numeric,
    row_digest  numeric,
    staged_at   timestamptz,
    seconds     double precision,
    PRIMARY KEY (batch_id, number)
);

-- Every rejected field of every rejected row. `line` counts within the slice; the slices' line counts give the file's.
CREATE TABLE rejects (
    batch_id integer NOT NULL REFERENCES batches ON DELETE CASCADE,
    slice    integer NOT NULL,
    line     bigint NOT NULL,
    field    text NOT NULL,
    reason   text NOT NULL,
    value    text
);
CREATE INDEX rejects_order ON rejects (batch_id, slice, line);

-- Which days of a batch in work are rolled up, with the number and sum of the prices between ports.
CREATE TABLE rolled_up (
    batch_id    integer NOT NULL REFERENCES batches ON DELETE CASCADE,
    first_day   date NOT NULL,
    last_day    date NOT NULL,
    count       bigint NOT NULL,
    total_cents numeric NOT NULL,
    PRIMARY KEY (batch_id, first_day)
);
"""

PRICES = """
-- Tables that slices are staged into. Housekeeping attaches those of published batches to `segments`.
CREATE SCHEMA staging;

-- The delivered prices. The service reads rollups; segments are the record that rollups are made from.
-- A segment holds the prices of one day from one chunk of a slice, a column in an array. That takes a quarter of the
-- space of single rows, on the primary, in the WAL and on replicas. Such numbers are not worth compressing.
CREATE TABLE segments (
    batch_id        integer NOT NULL,
    slice           integer NOT NULL,
    day             date NOT NULL,
    count           integer NOT NULL,
    origin_ids      integer[] STORAGE EXTERNAL NOT NULL,
    destination_ids integer[] STORAGE EXTERNAL NOT NULL,
    price_cents     integer[] STORAGE EXTERNAL NOT NULL
) PARTITION BY LIST (batch_id);

-- The same, one row per price.
CREATE VIEW delivered AS
SELECT batch_id, slice, origin_id, destination_id, day, cents AS price_cents
FROM segments, unnest(origin_ids, destination_ids, price_cents) AS price (origin_id, destination_id, cents);
"""

ROLLUPS = """
-- What a batch contributes to a day between two locations, ports or regions: a weighted set of prices.
-- A row counts only while its batch is published, so publish and withdraw change no row here.
CREATE TABLE rollups (
    origin_id      integer NOT NULL,
    destination_id integer NOT NULL,
    day            date NOT NULL,
    batch_id       integer NOT NULL,
    count          bigint NOT NULL,
    total_cents    bigint NOT NULL,
    low_cents      integer NOT NULL,
    median_cents   integer NOT NULL,
    high_cents     integer NOT NULL,
    -- Packed by rates_app.rates.sets; small enough to stay in the row.
    prices         bytea STORAGE EXTERNAL NOT NULL,
    -- The included columns answer averages, and the spread of a day with one batch, by an index-only scan.
    PRIMARY KEY (origin_id, destination_id, day, batch_id)
        INCLUDE (count, total_cents, low_cents, median_cents, high_cents)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX rollups_batch ON rollups (batch_id);

-- The lowest and the highest price of such a set: its first number, and its last one or last but one.
CREATE FUNCTION little_endian(bytes bytea, first integer) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN get_byte(bytes, first) + (get_byte(bytes, first + 1) << 8) + (get_byte(bytes, first + 2) << 16)
        + (get_byte(bytes, first + 3) << 24);
CREATE FUNCTION lowest_cents(prices bytea) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN little_endian(prices, 0);
CREATE FUNCTION highest_cents(prices bytea, count bigint) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN little_endian(prices, length(prices) - CASE WHEN length(prices) = 4 * count THEN 4 ELSE 8 END);

CREATE VIEW visible_rollups AS
SELECT rollups.* FROM rollups JOIN batches ON batches.id = batch_id AND batches.state = 'published';

-- Between which locations a batch has prices, so that lists of lanes need not aggregate every day's rollups.
CREATE TABLE batch_lanes (
    batch_id       integer NOT NULL REFERENCES batches ON DELETE CASCADE,
    origin_id      integer NOT NULL,
    destination_id integer NOT NULL,
    prices         bigint NOT NULL,
    days           datemultirange NOT NULL,
    PRIMARY KEY (origin_id, destination_id, batch_id)
);
CREATE INDEX batch_lanes_batch ON batch_lanes (batch_id);

CREATE VIEW visible_lanes AS
SELECT batch_lanes.* FROM batch_lanes JOIN batches ON batches.id = batch_id AND batches.state = 'published';

CREATE FUNCTION count_days(days datemultirange) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT coalesce(sum(upper(span) - lower(span)), 0) FROM unnest(days) span);
"""

GENERATIONS = """
-- Which server takes the writes. The identifier changes with initdb, pg_upgrade and a logical restore; the timeline
-- with a promotion and a point-in-time restore.
CREATE FUNCTION server_identity() RETURNS text LANGUAGE sql
    RETURN (SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
            FROM pg_control_system());

-- One row: the number that every publish, replacement and withdraw increments, in the transaction that changes what
-- readers see. A number means something within its epoch only: restored data may draw it a second time.
CREATE TABLE generation (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    number     bigint NOT NULL,
    epoch      uuid NOT NULL DEFAULT gen_random_uuid(),
    -- On which server the epoch began.
    server     text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO generation (number, server) VALUES (1, server_identity());

-- A sequence never repeats a number, even when the publish that drew it rolls back.
CREATE SEQUENCE generations;
SELECT setval('generations', 1);

-- Pairs of locations share a bounded number of slots, so that a publish updates few rows however many lanes it touches.
-- Two lanes in one slot cost an unnecessary cache miss, never a stale response.
CREATE FUNCTION lane_slot(origin_id integer, destination_id integer) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((origin_id * 7919::bigint + destination_id) % 8192)::integer;

-- The generation that changed a slot last; slot -1 is the location tree, on which every response depends.
CREATE TABLE lane_versions (
    slot       integer PRIMARY KEY,
    generation bigint NOT NULL
) WITH (fillfactor = 50);

-- Which slots a batch touches, computed at verification so that publishing need not.
CREATE TABLE batch_slots (
    batch_id integer PRIMARY KEY REFERENCES batches ON DELETE CASCADE,
    slots    integer[] NOT NULL
);

-- A process may serve from its own memory until then; a publish waits until it stops or the lease expires.
CREATE TABLE cache_leases (
    holder     uuid PRIMARY KEY,
    expires_at timestamptz NOT NULL,
    epoch      uuid NOT NULL
);
"""

TOKENS = """
CREATE TABLE tokens (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    -- Owner of the batches that are delivered with this token, and of those that it shows.
    supplier   text NOT NULL,
    hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    scopes     text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
"""


NO_TRUNCATION = """
-- VACUUM truncates a table under an exclusive lock. A replica replays the lock, and behind one long reader every other
-- reader of the table waits. Empty pages at the end are used again by the next batch.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['locations', 'location_ancestors', 'batches', 'slices', 'rejects', 'rollups',
                                'batch_lanes', 'generation', 'lane_versions', 'tokens'] LOOP
        EXECUTE format('ALTER TABLE %I SET (vacuum_truncate = off, toast.vacuum_truncate = off)', name);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Create the schema."""
    for script in (LOCATIONS, BATCHES, SLICES, PRICES, ROLLUPS, GENERATIONS, TOKENS, NO_TRUNCATION):
        op.execute(script)
