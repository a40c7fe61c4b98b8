"""Pages of listings: the address of the next page, in the response and in the header ``Link`` (RFC 8288)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import orjson
from flask import request

from rates_app.http.problems import Problem
from rates_app.http.responses import answer_question

if TYPE_CHECKING:
    from flask import Response

    from rates_app.cache.answer import Answer
    from rates_app.rates.reads import Render

JSON = "application/json"


def invalid(parameter: str, detail: str) -> Problem:
    """Return the problem of one invalid parameter."""
    return Problem("invalid-arguments", f"{parameter} {detail}", errors=[{"parameter": parameter, "detail": detail}])


def check_cursor(*, by_code: bool, after: str | None) -> None:
    """Refuse a cursor without the order that it belongs to.

    Raises:
        Problem: There is a cursor, and the listing is not ordered by code.
    """
    if after is not None and not by_code:
        raise invalid("after", "needs sort=code: only that order has pages")


def next_page(changes: dict[str, str]) -> str:
    """Return the address of the present request with other values of some parameters."""
    return f"{request.path}?{urlencode(request.args.to_dict() | changes, safe=':')}"


def answer_page(question: str, render: Render) -> Response:
    """Respond with a page of a listing, through the caches; ``Link`` has the address of the next page.

    Args:
        question: The query in its canonical form.
        render: Renders a JSON object whose member ``next`` is the address of the next page, or null.
    """
    return answer_question(question, JSON, render, describe=_link)


def _link(answer: Answer) -> dict[str, str]:
    following = orjson.loads(answer.bodies["identity"])["next"]
    return {"Link": f'<{following}>; rel="next"'} if following else {}
