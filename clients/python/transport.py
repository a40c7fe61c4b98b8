"""Send requests, raise errors, follow pages: the part of the client that is not generated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Page = TypeVar("Page")


def _quote(value: object) -> str:
    """Encode a part of a path."""
    return quote(str(value), safe="")


class ApiError(Exception):
    """The service refused a request or failed.

    Attributes:
        status: Status code.
        problem: The problem object (RFC 9457); empty if a proxy has responded.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {problem.get('detail') or problem.get('title') or 'no problem object'}")
        self.status = status
        self.problem = problem


class Transport:
    """A connection to the service. Use it as a context manager, or close it.

    Args:
        base_url: Address of the service, such as ``https://rates.example``.
        token: Bearer token, for deliveries and for private batches.
        timeout: Seconds to wait for a response.
    """

    def __init__(self, base_url: str, token: str | None = None, timeout: float = 30) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def follow(self, page: Page) -> Iterator[Page]:
        """Yield a page of a listing and all pages after it, as their member ``next`` links them.

        Raises:
            ApiError: The service refused a request or failed.
        """
        while True:
            yield page
            following = cast("Mapping[str, Any]", page)["next"]
            if following is None:
                return
            page = self._send("GET", following).json()

    def _send(
        self,
        method: str,
        address: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str | None] | None = None,
        **body: Any,
    ) -> httpx.Response:
        """Send a request without the parameters that are None.

        Raises:
            ApiError: The service refused the request or failed.
        """
        # An empty mapping would remove the query of an address from `next`.
        query = _given(params) or None
        response = self._http.request(method, address, params=query, headers=_given(headers), **body)
        _check(response)
        return response

    def _stream(self, method: str, address: str, *, params: Mapping[str, Any]) -> Iterator[str]:
        """Send a request, and yield the lines of the response as they arrive.

        Raises:
            ApiError: The service refused the request or failed.
            httpx.RemoteProtocolError: The response was cut: its lines are not complete.
        """
        with self._http.stream(method, address, params=_given(params)) as response:
            if response.is_error:
                response.read()
            _check(response)
            yield from response.iter_lines()


def _given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the parameters or headers that are not None."""
    return {name: value for name, value in (values or {}).items() if value is not None}


def _check(response: httpx.Response) -> None:
    if response.is_error:
        is_problem = response.headers.get("Content-Type", "").startswith("application/problem+json")
        raise ApiError(response.status_code, response.json() if is_problem else {})
