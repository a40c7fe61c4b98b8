"""Say between which locations a batch has prices, so that lists of lanes need not add up every day's rollups."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table, with the batches that are there; what said the same of a batch in work goes."""
    op.execute(
        """
        -- A row counts while its batch is published, like rollups.
        CREATE TABLE batch_lanes (
            batch_id       integer NOT NULL REFERENCES batches ON DELETE CASCADE,
            origin_id      integer NOT NULL,
            destination_id integer NOT NULL,
            prices         bigint NOT NULL,
            days           datemultirange NOT NULL,
            PRIMARY KEY (origin_id, destination_id, batch_id)
        );
        CREATE INDEX batch_lanes_batch ON batch_lanes (batch_id);
        INSERT INTO batch_lanes
        SELECT batch_id, origin_id, destination_id, sum(count), range_agg(daterange(day, day + 1))
        FROM rollups GROUP BY batch_id, origin_id, destination_id;

        CREATE FUNCTION count_days(days datemultirange) RETURNS bigint
            LANGUAGE sql IMMUTABLE PARALLEL SAFE
            RETURN (SELECT coalesce(sum(upper(span) - lower(span)), 0) FROM unnest(days) span);

        ALTER TABLE rolled_up DROP COLUMN origin_ids, DROP COLUMN destination_ids;
        """
    )
