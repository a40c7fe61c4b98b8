"""Suppliers' profiles over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

from rates_app.api.arguments import SUPPLIER
from rates_app.batches.formats.profile import Profile
from rates_app.batches.ledger.profiles import delete_profile, find_profile, set_profile
from rates_app.http.authorization import require
from rates_app.http.openapi import Content, operation, read_body
from rates_app.http.problems import Problem
from rates_app.http.responses import send_json
from rates_app.http.service import service

if TYPE_CHECKING:
    from rates_app.store.databases import Connection

views = Blueprint("profiles", __name__)

#: Maximum size of a profile: enough for ten thousand aliases.
MAX_PROFILE_BYTES = 2**19


def _authorize(supplier: str) -> None:
    """Check that the token belongs to the supplier.

    Raises:
        Problem: 401 without a valid token, 403 with another supplier's.
    """
    token = require("batches:write")
    if not token.is_operator and token.supplier != supplier:
        raise Problem("forbidden", "The token belongs to another supplier.")


def _body(profile: Profile) -> Response:
    return send_json(profile.model_dump(mode="json"))


@views.get("/v1/profiles/<supplier>")
@operation(
    summary="A supplier's profile",
    tag="Batches",
    path=SUPPLIER,
    scope="batches:write",
    answers={200: Content("The profile; an empty one if the supplier has none", Profile)},
)
def profile(supplier: str) -> Response:
    """Return the profile: how the supplier's files are read."""
    _authorize(supplier)

    def read(connection: Connection) -> Profile:
        return find_profile(connection, supplier)

    return _body(service().databases.read(read, prefer="primary"))


@views.put("/v1/profiles/<supplier>")
@operation(
    summary="Set a supplier's profile",
    tag="Batches",
    path=SUPPLIER,
    body={"application/json": {"schema": {"$ref": "#/components/schemas/Profile"}}},
    scope="batches:write",
    answers={200: Content("The profile", Profile)},
    problems=(400, 413),
)
def replace_profile(supplier: str) -> Response:
    """Replace the supplier's profile. It applies to batches whose staging has not begun."""
    _authorize(supplier)
    new = read_body(Profile, MAX_PROFILE_BYTES)
    with service().databases.write() as connection:
        set_profile(connection, supplier, new)
    return _body(new)


@views.delete("/v1/profiles/<supplier>")
@operation(
    summary="Delete a supplier's profile",
    tag="Batches",
    path=SUPPLIER,
    scope="batches:write",
    answers={204: Content("The profile is deleted")},
    problems=(404,),
)
def remove_profile(supplier: str) -> Response:
    """Delete the supplier's profile. The format of each file is then detected from the file alone."""
    _authorize(supplier)
    with service().databases.write() as connection:
        if not delete_profile(connection, supplier):
            raise NotFound(f"There is no profile of {supplier[:100]!r}.")
    return Response(status=204)
