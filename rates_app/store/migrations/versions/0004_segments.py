"""Keep prices as columns and numbers instead of rows and arrays, and enter into the ledger which days are rolled up."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the new forms beside the old, which what was published before stays in."""
    op.execute(
        """
        -- A segment holds a day's prices of one piece of a slice, a column in an array: a fourth of what as many rows
        -- take, on the primary, in the log and on replicas. Numbers of so few kinds are not worth compressing.
        CREATE TABLE segments (
            batch_id        integer NOT NULL,
            slice           integer NOT NULL,
            day             date NOT NULL,
            count           integer NOT NULL,
            origin_ids      integer[] STORAGE EXTERNAL NOT NULL,
            destination_ids integer[] STORAGE EXTERNAL NOT NULL,
            price_cents     integer[] STORAGE EXTERNAL NOT NULL
        ) PARTITION BY LIST (batch_id);

        -- Every price that was delivered, a row each.
        CREATE VIEW delivered AS
        SELECT batch_id, slice, origin_id, destination_id, day, price_cents FROM prices
        UNION ALL
        SELECT batch_id, slice, origin_id, destination_id, day, cents
        FROM segments, unnest(origin_ids, destination_ids, price_cents) AS price (origin_id, destination_id, cents);

        -- Which days of a batch are rolled up: how many prices between ports, their sum, and the pairs of locations.
        CREATE TABLE rolled_up (
            batch_id        integer NOT NULL REFERENCES batches ON DELETE CASCADE,
            first_day       date NOT NULL,
            last_day        date NOT NULL,
            count           bigint NOT NULL,
            total_cents     numeric NOT NULL,
            origin_ids      integer[] NOT NULL,
            destination_ids integer[] NOT NULL,
            PRIMARY KEY (batch_id, first_day)
        );

        -- A rollup's prices as `rates_app.rates.sets` packs them: half of what two arrays take, and a fourth of the
        -- work for who writes them. They fit into the row.
        ALTER TABLE rollups ADD COLUMN prices bytea STORAGE EXTERNAL,
            ALTER price_cents DROP NOT NULL, ALTER weights DROP NOT NULL;
        ALTER TABLE rollups RESET (toast_tuple_target);
        """
    )
