"""Programs that people read CSV with get the same table from an address: whole, in ranges, and again unchanged."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import urllib.request
from datetime import date
from typing import TYPE_CHECKING, Any

import httpx
import pandas
import polars
import pyarrow.csv
import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drills.pod import Pod
    from tests.fixtures.service import Publisher

AVERAGES = [1000.0 + day for day in range(31)]


@pytest.fixture
def address(served: Pod, publisher: Publisher) -> str:
    """The address of a month of rates as CSV, long enough to be compressed."""
    rows: Any = [("CNGGZ", "EETLL", date(2021, 1, 1 + day), 100_000 + 100 * day) for day in range(31) for _ in range(3)]
    publisher.publish(rows)
    return f"{served.url}/v1/rates?origin=CNGGZ&destination=EETLL&period=31d&format=csv"


def read_text(text: str) -> list[float]:
    return [float(row["average"]) for row in csv.DictReader(io.StringIO(text))]


def read_pyarrow(address: str) -> list[Any]:
    with urllib.request.urlopen(address) as body:
        found: list[Any] = pyarrow.csv.read_csv(body)["average"].to_pylist()
        return found


READERS: dict[str, Callable[[str], list[Any]]] = {
    "pandas": lambda address: pandas.read_csv(address, parse_dates=["date_from"])["average"].tolist(),
    "polars": lambda address: polars.read_csv(address, try_parse_dates=True)["average"].to_list(),
    "pyarrow": read_pyarrow,
    "requests": lambda address: read_text(requests.get(address, timeout=30).text),
    "httpx": lambda address: read_text(httpx.get(address).text),
}


@pytest.mark.parametrize("name", READERS)
def test_libraries_read_the_table(address: str, name: str) -> None:
    assert READERS[name](address) == AVERAGES


@pytest.mark.parametrize("command", [["curl", "--silent", "--fail", "--compressed"], ["wget", "--quiet", "-O-"]])
def test_commands_read_the_table(address: str, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    run = subprocess.run([*command, address], capture_output=True, text=True, check=True, timeout=60)
    assert read_text(run.stdout) == AVERAGES


def test_curl_resumes_a_download(address: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    whole = httpx.get(address, headers={"Accept-Encoding": "identity"}).content
    part = tmp_path / "rates.csv"
    part.write_bytes(whole[:100])
    resume = ["curl", "--silent", "--fail", "--continue-at", "-", "--output", str(part), address]
    subprocess.run(resume, check=True, timeout=60)
    assert part.read_bytes() == whole


def test_a_session_that_keeps_the_tag_gets_nothing_again(address: str, publisher: Publisher) -> None:
    with requests.Session() as session:
        first = session.get(address, timeout=30)
        known = {"If-None-Match": first.headers["ETag"]}
        again = session.get(address, headers=known, timeout=30)
        assert (again.status_code, again.content) == (304, b"")
        rows: Any = [("CNGGZ", "EETLL", date(2021, 1, 31), 500_000)]
        publisher.publish(rows)
        changed = session.get(address, headers=known, timeout=30)
        assert changed.status_code == 200
        assert read_text(changed.text)[-1] > AVERAGES[-1]
