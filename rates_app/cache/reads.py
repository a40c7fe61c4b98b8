"""The way of a read: find out which version of the data counts now, then take the nearest copy of the answer to it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from rates_app.cache.answer import Answer
from rates_app.cache.answers import SharedAnswers
from rates_app.ops.metrics import GENERATION
from rates_app.rates.queries import current_generation, require_generation
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.cache.answers import Level
    from rates_app.cache.redis import Redis
    from rates_app.store.databases import Connection, Databases

    #: Runs queries in one snapshot and renders what they give: (body, media type).
    Render = Callable[[Connection], tuple[bytes, str]]

log = structlog.get_logger()


class Served(NamedTuple):
    """An answer and where it came from."""

    answer: Answer
    level: Level


class Reads:
    """Answers that are never older than what anybody may have seen before the question was asked.

    While a process cannot reach the primary it does not know what has been published since, and caches nothing: it
    answers from a replica that shows at least the newest generation this process has seen.
    """

    def __init__(self, databases: Databases, redis: Redis) -> None:
        self._databases = databases
        self._shared = SharedAnswers(redis)
        self._seen = 0
        self._lock = threading.Lock()

    def answer(self, question: str, render: Render) -> Served:
        """Answer a question.

        Args:
            question: Its canonical form: equal for equal questions, and different for others.
            render: Makes the answer's body on a connection; it may run more than once.

        Raises:
            Unavailable: No database can answer, or none that is recent enough.
        """
        generation = self._newest_generation()
        if generation is None:
            return Served(self._compute(render, self._seen), "database")
        return Served(*self._shared.get(question, generation, lambda: self._compute(render, generation)))

    def _newest_generation(self) -> int | None:
        """Ask the primary, the only server that knows; None when it cannot be reached."""
        try:
            generation = self._databases.primary.read(current_generation)
        except PoolTimeout as error:
            # It is there but busy: what it has published meanwhile would be missed if another server were asked.
            raise Unavailable("all connections to the primary are busy") from error
        except psycopg.OperationalError:
            return None
        with self._lock:
            self._seen = max(self._seen, generation)
        GENERATION.set(generation)
        return generation

    def _compute(self, render: Render, least: int) -> Answer:
        def read(connection: Connection) -> Answer:
            generation = require_generation(connection, least)
            return Answer.of(*render(connection), generation)

        answer = self._databases.read(read)
        with self._lock:
            self._seen = max(self._seen, answer.version)
        return answer
