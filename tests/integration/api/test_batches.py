"""Batches over HTTP: delivered only with a token and only once, and withdrawn for the next request."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from rates_app.application import create_app
from rates_app.batches.model import DEFAULT_TERMS, Terms
from rates_app.batches.pipeline.engine import ingest
from rates_app.batches.sources.folder import FolderUpload
from rates_app.store.tokens import create_token, revoke_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask.testing import FlaskClient

    from rates_app.batches.model import Batch
    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher

GOOD = b"orig_code,dest_code,day,price\n" + b"CNGGZ,EETLL,2021-01-01,1000\n" * 3
BAD = GOOD + b"CNGGZ,NOWHR,2021-01-01,1000\nCNGGZ,EETLL,2021-02-30,-5\n"
QUESTION = "/rates?date_from=2021-01-01&date_to=2021-01-01&orig_code=CNGGZ&dest_code=EETLL"


@pytest.fixture
def token(publisher: Publisher) -> Callable[..., dict[str, str]]:
    def make(*scopes: Any, expires_at: datetime | None = None) -> dict[str, str]:
        with psycopg.connect(publisher.url) as connection:
            name = f"supplier-{len(scopes)}-{expires_at}"
            return {"Authorization": f"Bearer {create_token(connection, name, list(scopes), expires_at)}"}

    return make


@pytest.fixture
def writer(token: Callable[..., dict[str, str]]) -> dict[str, str]:
    return token("batches:write", "batches:withdraw")


def deliver(client: FlaskClient, body: bytes, headers: dict[str, str], query: str = "?name=prices.csv") -> Any:
    return client.post(f"/v1/batches{query}", data=body, headers={"Content-Type": "text/csv", **headers})


def incoming(settings: Settings) -> list[Path]:
    return sorted(path for path in (settings.data_dir / "incoming").rglob("*") if path.is_file())


def test_a_delivery_is_accepted_once(client: FlaskClient, settings: Settings, writer: dict[str, str]) -> None:
    first = deliver(client, GOOD, writer)
    assert (first.status_code, first.json["state"]) == (202, "received")
    assert first.headers["Location"] == f"/v1/batches/{first.json['id']}"
    (file,) = incoming(settings)
    assert file.read_bytes() == GOOD
    assert file.name.endswith("-prices.csv")

    again = deliver(client, GOOD, writer, "?name=other.csv")
    assert (again.status_code, again.json["id"]) == (200, first.json["id"])
    assert incoming(settings) == [file]

    shown: Any = client.get(first.headers["Location"]).json
    assert shown["supplier"] == first.json["supplier"]
    assert shown["progress"]["slices"] == 0


def test_equal_files_of_two_suppliers_are_two_batches(
    client: FlaskClient, writer: dict[str, str], token: Callable[..., dict[str, str]]
) -> None:
    first = deliver(client, GOOD, writer)
    other = deliver(client, GOOD, token("batches:write"))
    assert (first.status_code, other.status_code) == (202, 202)
    assert first.json["supplier"] != other.json["supplier"]
    assert deliver(client, GOOD, writer).json["id"] == first.json["id"] != other.json["id"]


def test_an_upload_beyond_the_quota_is_refused_before_its_body_is_read(
    settings: Settings, publisher: Publisher, writer: dict[str, str]
) -> None:
    app = create_app(settings.model_copy(update={"daily_deliveries": 1}))
    try:
        client = app.test_client()
        first = deliver(client, GOOD, writer)
        assert first.status_code == 202
        refused = deliver(client, GOOD + b"CNGGZ,EETLL,2021-01-02,1000\n", writer)
        assert (refused.status_code, refused.json["type"].rpartition("/")[2]) == (429, "quota-exceeded")
        assert 0 < int(refused.headers["Retry-After"]) <= 24 * 60 * 60
        assert len(incoming(settings)) == 1
    finally:
        app.extensions["rates"].close()


def test_an_upload_while_the_disk_is_full_is_unavailable(
    client: FlaskClient, settings: Settings, writer: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(upload: FolderUpload, path: Path) -> None:
        original(upload, path)
        upload._file.close()
        upload._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed by abort

    original = FolderUpload.__init__
    monkeypatch.setattr(FolderUpload, "__init__", begin)
    response = deliver(client, GOOD, writer)
    assert (response.status_code, response.json["type"].rpartition("/")[2]) == (503, "unavailable")
    assert incoming(settings) == []
    listed: Any = client.get("/v1/batches").json
    assert listed["batches"] == []


def test_a_key_stands_for_one_content(client: FlaskClient, writer: dict[str, str]) -> None:
    headers = {**writer, "Idempotency-Key": "monday"}
    first = deliver(client, GOOD, headers)
    assert deliver(client, GOOD, headers).json["id"] == first.json["id"]

    other = deliver(client, GOOD + GOOD[30:], headers)
    assert (other.status_code, other.get_json(force=True)["type"]) == (422, "/problems/key-reused")


def test_writes_need_a_token(client: FlaskClient, publisher: Publisher, token: Callable[..., dict[str, str]]) -> None:
    expired = token("batches:write", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    for headers in ({}, {"Authorization": "Bearer rates_made-up"}, {"Authorization": "Basic eDp5"}, expired):
        answer = deliver(client, GOOD, headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    reader = token("batches:withdraw")
    forbidden = deliver(client, GOOD, reader)
    assert forbidden.status_code == 403
    assert 'scope="batches:write"' in forbidden.headers["WWW-Authenticate"]

    writer = token("batches:write", "batches:withdraw")
    assert deliver(client, GOOD, writer).status_code == 202
    with psycopg.connect(publisher.url) as connection:
        revoke_token(connection, "supplier-2-None")
    assert deliver(client, BAD, writer).status_code == 401


def test_tokens_are_not_kept(publisher: Publisher, writer: dict[str, str]) -> None:
    secret = writer["Authorization"].removeprefix("Bearer ")
    with psycopg.connect(publisher.url) as connection:
        (row,) = connection.execute("SELECT tokens::text, encode(hash, 'escape') FROM tokens").fetchall()
    assert secret not in str(row)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\0\0o\0\0\0"])
def test_other_content_than_a_batch_is_refused(
    client: FlaskClient, settings: Settings, writer: dict[str, str], body: bytes
) -> None:
    answer = deliver(client, body, writer)

    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert str(settings.data_dir) not in answer.text
    assert incoming(settings) == []


def test_a_delivery_is_bounded_with_and_without_a_length(
    settings: Settings, publisher: Publisher, writer: dict[str, str]
) -> None:
    app = create_app(settings.model_copy(update={"max_upload_bytes": 100}))
    try:
        client = app.test_client()
        announced = deliver(client, GOOD * 10, writer)
        streamed = client.post(
            "/v1/batches",
            input_stream=io.BytesIO(GOOD * 10),
            headers=writer,
            environ_base={"wsgi.input_terminated": True},
        )
        for refused in (announced, streamed):
            assert (refused.status_code, refused.content_type) == (413, "application/problem+json")
            assert refused.get_json(force=True)["type"] == "/problems/too-large"
        assert incoming(settings) == []
    finally:
        app.extensions["rates"].close()


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "a b", "x" * 201, ""])
def test_a_name_cannot_lead_out_of_its_folder(client: FlaskClient, writer: dict[str, str], name: str) -> None:
    answer = client.post("/v1/batches", query_string={"name": name}, data=GOOD, headers=writer)
    assert answer.status_code == 400


def test_the_next_request_sees_a_withdrawal(
    client: FlaskClient,
    settings: Settings,
    token: Callable[..., dict[str, str]],
    writer: dict[str, str],
    tmp_path: Path,
) -> None:
    (tmp_path / "good.csv").write_bytes(GOOD)
    batch, _ = ingest(settings, str(tmp_path / "good.csv"))
    before: Any = client.get(QUESTION).json
    assert before["rates"][0]["price"] == 1000

    assert client.delete(f"/v1/batches/{batch.id}").status_code == 401
    assert client.delete(f"/v1/batches/{batch.id}", headers=writer).status_code == 404  # another supplier's
    operator = token("operator")
    withdrawn = client.delete(f"/v1/batches/{batch.id}", headers=operator)
    assert (withdrawn.status_code, withdrawn.get_json()["state"]) == (200, "withdrawn")

    after: Any = client.get(QUESTION).json
    assert after["rates"][0]["price"] is None
    assert client.delete(f"/v1/batches/{batch.id}", headers=operator).status_code == 200


def test_only_a_published_batch_can_be_withdrawn(client: FlaskClient, writer: dict[str, str]) -> None:
    number = deliver(client, GOOD, writer).json["id"]

    answer = client.delete(f"/v1/batches/{number}", headers=writer)

    assert (answer.status_code, answer.get_json(force=True)["type"]) == (409, "/problems/wrong-state")


def test_rejects_in_every_form(client: FlaskClient, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_bytes(BAD)
    batch, _ = ingest(settings, str(tmp_path / "bad.csv"))

    found: Any = client.get(f"/v1/batches/{batch.id}/rejects").json
    assert [(each["line"], each["field"], each["value"]) for each in found["rejects"]] == [
        (5, "dest_code", "NOWHR"),
        (6, "day", "2021-02-30"),
        (6, "price", "-5"),
    ]
    lines = client.get(f"/v1/batches/{batch.id}/rejects?format=ndjson").text.splitlines()
    assert [json.loads(line) for line in lines] == found["rejects"]
    table = client.get(f"/v1/batches/{batch.id}/rejects", headers={"Accept": "text/csv"}).text.splitlines()
    assert table[0] == "line,field,reason,value"
    assert len(table) == 4


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_every_format_of_rejects_states_the_rows_that_are_not_listed(
    client: FlaskClient, settings: Settings, tmp_path: Path, form: str
) -> None:
    (tmp_path / "bad.csv").write_bytes(BAD)
    batch, _ = ingest(settings.model_copy(update={"max_rejects": 1}), str(tmp_path / "bad.csv"))

    answer = client.get(f"/v1/batches/{batch.id}/rejects?format={form}")
    assert (batch.rejected, answer.headers["Unlisted-Rows"]) == (2, "1")
    assert answer.text.count("NOWHR") == 1


def test_a_batch_without_rejects_has_an_empty_report(client: FlaskClient, writer: dict[str, str]) -> None:
    number = deliver(client, GOOD, writer).json["id"]

    assert client.get(f"/v1/batches/{number}/rejects").json == {"rejects": [], "unlisted_rows": 0}
    assert client.get(f"/v1/batches/{number}/rejects?format=ndjson").text == ""
    assert client.get(f"/v1/batches/{number}/rejects?format=csv").text == "line,field,reason,value\r\n"


def test_batches_a_page_at_a_time(client: FlaskClient, writer: dict[str, str]) -> None:
    numbers = [deliver(client, GOOD + GOOD[30:] * i, writer).json["id"] for i in range(5)]

    seen = []
    following: str | None = "/v1/batches?limit=2"
    while following:
        page = client.get(following)
        body: Any = page.json
        seen.append([batch["id"] for batch in body["batches"]])
        following = body["next"]
        assert (following is not None) == ("Link" in page.headers)

    assert seen == [numbers[4:2:-1], numbers[2:0:-1], numbers[:1]]


@pytest.mark.parametrize("number", ["0", "999", "x", "99999999999999999999", "1e3", "-1", "²"])
def test_an_unknown_batch_is_not_found(client: FlaskClient, number: str) -> None:
    for path in (f"/v1/batches/{number}", f"/v1/batches/{number}/rejects"):
        answer = client.get(path)
        assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


@pytest.fixture
def closed(settings: Settings, publisher: Publisher) -> Iterator[FlaskClient]:
    """The service as in production: anonymous clients see no batches."""
    app = create_app(settings.model_copy(update={"public_batches": False}))
    yield app.test_client()
    app.extensions["rates"].close()


@pytest.fixture
def tokens(publisher: Publisher) -> dict[str, str]:
    """The secrets of two suppliers and an operator."""
    scopes = ["batches:write", "batches:withdraw"]
    with psycopg.connect(publisher.url) as connection:
        return {
            "acme": create_token(connection, "acme-1", scopes, supplier="acme"),
            "other": create_token(connection, "other-1", scopes, supplier="other"),
            "operator": create_token(connection, "op", ["operator"]),
        }


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def ingest_for(settings: Settings, tmp_path: Path, supplier: str, body: bytes, terms: Terms = DEFAULT_TERMS) -> Batch:
    (tmp_path / "a.csv").write_bytes(body)
    return ingest(settings, str(tmp_path / "a.csv"), supplier=supplier, terms=terms)[0]


def test_only_its_supplier_and_operators_see_a_batch(
    closed: FlaskClient, settings: Settings, tokens: dict[str, str], tmp_path: Path
) -> None:
    number = ingest_for(settings, tmp_path, "acme", BAD).id
    paths = [f"/v1/batches/{number}{rest}" for rest in ("", "/rejects", "/lineage")]
    pages = ["/batches", f"/batches/{number}", f"/batches/{number}/rejects", f"/batches/{number}/events"]
    for path in (*paths, "/v1/batches"):
        assert closed.get(path).status_code == 401
        assert closed.get(path, headers=bearer("rates_made-up")).status_code == 401
    for path in pages:
        assert closed.get(path).headers["Location"].startswith("/sign-in?next=%2Fbatches")
    for owner in ("acme", "operator"):
        assert [closed.get(path, headers=bearer(tokens[owner])).status_code for path in paths] == [200] * 3
        listed: Any = closed.get("/v1/batches", headers=bearer(tokens[owner])).json
        assert [batch["id"] for batch in listed["batches"]] == [number]
    assert [closed.get(path, headers=bearer(tokens["other"])).status_code for path in paths] == [404] * 3
    empty: Any = closed.get("/v1/batches", headers=bearer(tokens["other"])).json
    assert empty["batches"] == []


def test_a_user_signs_in_on_the_pages(
    closed: FlaskClient, settings: Settings, tokens: dict[str, str], tmp_path: Path
) -> None:
    number = ingest_for(settings, tmp_path, "acme", BAD).id
    form = {"token": tokens["acme"], "next": f"/batches/{number}"}
    assert closed.post("/sign-in", data=form | {"token": "rates_made-up"}).status_code == 401
    away = closed.post("/sign-in", data=form | {"next": "//evil.example/"})
    assert away.headers["Location"] == "/batches"
    signed = closed.post("/sign-in", data=form)
    assert (signed.status_code, signed.headers["Location"]) == (303, f"/batches/{number}")
    assert {"HttpOnly", "SameSite=Lax"} <= set(signed.headers["Set-Cookie"].split("; "))
    assert f"Batch {number}" in closed.get(f"/batches/{number}").text
    assert "NOWHR" in closed.get(f"/v1/batches/{number}/rejects?format=csv").text
    # The cookie permits reading only: changes need a bearer token.
    assert closed.delete(f"/v1/batches/{number}").status_code == 401
    closed.post("/sign-out")
    assert closed.get(f"/batches/{number}").status_code == 302
    closed.post("/sign-in", data=form | {"token": tokens["other"]})
    assert closed.get(f"/batches/{number}").status_code == 404


def test_a_supplier_withdraws_only_its_own_batches(
    closed: FlaskClient, settings: Settings, tokens: dict[str, str], tmp_path: Path
) -> None:
    batch = ingest_for(settings, tmp_path, "acme", GOOD)
    assert closed.delete(f"/v1/batches/{batch.id}", headers=bearer(tokens["other"])).status_code == 404
    withdrawn = closed.delete(f"/v1/batches/{batch.id}", headers=bearer(tokens["acme"]))
    assert withdrawn.get_json()["state"] == "withdrawn"
    assert "--resubmit" in withdrawn.get_json()["next_step"]


def test_a_batch_belongs_to_the_supplier_of_its_token(closed: FlaskClient, tokens: dict[str, str]) -> None:
    assert deliver(closed, GOOD, bearer(tokens["acme"])).json["supplier"] == "acme"


def test_a_replacement_is_accepted_for_an_own_published_batch(
    closed: FlaskClient, settings: Settings, tokens: dict[str, str], tmp_path: Path
) -> None:
    batch = ingest_for(settings, tmp_path, "acme", GOOD)
    query = f"?replaces={batch.id}"
    foreign = deliver(closed, GOOD + GOOD[30:], bearer(tokens["other"]), query)
    assert (foreign.status_code, foreign.get_json(force=True)["type"]) == (409, "/problems/wrong-state")
    taken = deliver(closed, GOOD + GOOD[30:], bearer(tokens["acme"]), query)
    assert (taken.status_code, taken.json["replaces"]) == (202, batch.id)
    lineage: Any = closed.get(f"/v1/batches/{batch.id}/lineage", headers=bearer(tokens["acme"])).json
    assert [each["id"] for each in lineage["batches"]] == [batch.id, taken.json["id"]]


def test_previous_names_of_parameters_are_accepted_and_deprecated(client: FlaskClient, writer: dict[str, str]) -> None:
    for query, deprecated in (
        ("?tolerance=7&again=true", True),
        ("?tolerance=7", True),
        ("?max_rejected_rows=7&resubmit=true", False),
    ):
        answer = deliver(client, GOOD, writer, query)
        assert answer.json["max_rejected_rows"] == 7
        assert [name in answer.headers for name in ("Deprecation", "Sunset")] == [deprecated] * 2
        if deprecated:
            since = datetime.fromtimestamp(int(answer.headers["Deprecation"].removeprefix("@")), UTC)
            assert parsedate_to_datetime(answer.headers["Sunset"]) - since >= timedelta(days=180)
            assert 'rel="deprecation"' in answer.headers["Link"]


def test_an_operator_decides_about_a_held_batch(
    closed: FlaskClient, settings: Settings, tokens: dict[str, str], tmp_path: Path
) -> None:
    strict = settings.model_copy(update={"max_days_back": 1, "days_back_action": "hold"})
    first = ingest_for(strict, tmp_path, "acme", GOOD)
    second = ingest_for(strict, tmp_path, "acme", GOOD + GOOD[30:])
    assert (first.state, second.state) == ("held", "held")
    shown: Any = closed.get(f"/v1/batches/{first.id}", headers=bearer(tokens["acme"])).json
    assert shown["changes"]["prices_after"] == 3
    assert [finding["check"] for finding in shown["findings"]] == ["days-back"]
    assert closed.post(f"/v1/batches/{first.id}/publish", headers=bearer(tokens["acme"])).status_code == 403

    operator = bearer(tokens["operator"])
    published = closed.post(f"/v1/batches/{first.id}/publish", headers=operator)
    assert (published.get_json()["state"], published.get_json()["decided_by"]) == ("published", "op")
    after: Any = closed.get(QUESTION).json
    assert after["rates"][0]["price"] == 1000
    refused = closed.post(f"/v1/batches/{second.id}/refuse?reason=wrong+year", headers=operator)
    assert (refused.get_json()["state"], refused.get_json()["failure"]) == ("refused", "wrong year")
    assert closed.post(f"/v1/batches/{second.id}/publish", headers=operator).status_code == 409
