"""Choose where deliveries arrive, and where they are archived: a folder, or buckets with a queue."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rates_app.batches.sources.delivery import Source
    from rates_app.settings import Settings


@cache
def open_source(settings: Settings) -> Source:
    """Open the source that the settings name, once: buckets if there are any, else folders below ``RATES_DATA_DIR``."""
    if settings.incoming_bucket:
        from rates_app.batches.sources.bucket import BucketSource  # noqa: PLC0415 - boto3 takes long to load

        return BucketSource(settings)
    from rates_app.batches.sources.folder import FolderSource  # noqa: PLC0415 - one of the two is needed

    return FolderSource(settings)
