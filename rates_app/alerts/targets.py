"""Targets of notices: which are permitted, and requests that reach no address of the internal network.

A webhook's URL comes from outside, and the pod that calls it can reach databases and the cloud's metadata. So its host
may only have public addresses. They are looked up and checked for each request, and the connection goes to the address
that was checked: a name that has another address a moment later leads nowhere else. Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from rates_app.notify.alert import NotDelivered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Port of HTTPS. The network policy of the dispatcher permits no other.
HTTPS_PORT = 443

_VISIBLE = re.compile(r"[!-~]+")
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
#: Prefix of IPv6 addresses that a gateway translates to IPv4 (RFC 6052).
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
#: The IPv6 addresses that IANA has assigned to the Internet. ``is_global`` is also true of obsolete forms outside it,
#: such as site-local addresses and IPv4-compatible ones, and of prefixes for translation within a network (RFC 8215).
_INTERNET = ipaddress.IPv6Network("2000::/3")


class ForbiddenTarget(NotDelivered):
    """A target is not permitted; the message says why."""


class ReceiverGone(NotDelivered):
    """The receiver responded with 410: it wants no further notices."""


class _Endpoint(NamedTuple):
    """The parts of a webhook's URL."""

    secure: bool
    host: str
    port: int
    path: str


def check_webhook(url: str, *, allow_loopback: bool) -> None:
    """Check that a URL may be a webhook, and that its host has only public addresses.

    Args:
        url: The URL.
        allow_loopback: Also permit addresses of this machine, on any port and without TLS.

    Raises:
        ForbiddenTarget: It may not be a webhook, or its host is unknown.
    """
    endpoint = _parse(url, allow_loopback=allow_loopback)
    _resolve(endpoint, allow_loopback=allow_loopback)


def check_email(address: str) -> None:
    """Check the form of an e-mail address.

    Raises:
        ForbiddenTarget: It has another form than NAME@DOMAIN.
    """
    if not _EMAIL.fullmatch(address):
        raise ForbiddenTarget(f"{address[:100]!r} is not an e-mail address in the form NAME@DOMAIN")


def _parse(url: str, *, allow_loopback: bool) -> _Endpoint:
    """Split a webhook's URL.

    Raises:
        ForbiddenTarget: Its form is not permitted.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not _VISIBLE.fullmatch(url) or not host:
        raise ForbiddenTarget(f"{url[:100]!r} is not a URL in the form https://HOST/PATH")
    if parts.scheme != "https" and not (allow_loopback and parts.scheme == "http"):
        raise ForbiddenTarget("the URL must begin with https://")
    if parts.username is not None or parts.fragment:
        raise ForbiddenTarget("the URL must contain neither a user nor a fragment")
    if port not in {None, HTTPS_PORT} and not allow_loopback:
        raise ForbiddenTarget(f"the port must be {HTTPS_PORT}")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Endpoint(secure, host, port or (HTTPS_PORT if secure else 80), path)


def _resolve(endpoint: _Endpoint, *, allow_loopback: bool) -> list[str]:
    """Look up the addresses of a host.

    Raises:
        ForbiddenTarget: One of them is not permitted, or there is none.
    """
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ForbiddenTarget(f"the host {endpoint.host[:100]!r} has no address") from None
    addresses = [str(address[0]) for *_, address in found]
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        local = allow_loopback and address.is_loopback
        if not local and not (endpoint.secure and endpoint.port == HTTPS_PORT and is_public(address)):
            raise ForbiddenTarget(f"the host {endpoint.host[:100]!r} has an address that is not public")
    return addresses


def is_public(address: Address) -> bool:
    """Return whether an address is one of the Internet, also if an IPv6 address contains an IPv4 address."""
    return all(_is_global(each) for each in _contained(address))


def _is_global(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _INTERNET and address not in _TRANSLATED:
        return False
    return address.is_global and not address.is_multicast


def _contained(address: Address) -> Iterator[Address]:
    """Yield an address, and the IPv4 addresses to which it may lead."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _TRANSLATED:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.ipv4_mapped is None:
        yield address
    yield from (each for each in inner if each is not None)


def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, allow_loopback: bool) -> None:
    """Send a POST request to a webhook.

    Args:
        url: The webhook.
        body: The body.
        headers: Further headers.
        seconds: Timeout of the whole request after the lookup of the host.
        allow_loopback: As for :func:`check_webhook`.

    Raises:
        NotDelivered: The response has another status than 2xx, or there is none.
    """
    endpoint = _parse(url, allow_loopback=allow_loopback)
    addresses = _resolve(endpoint, allow_loopback=allow_loopback)
    try:
        status = _request(endpoint, addresses, body, headers, seconds)
    except (OSError, http.client.HTTPException) as error:
        raise NotDelivered(f"{type(error).__name__}: {error}"[:300]) from error
    if status == HTTPStatus.GONE:
        raise ReceiverGone("the receiver responded with HTTP 410")
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise NotDelivered(f"the receiver responded with HTTP {status}")


def _request(endpoint: _Endpoint, addresses: list[str], body: bytes, headers: Mapping[str, str], seconds: float) -> int:
    deadline = time.monotonic() + seconds
    with _connect(addresses, endpoint.port, deadline) as plain:
        channel = plain
        if endpoint.secure:
            context = ssl.create_default_context()
            channel = context.wrap_socket(plain, server_hostname=endpoint.host, do_handshake_on_connect=False)
        # A timeout of the socket restarts with each byte, so a receiver could hold this thread for ever.
        guard = threading.Timer(max(0.0, deadline - time.monotonic()), _shut_down, [channel])
        guard.start()
        try:
            if isinstance(channel, ssl.SSLSocket):
                channel.do_handshake()
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
            connection.sock = channel
            host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
            standard = endpoint.port == (HTTPS_PORT if endpoint.secure else 80)
            connection.request(
                "POST",
                endpoint.path,
                body,
                {
                    "Host": host if standard else f"{host}:{endpoint.port}",
                    "User-Agent": "freight-rates",
                    "Content-Type": "application/json",
                    "Connection": "close",
                    **headers,
                },
            )
            status = connection.getresponse().status
            if time.monotonic() >= deadline:  # the guard has cut the headers, whose end looks like a complete response
                raise TimeoutError("the response was not complete in time")
            return status
        finally:
            guard.cancel()
            channel.close()


def _connect(addresses: list[str], port: int, deadline: float) -> socket.socket:
    """Connect to the first of some addresses that accepts.

    Raises:
        OSError: None accepted within the time.
    """
    failure: OSError = TimeoutError("no time left to connect")
    for address in addresses:
        if (remaining := deadline - time.monotonic()) <= 0:
            break
        try:
            return socket.create_connection((address, port), remaining)
        except OSError as error:
            failure = error
    raise failure


def _shut_down(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the request has ended in this moment
        socket.socket.shutdown(channel, socket.SHUT_RDWR)  # that of ssl.SSLSocket would discard the session in use
