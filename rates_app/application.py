"""Compose the HTTP service."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, get_args

import structlog
from flask import Flask, Response, g, render_template, request
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import RequestRedirect

from rates_app.api import alerts, batches, changes, docs, exports, locations, operations, profiles, rates, schedules
from rates_app.cache.process import ProcessAnswers
from rates_app.cache.redis import Redis
from rates_app.http import problems
from rates_app.http.cors import cors_headers
from rates_app.http.exchange import Refusal, current_exchange
from rates_app.http.limits import EXCHANGE_SECONDS, Limiter
from rates_app.http.middleware import REQUEST_ID_MARK, Middleware
from rates_app.http.operations import PRIVATE
from rates_app.http.service import Service
from rates_app.http.slots import Slots
from rates_app.ops.periodic import Periodic
from rates_app.ops.traces import trace_requests
from rates_app.rates.reads import Reads
from rates_app.rates.warm import report_hits
from rates_app.store.databases import Databases
from rates_app.store.lease import Lease
from rates_app.store.metrics import measure_pools
from rates_app.web import pages
from rates_app.web.rendering import POLICY as PAGE_POLICY

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from werkzeug.routing import MapAdapter

    from rates_app.settings import Settings

#: The operations of the API, in the order of its document.
API = tuple(module.views for module in (rates, exports, locations, changes, batches, profiles, schedules, alerts))


def create_app(settings: Settings) -> Flask:
    """Create the WSGI application of one process. Call it after a fork.

    Args:
        settings: The addresses of the stores, and the limits.

    Returns:
        The application; ``app.extensions["rates"].close()`` closes its connections.
    """
    app = Flask(__name__, static_folder=None)
    redis = Redis(settings)
    databases = Databases(settings)
    databases.open()
    lease = Lease(settings.database_url_of("serving"), f"rates-{settings.environment}")
    lease.start()
    answers = ProcessAnswers()
    limiter = Limiter(settings.rate_limit, redis)
    export_limiter = Limiter(settings.export_limit, redis, "export")
    reads = Reads(databases, redis, lease)
    housekeeping = Periodic(
        EXCHANGE_SECONDS,
        limiter.exchange,
        export_limiter.exchange,
        lambda: report_hits(redis, answers.take_hits()),
        lambda: measure_pools(databases),
        reads.record_lease,
    )
    housekeeping.start()
    app.extensions["rates"] = Service(
        settings,
        databases,
        redis,
        reads,
        lease,
        limiter,
        export_limiter,
        Slots(settings.exports),
        housekeeping,
    )
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # its redirects would repeat the client's Host header
    app.before_request(_record_request)
    app.after_request(_add_cors_headers)
    app.teardown_request(_clear_context)
    for views in (*API, operations.views, docs.views, pages.views):
        app.register_blueprint(views)
    problems.register(app)
    if settings.traces_url:
        trace_requests(app)
    app.wsgi_app = Middleware(  # type: ignore[method-assign]
        app.wsgi_app,
        settings,
        limiter,
        lease,
        answers,
        find_route=partial(_find_route, app.url_map.bind("")),
        refusal_pages=_refusal_pages(app),
        page_headers=[("Content-Security-Policy", PAGE_POLICY)],
    )
    if proxies := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies)  # type: ignore[method-assign]
    return app


def _record_request() -> None:
    exchange = current_exchange()
    g.request_id = exchange.request_id
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    if request.url_rule is not None:
        if exchange.public and request.url_rule.rule in PRIVATE:
            raise NotFound("This page is served on the operations port.")
        exchange.route = request.url_rule.rule


def _clear_context(_error: BaseException | None) -> None:
    """Clear the request id from this thread's logging context."""
    structlog.contextvars.unbind_contextvars("request_id")


def _add_cors_headers(response: Response) -> Response:
    """Allow pages of other origins to read the response (CORS)."""
    preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    response.headers.update(cors_headers(request.method, preflight=preflight))
    return response


def _find_route(routes: MapAdapter, environ: WSGIEnvironment) -> str:
    """Return the pattern of a request's route."""
    path = environ["PATH_INFO"].encode("latin1").decode(errors="replace")
    try:
        rule, _ = routes.match(path, environ["REQUEST_METHOD"], return_rule=True)
    except (HTTPException, RequestRedirect):
        return "other"
    return rule.rule


def _refusal_pages(app: Flask) -> dict[Refusal, bytes]:
    """Render the pages of refused requests in advance, so that a refusal is cheap."""
    rendered: dict[Refusal, bytes] = {}
    refusals: tuple[Refusal, ...] = get_args(Refusal)
    with app.test_request_context("/"):
        for refusal in refusals:
            kind = problems.KINDS[refusal]
            page = render_template(
                "problem.html", title=kind.title, detail="", advice=kind.advice, request_id=REQUEST_ID_MARK.decode()
            )
            rendered[refusal] = page.encode()
    return rendered
