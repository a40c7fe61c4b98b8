"""Suppliers set how their own files are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from rates_app.batches.ledger.profiles import find_profile
from rates_app.cli import app
from rates_app.store.tokens import create_token

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.fixtures.service import Publisher


@pytest.fixture
def supplier(publisher: Publisher) -> tuple[str, dict[str, str]]:
    """A supplier's name, and the headers with its token."""
    with psycopg.connect(publisher.url) as connection:
        secret = create_token(connection, "acme", ["batches:write"])
    return "acme", {"Authorization": f"Bearer {secret}"}


def test_a_profile_is_set_read_and_deleted(
    client: FlaskClient, publisher: Publisher, supplier: tuple[str, dict[str, str]]
) -> None:
    name, headers = supplier
    address = f"/v1/profiles/{name}"
    empty: Any = client.get(address, headers=headers).json
    assert (empty["date_order"], empty["aliases"], empty["currency"]) == (None, {}, "USD")
    given = {"date_order": "dmy", "columns": {"price": "Betrag"}, "aliases": {"cnsha": "cnsgh"}}
    stored: Any = client.put(address, json=given, headers=headers).json
    assert (stored["columns"]["price"], stored["aliases"]) == ("Betrag", {"CNSHA": "CNSGH"})
    assert client.get(address, headers=headers).json == stored
    with psycopg.connect(publisher.url) as connection:
        assert find_profile(connection, name).date_order == "dmy"
    assert client.delete(address, headers=headers).status_code == 204
    assert client.delete(address, headers=headers).status_code == 404


def test_another_suppliers_profile_is_inaccessible(client: FlaskClient, supplier: tuple[str, dict[str, str]]) -> None:
    name, headers = supplier
    for method in ("get", "put", "delete"):
        assert client.open(f"/v1/profiles/{name}x", method=method, headers=headers).status_code == 403
        assert client.open(f"/v1/profiles/{name}", method=method).status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b'{"date_order":"dm"}', "date_order"),
        (b'{"time_zone":"Mars"}', "time_zone"),
        (b'{"colour":1}', "colour"),
        (b'{"currency":"EUR"}', "currency"),
        (b'{"aliases":{"A":"Shanghai"}}', "aliases"),
        (b'{"aliases":{"A\\u0000":"CNSGH"}}', "aliases"),
        (b'{"columns":{"price":"\\u0000"}}', "columns.price"),
    ],
)
def test_a_profile_that_is_not_valid_is_refused_by_field(
    client: FlaskClient, supplier: tuple[str, dict[str, str]], body: bytes, field: str
) -> None:
    name, headers = supplier
    answer = client.put(f"/v1/profiles/{name}", data=body, headers=headers)
    problem: Any = answer.get_json(force=True)
    assert (answer.status_code, problem["errors"][0]["parameter"]) == (400, field)


def test_the_command_sets_shows_lists_and_deletes(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_DATABASE_URL", publisher.url)
    runner = CliRunner()
    done = runner.invoke(app, ["profile", "set", "acme", "separator=tab", "decimal=,", "aliases.CNSHA=CNSGH"])
    assert done.exit_code == 0, done.output
    expected = 'acme: {"separator":"\\t","decimal":",","aliases":{"CNSHA":"CNSGH"}}\n'
    assert runner.invoke(app, ["profile", "show", "acme"]).output == expected
    assert runner.invoke(app, ["profile", "list"]).output == expected
    assert runner.invoke(app, ["profile", "delete", "acme"]).exit_code == 0
    assert runner.invoke(app, ["profile", "list"]).output == ""
    assert "colour" in str(runner.invoke(app, ["profile", "set", "acme", "colour=red"]).exception)
