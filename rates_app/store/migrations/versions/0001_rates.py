"""Locations, batches with their ledger, prices, and the rollups that answer questions.

How the tables work together is told in docs/architecture.md, under "Storage".
"""

from alembic import op

revision = "0001"
down_revision = None

LOCATIONS = """
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Ports and regions are one tree: a question names a location and need not know which kind it is.
CREATE TABLE locations (
    id        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code      text NOT NULL UNIQUE,
    kind      text NOT NULL CHECK (kind IN ('port', 'region')),
    name      text NOT NULL,
    parent_id integer REFERENCES locations
);
CREATE INDEX locations_parent ON locations (parent_id);
CREATE INDEX locations_fuzzy ON locations USING gin ((lower(code || ' ' || name)) gin_trgm_ops);

-- The tree's closure: each location under itself (depth 0) and under every region above it.
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
                     ('received', 'staging', 'verified', 'published', 'refused', 'withdrawn', 'failed')),
    -- Set when the same content was delivered again on purpose, so that this row no longer answers for it.
    superseded   boolean NOT NULL DEFAULT false,
    tolerance    bigint NOT NULL DEFAULT 0 CHECK (tolerance >= 0),
    rows         bigint,
    rejected     bigint,
    total_cents  numeric,
    first_day    date,
    last_day     date,
    lanes        integer,
    generation   bigint,
    failure      text,
    deadline     timestamptz,
    received_at  timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    verified_at  timestamptz,
    published_at timestamptz,
    ended_at     timestamptz
);
CREATE UNIQUE INDEX batches_content ON batches (content_hash) WHERE NOT superseded;
CREATE INDEX batches_state ON batches (state);

-- The ledger: what has happened to each slice of a batch's file. The attempt that turns a slice to 'staged', in the
-- transaction that copied its rows, has won; every other attempt rolls back and its table with it.
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
    staged_at   timestamptz,
    seconds     double precision,
    PRIMARY KEY (batch_id, number)
);

-- Every bad field of every bad row. `line` counts within the slice; the ledger's line counts make it the file's.
CREATE TABLE rejects (
    batch_id integer NOT NULL REFERENCES batches ON DELETE CASCADE,
    slice    integer NOT NULL,
    line     bigint NOT NULL,
    field    text NOT NULL,
    reason   text NOT NULL,
    value    text
);
CREATE INDEX rejects_order ON rejects (batch_id, slice, line);

-- One row: the number that every publish and withdraw raises, in the transaction that changes what readers see.
CREATE TABLE generation (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    number     bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO generation (number) VALUES (1);
"""

PRICES = """
-- What suppliers delivered, row by row. The service reads rollups; this is the record they are made from.
-- A batch is one partition, made of its winning attempts' tables.
CREATE TABLE prices (
    batch_id       integer NOT NULL,
    slice          integer NOT NULL,
    origin_id      integer NOT NULL,
    destination_id integer NOT NULL,
    day            date NOT NULL,
    price_cents    integer NOT NULL
) PARTITION BY LIST (batch_id);

CREATE SCHEMA staging;

-- What a batch contributes to a day between two locations, ports or regions: a weighted set of prices, ascending.
-- A row counts only while its batch is published, so publish and withdraw touch no row here.
CREATE TABLE rollups (
    origin_id      integer NOT NULL,
    destination_id integer NOT NULL,
    day            date NOT NULL,
    batch_id       integer NOT NULL,
    count          bigint NOT NULL,
    total_cents    bigint NOT NULL,
    price_cents    integer[] NOT NULL,
    weights        integer[] NOT NULL,
    -- With count and total in the index, an average is answered from neighbouring index pages alone,
    -- in whatever order batches arrived.
    PRIMARY KEY (origin_id, destination_id, day, batch_id) INCLUDE (count, total_cents)
) WITH (toast_tuple_target = 256, autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX rollups_batch ON rollups (batch_id);
"""

TOKENS = """
CREATE TABLE tokens (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    scopes     text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
"""


def upgrade() -> None:
    """Create the schema."""
    for script in (LOCATIONS, BATCHES, PRICES, TOKENS):
        op.execute(script)
