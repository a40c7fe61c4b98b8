"""Sign in with a token, so that the pages show the batches of its supplier."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import Response, abort, redirect, request

from rates_app.http.authorization import TOKEN_COOKIE, signed_in
from rates_app.http.service import service
from rates_app.web.rendering import live_page, views

#: Bytes of the form; a token is much shorter.
MAX_FORM_BYTES = 4096


@views.get("/sign-in")
def sign_in_page() -> Response:
    """Show the form."""
    return live_page("sign_in.html", next=_next(request.args.get("next")), wrong=False)


@views.post("/sign-in")
def sign_in() -> Response:
    """Set the cookie if the token is valid, and continue to the page that was requested."""
    if request.content_length is None:  # a chunked body would occupy an upload thread without a token
        abort(411)
    request.max_content_length = MAX_FORM_BYTES
    secret = request.form.get("token", "").strip()
    target = _next(request.form.get("next"))
    if signed_in(secret) is None:
        return live_page("sign_in.html", 401, next=target, wrong=True)
    response = _see(target)
    secure = service().settings.require_https
    response.set_cookie(TOKEN_COOKIE, secret, httponly=True, samesite="Lax", secure=secure)
    return response


@views.post("/sign-out")
def sign_out() -> Response:
    """Delete the cookie."""
    response = _see("/batches")
    response.delete_cookie(TOKEN_COOKIE, httponly=True, samesite="Lax", secure=service().settings.require_https)
    return response


def sign_in_address() -> str:
    """Return the address of the form that leads back to the present page."""
    return f"/sign-in?{urlencode({'next': request.full_path.rstrip('?')})}"


def _see(target: str) -> Response:
    response = redirect(target, 303)
    response.headers["Cache-Control"] = "no-store"
    assert isinstance(response, Response)  # noqa: S101 - the class of the application
    return response


def _next(target: str | None) -> str:
    """Return a target on this site; browsers read two slashes or a backslash as the start of another host."""
    if (
        not target
        or not target.startswith("/")
        or target.startswith("//")
        or "\\" in target
        or not target.isprintable()
    ):
        return "/batches"
    return target
