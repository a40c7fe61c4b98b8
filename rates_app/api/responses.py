"""Send answers: content coding, entity tags and conditional requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, request

from rates_app.api.problems import Problem
from rates_app.api.service import service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rates_app.cache.answer import Answer
    from rates_app.cache.reads import Render

#: At equal quality the client gets the smallest.
CODINGS = ("br", "gzip", "identity")

#: What tables can be written as, by the name that the argument ``format`` has for it.
MEDIA_TYPES = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}


def choose_coding(answer: Answer) -> str:
    """Choose the content coding that the client likes best (RFC 9110, 12.5.3)."""
    accepted = request.accept_encodings
    qualities = {coding: accepted.quality(coding) if accepted else 0.0 for coding in CODINGS if coding in answer.bodies}
    if "identity" not in accepted.values() and qualities["identity"] == 0.0 and not _refuses_identity():
        qualities["identity"] = 0.0001  # acceptable unless it is ruled out, but nobody's first choice
    best = max(qualities, key=lambda coding: qualities[coding])  # the first of equals: CODINGS puts the smallest first
    return best if qualities[best] > 0 else "identity"


def _refuses_identity() -> bool:
    return any(coding == "*" and quality == 0 for coding, quality in request.accept_encodings)


def choose_media_type(offered: Sequence[str]) -> str:
    """Choose among media types by Accept; the first one without it.

    Raises:
        Problem: The client accepts none of them.
    """
    if not request.accept_mimetypes:
        return offered[0]
    best = request.accept_mimetypes.best_match(offered)
    if best is None:
        raise Problem("not-acceptable", f"There are {', '.join(offered)}.")
    return best


def send(answer: Answer, *, vary: str = "Accept-Encoding") -> Response:
    """Make a response of an answer, or a 304 when the client has it already.

    ``no-cache`` lets clients and proxies keep the answer but ask each time: what a publish changes is seen at once.
    """
    coding = choose_coding(answer)
    headers = {"ETag": answer.etag(coding), "Cache-Control": "no-cache", "Vary": vary}
    known = {tag for coding in answer.bodies for tag in [answer.etag(coding).strip('"')]}
    if any(tag in known for tag in request.if_none_match.as_set(include_weak=True)) or request.if_none_match.star_tag:
        return Response(status=304, headers=headers)
    headers["Content-Type"] = answer.media_type
    if coding != "identity":
        headers["Content-Encoding"] = coding
    return Response(answer.bodies[coding], headers=headers)


def answer_question(question: str, render: Render, *, vary: str = "Accept-Encoding") -> Response:
    """Answer a question through the caches and note for the log where the answer came from.

    Args:
        question: Its canonical form.
        render: Makes the body on a database connection.
        vary: The request headers that the answer depends on.
    """
    served = service().reads.answer(question, render)
    noted: dict[str, Any] = {"cache": served.level, "generation": served.answer.version}
    request.environ["rates.served"] = noted
    return send(served.answer, vary=vary)
