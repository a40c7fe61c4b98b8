"""The generated Python client is typed, can be installed, and agrees with the service; the notebook runs with it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from clients.document import describe
from clients.python.generate import generate
from tests.prose import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from drills.pod import Pod
    from tests.fixtures.service import Publisher

#: A program that a type checker accepts only if parameters and members have their types.
PROGRAM = """
from datetime import date
from freight_rates_client import Client

def averages(client: Client) -> list[float | None]:
    found = client.interval_rates(origin="CNGGZ", destination="EETLL", date_from=date(2021, 1, 1), interval="week")
    return [rate["average"] for rate in found["rates"]]

def lines(client: Client) -> int:
    return sum(len(line) for line in client.export_rates(date_from="2021-01-01", date_to="2021-01-31", format="ndjson"))
"""
WRONG = PROGRAM.replace('interval="week"', 'interval="year"')


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The built wheel, from which Python can import."""
    source = tmp_path / "source"
    generate(source)
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    run = [sys.executable, "-c", build, str(tmp_path)]
    name = subprocess.run(run, cwd=source, check=True, capture_output=True, text=True).stdout.split()[-1]
    assert name == f"freight_rates_client-{describe()['info']['version']}-py3-none-any.whl"
    return tmp_path / name


@pytest.mark.parametrize(("program", "ends_with"), [(PROGRAM, 0), (WRONG, 1)], ids=["right", "wrong"])
def test_types_are_checked(tmp_path: Path, program: str, ends_with: int) -> None:
    generate(tmp_path)
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    mypy = [sys.executable, "-m", "mypy", "freight_rates_client", "program.py"]
    run = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == ends_with, run.stdout
    assert ("year" in run.stdout) == bool(ends_with)


def test_answers_are_those_of_the_service(package: Path, served: Pod, publisher: Publisher) -> None:
    rows: Any = [("CNGGZ", "EETLL", date(2021, 1, 1 + day), 100_000 + day) for day in range(8) for _ in range(3)]
    publisher.publish(rows)
    script = f"""
import json, sys
sys.path.insert(0, {str(package)!r})
from freight_rates_client import ApiError, Client
with Client({served.url!r}) as client:
    latest = client.latest(lanes="CNGGZ:EETLL")
    text = client.interval_rates_text(origin="CNGGZ", destination="EETLL", format="csv", period="2d")
    lines = list(client.export_rates(date_from="2021-01-01", date_to="2021-01-08", origin="china_main"))
    pages = client.follow(client.search(sort="code", limit=50))
    places = [place["code"] for page in pages for place in page["locations"]]
    try:
        client.location("NOWHERE")
    except ApiError as error:
        refused = [error.status, error.problem["title"]]
    try:
        next(client.export_rates(date_from="2021-01-01", date_to="2020-01-08"))
    except ApiError as error:
        refused.append(error.status)
    print(json.dumps([latest, text, lines, places, refused]))
"""
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    latest, text, lines, places, refused = json.loads(run.stdout)
    assert latest == httpx.get(f"{served.url}/v1/rates/latest?lanes=CNGGZ:EETLL").json()
    assert text.splitlines()[0].startswith("date_from,date_to,count")
    assert (lines[0].split(",")[:3], len(lines)) == (["origin", "destination", "day"], 9)
    assert len(places) > 150
    assert (refused[0], refused[2]) == (404, 400)


def test_the_notebook_runs(package: Path, served: Pod, publisher: Publisher) -> None:
    days: Any = [("CNGGZ", "EETLL", date(2021, 1, 1 + day), 100_000 + day) for day in range(8) for _ in range(3)]
    publisher.publish(days + [("CNSGH", "NOOSL", day, cents) for _, _, day, cents in days])
    notebook = json.loads((ROOT / "docs/tutorials/rates.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    program = "\n".join([f"import sys; sys.path.insert(0, {str(package)!r})", *cells])
    run = subprocess.run(
        [sys.executable, "-c", program], env={"RATES_URL": served.url}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "400" in run.stdout
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "outputs would go stale"
