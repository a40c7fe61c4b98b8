"""How often messages to consumers are sent again that their receivers do not accept."""

from __future__ import annotations

#: Attempts at a message: with the delays below, within 18 hours.
MAX_ATTEMPTS = 8
FIRST_DELAY_SECONDS = 60
MAX_DELAY_SECONDS = 12 * 60 * 60

#: Messages that are sent at a time. A receiver that does not respond holds one place until the timeout.
CONCURRENT_NOTICES = 8

#: Parameters of the statements that claim messages.
CLAIM = {"first": FIRST_DELAY_SECONDS, "most": MAX_DELAY_SECONDS, "limit": CONCURRENT_NOTICES}
