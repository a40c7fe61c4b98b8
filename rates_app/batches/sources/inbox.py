"""Where deliveries arrive, and where they go when their batch has ended: a folder, or buckets with a queue."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rates_app.batches.sources.delivery import Inbox
    from rates_app.settings import Settings


@cache
def open_inbox(settings: Settings) -> Inbox:
    """Open the inbox that the settings name, once: buckets if there are any, else folders below ``RATES_DATA_DIR``."""
    if settings.incoming_bucket:
        from rates_app.batches.sources.bucket import Buckets  # noqa: PLC0415 - boto3 takes long to load

        return Buckets(settings)
    from rates_app.batches.sources.folder import Folders  # noqa: PLC0415 - one of the two is needed

    return Folders(settings)
