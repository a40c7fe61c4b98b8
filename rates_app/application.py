"""Put the service together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from rates_app.api import batches, docs, locations, operations, rates
from rates_app.cache.process import ProcessAnswers
from rates_app.cache.redis import Redis
from rates_app.http import problems
from rates_app.http.limits import EXCHANGE_SECONDS, Limiter
from rates_app.http.middleware import Edge
from rates_app.http.service import Service
from rates_app.ops.periodic import Periodic
from rates_app.ops.traces import trace_requests
from rates_app.rates.reads import Reads
from rates_app.rates.warm import tell_hits
from rates_app.store.databases import Databases
from rates_app.store.lease import Lease
from rates_app.store.metrics import measure_pools
from rates_app.web import pages

if TYPE_CHECKING:
    from rates_app.settings import Settings

EXPOSED = "Cache-Status, ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def create_app(settings: Settings) -> Flask:
    """Make the WSGI application of one process; call it after a fork.

    Args:
        settings: Where the stores are, and the limits.

    Returns:
        The application; ``app.extensions["rates"].close()`` lets go of its connections.
    """
    app = Flask(__name__, static_folder=None)
    redis = Redis(settings)
    databases = Databases(settings)
    databases.open()
    lease = Lease(settings.database_url.get_secret_value(), f"rates-{settings.environment}")
    lease.start()
    answers = ProcessAnswers()
    limiter = Limiter(settings.rate_limit, redis)
    housekeeping = Periodic(
        EXCHANGE_SECONDS,
        limiter.exchange,
        lambda: tell_hits(redis, answers.take_hits()),
        lambda: measure_pools(databases),
    )
    housekeeping.start()
    reads = Reads(databases, redis, lease)
    app.extensions["rates"] = Service(settings, databases, redis, reads, lease, limiter, housekeeping)
    app.url_map.strict_slashes = False
    app.before_request(_note_request)
    app.after_request(_share)
    app.teardown_request(_forget_request)
    for views in (rates.views, locations.views, batches.views, operations.views, docs.views, pages.views):
        app.register_blueprint(views)
    problems.register(app)
    if settings.traces_url:
        trace_requests(app)
    app.wsgi_app = Edge(app.wsgi_app, settings, limiter, lease, answers)  # type: ignore[method-assign]
    if proxies := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies)  # type: ignore[method-assign]
    return app


def _note_request() -> None:
    g.request_id = request.environ["rates.request_id"]
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    if request.url_rule is not None:
        request.environ["rates.route"] = request.url_rule.rule


def _forget_request(_error: BaseException | None) -> None:
    """Let what this thread logs next be of no request, until it takes up another."""
    structlog.contextvars.unbind_contextvars("request_id")


def _share(response: Response) -> Response:
    """Let pages of any origin read (CORS); nothing here depends on cookies, so there is nothing to steal."""
    if request.method in READ_METHODS:  # what writes is for programs, not for other sites' pages
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Expose-Headers"] = EXPOSED
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        response.headers["Access-Control-Allow-Methods"] = "GET, HEAD"
        response.headers["Access-Control-Allow-Headers"] = "Accept, If-None-Match, X-Rates-Explain, X-Request-ID"
        response.headers["Access-Control-Max-Age"] = "86400"
    return response
