"""The stores and helpers that the views of one process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flask import current_app

if TYPE_CHECKING:
    from rates_app.cache.redis import Redis
    from rates_app.http.limits import Limiter
    from rates_app.http.slots import Slots
    from rates_app.ops.periodic import Periodic
    from rates_app.rates.reads import Reads
    from rates_app.settings import Settings
    from rates_app.store.databases import Databases
    from rates_app.store.lease import Lease

_KEY = "rates"


@dataclass(frozen=True, slots=True)
class Service:
    """The stores and helpers of an application.

    Attributes:
        export_limiter: Limits the exports of each client.
        export_slots: The exports that may run at the same time.
    """

    settings: Settings
    databases: Databases
    redis: Redis
    reads: Reads
    lease: Lease
    limiter: Limiter
    export_limiter: Limiter
    export_slots: Slots
    housekeeping: Periodic

    def close(self) -> None:
        """Close all connections and stop all threads."""
        self.lease.stop()
        self.housekeeping.stop()
        self.databases.close()
        self.redis.close()


def service() -> Service:
    """Return the service of the application that handles the current request."""
    return cast("Service", current_app.extensions[_KEY])
