"""Operators set suppliers' schedules, and suppliers read their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from rates_app.application import create_app
from rates_app.cli import app as cli
from rates_app.store.tokens import create_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher

GIVEN = {"by": "08:00", "days": ["fri", "mon"], "time_zone": "Europe/Oslo", "min_rows": 1000}


@pytest.fixture
def client(settings: Settings, publisher: Publisher) -> Iterator[FlaskClient]:
    """The service with batches that only their suppliers see."""
    del publisher
    application = create_app(settings.model_copy(update={"public_batches": False}))
    yield application.test_client()
    application.extensions["rates"].close()


@pytest.fixture
def tokens(publisher: Publisher) -> dict[str, dict[str, str]]:
    """Headers with the token of an operator and of two suppliers."""
    scopes = {"operator": "operator", "acme": "batches:write", "other": "batches:write"}
    with psycopg.connect(publisher.url) as connection:
        return {
            name: {"Authorization": f"Bearer {create_token(connection, name, [scope])}"}
            for name, scope in scopes.items()
        }


def test_operators_set_and_delete_and_suppliers_read_their_own(
    client: FlaskClient, tokens: dict[str, dict[str, str]]
) -> None:
    answer = client.put("/v1/schedules/acme", json=GIVEN, headers=tokens["operator"])
    assert answer.status_code == 200, answer.text
    stored: Any = answer.json
    assert stored["schedule"] == {**GIVEN, "days": ["mon", "fri"], "window_hours": None}
    assert (stored["state"], stored["due_at"], stored["rows"]) == ("waiting", None, 0)
    for name, expected in (("operator", ["acme"]), ("acme", ["acme"]), ("other", [])):
        listed: Any = client.get("/v1/schedules", headers=tokens[name]).json
        assert [each["supplier"] for each in listed["schedules"]] == expected
    page = client.get("/batches", headers=tokens["acme"]).text
    assert "mon fri by 08:00 Europe/Oslo, at least 1,000 prices" in page
    assert "Expected deliveries" not in client.get("/batches", headers=tokens["other"]).text
    assert client.delete("/v1/schedules/acme", headers=tokens["operator"]).status_code == 204
    assert client.delete("/v1/schedules/acme", headers=tokens["operator"]).status_code == 404


def test_suppliers_cannot_change_a_schedule(client: FlaskClient, tokens: dict[str, dict[str, str]]) -> None:
    for method in ("put", "delete"):
        given = client.open("/v1/schedules/acme", method=method, json=GIVEN, headers=tokens["acme"])
        assert given.status_code == 403
        assert client.open("/v1/schedules/acme", method=method, json=GIVEN).status_code == 401
    assert client.get("/v1/schedules").status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [(b"{", "body"), (b"{}", "by"), (b'{"by":"8"}', "by"), (b'{"by":"08:00","days":["x"]}', "days.0")],
)
def test_a_schedule_that_is_not_valid_is_refused_by_field(
    client: FlaskClient, tokens: dict[str, dict[str, str]], body: bytes, field: str
) -> None:
    answer = client.put("/v1/schedules/acme", data=body, headers=tokens["operator"])
    problem: Any = answer.get_json(force=True)
    assert (answer.status_code, problem["errors"][0]["parameter"]) == (400, field)


def test_the_command_sets_lists_and_deletes(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_DATABASE_URL", publisher.url)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    done = runner.invoke(cli, ["schedule", "set", "acme", "--by", "08:00", "--days", "Mon,tue", "--min-rows", "5"])
    assert done.output == "acme: mon tue by 08:00 UTC, at least 5 prices\n"
    listed = runner.invoke(cli, ["schedule", "list"]).output
    assert "acme" in listed
    assert "waiting" in listed
    assert runner.invoke(cli, ["schedule", "delete", "acme"]).exit_code == 0
    assert runner.invoke(cli, ["schedule", "delete", "acme"]).exit_code == 1
    assert "time_zone" in str(
        runner.invoke(cli, ["schedule", "set", "acme", "--by", "08:00", "--time-zone", "X"]).exception
    )
