"""Limit a supplier's deliveries per day, so that one supplier cannot use up the capacity for all others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from rates_app.batches.model import BatchError

if TYPE_CHECKING:
    from rates_app.settings import Settings
    from rates_app.store.databases import Connection


class Quota(NamedTuple):
    """Limits per supplier for the last 24 hours."""

    deliveries: int
    size_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Quota:
        """Return the quota of the settings."""
        return cls(settings.daily_deliveries, settings.daily_bytes)


class QuotaExceeded(BatchError):
    """The supplier has used its quota.

    Attributes:
        retry_seconds: Seconds until the oldest delivery of the last 24 hours no longer counts.
    """

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


def check_quota(connection: Connection, supplier: str, quota: Quota) -> None:
    """Check a supplier's deliveries of the last 24 hours.

    The next delivery does not count yet: one that is larger than the whole quota is accepted when the quota is unused.
    Concurrent deliveries may exceed the quota together.

    Args:
        connection: A connection to the primary.
        supplier: The supplier.
        quota: Its limits.

    Raises:
        QuotaExceeded: A limit is reached.
    """
    row = connection.execute(
        """
        SELECT count(*), coalesce(sum(size_bytes), 0)::bigint,
               extract(epoch FROM min(received_at) + interval '1 day' - now())::float8
        FROM batches WHERE supplier = %s AND received_at > now() - interval '1 day'
        """,
        (supplier,),
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    deliveries, size_bytes, seconds = row
    if deliveries < quota.deliveries and size_bytes < quota.size_bytes:
        return
    used = (
        f"{deliveries} of {quota.deliveries} deliveries"
        if deliveries >= quota.deliveries
        else f"{size_bytes} of {quota.size_bytes} bytes"
    )
    raise QuotaExceeded(
        f"supplier {supplier} has used {used} of the last 24 hours: deliver again later, in fewer or smaller files",
        max(1, math.ceil(seconds or 0)),
    )
