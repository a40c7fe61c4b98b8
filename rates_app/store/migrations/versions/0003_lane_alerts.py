"""Add lane alerts of consumers, and their notices."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables."""
    op.execute(
        """
        CREATE TABLE lane_alerts (
            id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            owner       text NOT NULL,
            origin      text NOT NULL,
            destination text NOT NULL,
            condition   text NOT NULL CHECK (condition IN ('above', 'below', 'rise', 'fall')),
            threshold   float8 NOT NULL,
            days        integer CHECK ((days IS NOT NULL) = (condition IN ('rise', 'fall'))),
            channel     text NOT NULL CHECK (channel IN ('webhook', 'email')),
            target      text NOT NULL,
            -- Signs the requests to a webhook. The service may write it but not read it.
            secret      text CHECK ((secret IS NOT NULL) = (channel = 'webhook')),
            -- Page of the lane, for its notices.
            link        text NOT NULL,
            created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
            -- Whether the condition was met by the rates of this generation.
            met         boolean NOT NULL,
            epoch       uuid NOT NULL,
            generation  bigint NOT NULL
        );
        CREATE INDEX ON lane_alerts (owner);

        CREATE TABLE lane_alert_notices (
            id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            alert_id        integer NOT NULL REFERENCES lane_alerts ON DELETE CASCADE,
            -- The same bytes in every attempt: receivers may compare them.
            body            text NOT NULL,
            state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
            attempts        integer NOT NULL DEFAULT 0,
            created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
            next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            ended_at        timestamptz,
            error           text
        );
        CREATE INDEX ON lane_alert_notices (alert_id, created_at);
        CREATE INDEX ON lane_alert_notices (next_attempt_at) WHERE state = 'pending';
        """
    )
