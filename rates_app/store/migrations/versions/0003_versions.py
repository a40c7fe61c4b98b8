"""Say which generation changed a lane last, and which processes answer from their own memory."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add versions of lanes and leases of caches."""
    op.execute(
        """
        -- Never set back: a number that a rolled-back publish has drawn is not drawn again.
        CREATE SEQUENCE generations;
        SELECT setval('generations', (SELECT number FROM generation));

        -- Pairs of locations share a bounded number of slots, so that a publish updates few rows however many lanes it
        -- touches. Two lanes in one slot cost a needless miss, never a stale answer.
        CREATE FUNCTION lane_slot(origin_id integer, destination_id integer) RETURNS integer
            LANGUAGE sql IMMUTABLE PARALLEL SAFE
            RETURN ((origin_id * 7919::bigint + destination_id) % 8192)::integer;

        -- The generation that changed a slot last; slot -1 is the tree of locations, on which every answer depends.
        CREATE TABLE lane_versions (
            slot       integer PRIMARY KEY,
            generation bigint NOT NULL
        ) WITH (fillfactor = 50);

        -- Which slots a batch touches, found when it is verified so that publishing need not look.
        CREATE TABLE batch_slots (
            batch_id integer PRIMARY KEY REFERENCES batches ON DELETE CASCADE,
            slots    integer[] NOT NULL
        );
        INSERT INTO batch_slots
        SELECT batch_id, array_agg(DISTINCT lane_slot(origin_id, destination_id)) FROM rollups GROUP BY batch_id;

        -- A process may answer from its memory until then; a publish waits for it to stop or for its time to end.
        CREATE TABLE cache_leases (
            holder     uuid PRIMARY KEY,
            expires_at timestamptz NOT NULL
        );
        """
    )
