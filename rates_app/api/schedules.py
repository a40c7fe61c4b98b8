"""Suppliers' schedules over HTTP: operators set them, suppliers read their own."""

from __future__ import annotations

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

from rates_app.api.arguments import SUPPLIER
from rates_app.api.models import ExpectationBody, ExpectationsBody
from rates_app.batches.ledger.schedules import Schedule, delete_schedule, list_expectations, set_schedule
from rates_app.http.authorization import require, visible_supplier
from rates_app.http.openapi import Content, operation, read_body
from rates_app.http.responses import send_json
from rates_app.http.service import service

views = Blueprint("schedules", __name__)

#: Maximum size of a schedule, which is a few hundred bytes.
MAX_SCHEDULE_BYTES = 2**14


@views.get("/v1/schedules")
@operation(
    summary="Schedules of suppliers",
    tag="Batches",
    answers={200: Content("The schedules, each with the state of the latest delivery", ExpectationsBody)},
    problems=(401,),
)
def schedules() -> Response:
    """List by when deliveries are expected, and whether the latest ones are published: your own, or all for operators.

    A delivery counts for a due time if it arrives after the due time before and is published, even if it is late. A
    correction counts in the place of the batch that it replaces.
    """
    supplier = visible_supplier()
    found = service().databases.read(lambda connection: list_expectations(connection, supplier), prefer="primary")
    return send_json({"schedules": [each.record() for each in found]})


@views.put("/v1/schedules/<supplier>")
@operation(
    summary="Set a supplier's schedule",
    tag="Batches",
    path=SUPPLIER,
    body={"application/json": {"schema": {"$ref": "#/components/schemas/Schedule"}}},
    scope="operator",
    answers={200: Content("The schedule, with the state of the latest delivery", ExpectationBody)},
    problems=(400, 413),
)
def replace_schedule(supplier: str) -> Response:
    """Replace the supplier's schedule. A delivery that is missing or too small then raises an alert."""
    require("operator")
    new = read_body(Schedule, MAX_SCHEDULE_BYTES)
    with service().databases.write() as connection:
        set_schedule(connection, supplier, new)
        (found,) = list_expectations(connection, supplier)
    return send_json(found.record())


@views.delete("/v1/schedules/<supplier>")
@operation(
    summary="Delete a supplier's schedule",
    tag="Batches",
    path=SUPPLIER,
    scope="operator",
    answers={204: Content("The schedule is deleted")},
    problems=(404,),
)
def remove_schedule(supplier: str) -> Response:
    """Delete the supplier's schedule. A missing delivery then raises no alert."""
    require("operator")
    with service().databases.write() as connection:
        if not delete_schedule(connection, supplier):
            raise NotFound(f"There is no schedule of {supplier[:100]!r}.")
    return Response(status=204)
