"""Add the addresses that lane alerts send e-mails to, which their owners confirm, and the state of each alert."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table and the view. Tables that exist stay as they are, and so do their locks."""
    op.execute(
        """
        CREATE TABLE lane_alert_addresses (
            -- Owner of the lane alerts, who entered the address. Another person may receive its e-mails.
            owner           text NOT NULL,
            -- In lower case.
            address         text NOT NULL,
            -- URL of the pages, for the links in e-mails.
            site            text NOT NULL,
            state           text NOT NULL DEFAULT 'unconfirmed'
                                CHECK (state IN ('unconfirmed', 'confirmed', 'unsubscribed')),
            -- In the links. The service may read its hash only.
            token           bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
            token_hash      bytea NOT NULL UNIQUE GENERATED ALWAYS AS (sha256(token)) STORED,
            -- Confirmation messages that the mail server has accepted, and attempts at the latest one.
            messages        integer NOT NULL DEFAULT 0,
            attempts        integer NOT NULL DEFAULT 0,
            next_attempt_at timestamptz DEFAULT clock_timestamp(),
            sent_at         timestamptz,
            expires_at      timestamptz,
            error           text,
            created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (owner, address)
        );

        -- Only alerts in the state active send notices. The reader of this view needs no access to tokens.
        CREATE VIEW lane_alert_states AS
        SELECT lane_alerts.id AS alert_id,
            CASE
                WHEN NOT EXISTS (
                    SELECT FROM tokens
                    WHERE supplier = lane_alerts.owner AND scopes && ARRAY['alerts:write', 'operator']
                      AND (expires_at IS NULL OR expires_at > clock_timestamp())
                ) THEN 'ended'
                WHEN channel = 'webhook' THEN 'active'
                WHEN entered.state = 'confirmed' THEN 'active'
                ELSE coalesce(entered.state, 'unconfirmed')
            END AS state
        FROM lane_alerts
        LEFT JOIN lane_alert_addresses entered
            ON channel = 'email' AND entered.owner = lane_alerts.owner AND address = lower(target);
        """
    )
