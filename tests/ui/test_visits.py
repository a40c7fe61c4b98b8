"""Four people reach their goal in as many steps as docs/visits.md lists.

A step is one decision: following a link, pressing a button, completing one form, or running one command.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import openpyxl
import pytest
from playwright.sync_api import expect

from clients.python.generate import generate
from docs.tables import format_row, format_table, read_table
from drills.pod import Pod, environment_of
from tests.ui.conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from tests.ui.conftest import Site

pytestmark = pytest.mark.xdist_group("ui-batches")

VISITS = ROOT / "docs/visits.md"
RATES = Path(sysconfig.get_path("scripts")) / "rates"
PATIENCE = 120_000

Step = Callable[[str], None]


@contextmanager
def visit(name: str) -> Iterator[Step]:
    """Record the steps of a visit, and compare them with the page.

    Args:
        name: The name of the visit's table in the page.
    """
    taken: list[str] = []
    yield taken.append
    rows = [format_row((number, step)) for number, step in enumerate(taken, start=1)]
    assert list(read_table(VISITS.read_text(), name).values()) == rows, format_table(("step", "action"), rows, {0})


@pytest.fixture
def page(open_context: Callable[..., BrowserContext]) -> Page:
    return open_context().new_page()


def test_a_buyer_finds_a_price_without_a_step(page: Page, site: Site) -> None:
    asked = {"lanes": "china_main:scandinavia"}
    latest = httpx.get(f"{site.url}/v1/rates/latest", params=asked).raise_for_status().json()
    with visit("price"):
        page.goto("/")
        row = page.get_by_role("row", name=re.compile("China Main to Scandinavia"))
        expect(row).to_contain_text(f"{round(latest['rates'][0]['average']):,}")


def test_a_buyer_takes_three_lanes_to_excel(page: Page) -> None:
    with visit("workbook") as step:
        page.goto("/")
        page.get_by_role("link", name="China Main to Scandinavia").click()
        step("Home page: follow “China Main to Scandinavia”")
        for number, (origin, destination) in enumerate([("CNGGZ", "EETLL"), ("china_east_main", "uk_main")], start=2):
            page.get_by_role("button", name="+ Compare a lane").click()
            page.locator(f"#origin-{number}").fill(origin)
            page.locator(f"#destination-{number}").fill(destination)
            page.get_by_role("button", name="Show rates").click()
            expect(page.locator(".figures-table tbody tr")).to_have_count(number)
            step(f"“Compare a lane”: enter lane {number}, show rates")
        with page.expect_download() as taken:
            page.get_by_role("link", name="Excel").click()
        step("Follow “Excel”")
    workbook = openpyxl.load_workbook(io.BytesIO(Path(taken.value.path()).read_bytes()), read_only=True)
    text = {str(cell) for sheet in workbook for row in sheet.iter_rows(values_only=True) for cell in row if cell}
    assert all(any(name in each for each in text) for name in ("Scandinavia", "Tallinn", "UK Main"))


def test_a_programmer_gets_an_answer(page: Page, site: Site, tmp_path: Path) -> None:
    with visit("program") as step:
        page.goto("/")
        page.get_by_role("link", name="API", exact=True).click()
        step("Home page: follow “API”")
        command = page.get_by_role("region", name="Count, average and spread of each day, week or month").locator(
            "pre[aria-label='curl example']"
        )
        copied = command.inner_text().replace("\\\n", " ")
        step("Copy the curl example of `/v1/rates`")
        assert copied.startswith("curl ")
        done = subprocess.run(shlex.split(copied), capture_output=True, check=True)
        step("Run it")
        assert json.loads(done.stdout)["rates"]
        generate(tmp_path)
        step("Build the Python client: `make client`")
        program = (ROOT / "clients/README.md").read_text().partition("```python\n")[2].partition("```")[0]
        program = program.replace("https://rates.example", site.url)
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        step("Run the example of [its page](../clients/README.md)")
        assert "average" in run.stdout


def test_a_supplier_publishes_and_corrects_a_batch(page: Page, site: Site, tmp_path: Path) -> None:
    token = site.token("visiting supplier", "batches:write", "batches:withdraw")
    state = page.locator("#batch .state")
    file = tmp_path / "prices.csv"

    def fill(price: int) -> None:
        with file.open("w", newline="") as target:
            columns = {"orig_code": "CNSGH", "dest_code": "NOOSL", "day": "2012-05-01", "price": str(price)}
            writer = csv.DictWriter(target, fieldnames)
            writer.writeheader()
            writer.writerows([columns] * 3)

    def send(button: str) -> None:
        page.locator("#file").set_input_files(file)
        page.get_by_label("Token with the scope batches:write").fill(token)
        page.get_by_role("button", name=button, exact=True).click()

    with site.dispatcher():
        with visit("delivery") as step:
            page.goto("/batches/new")
            with page.expect_download() as taken:
                page.get_by_role("link", name="CSV", exact=True).click()
            step("“Deliver a batch”: download the empty CSV file")
            fieldnames = next(csv.reader(io.StringIO(Path(taken.value.path()).read_text(encoding="utf-8-sig"))))
            fill(1000)
            step("Fill it in")
            send("Check only")
            step("Choose the file, enter the token, “Check only”")
            expect(state).to_have_text("checked", timeout=PATIENCE)
            page.goto("/batches/new")
            send("Deliver")
            step("Choose the file, enter the token, “Deliver”")
            expect(state).to_have_text("published", timeout=PATIENCE)
        with visit("correction") as step:
            first = page.locator("#batch").get_attribute("data-batch")
            page.get_by_role("link", name="Correct this batch").click()
            step("Page of the batch: follow “Correct this batch”")
            expect(page.get_by_label("Replaces batch")).to_have_value(first or "")
            fill(1100)
            step("Correct the file")
            send("Deliver")
            step("Choose the file, enter the token, “Deliver”")
            expect(state).to_have_text("published", timeout=PATIENCE)
            expect(page.locator("#batch")).to_contain_text(f"batch {first}")


def test_an_operator_finds_the_cause(page: Page, site: Site) -> None:
    broken = environment_of(site.settings) | {"RATES_REDIS_URL": "redis://127.0.0.1:1/0", "RATES_WORKERS": "1"}
    pod = Pod(broken)
    try:
        pod.wait_until_ready()
        with visit("cause") as step:
            page.goto(f"{pod.operations_url}/status")
            step("Open `/status` of the pod")
            expect(page.get_by_role("row", name=re.compile("redis", re.IGNORECASE)).first).not_to_contain_text("ok")
            command = page.locator(".notice.bad code").inner_text()
            run = [str(RATES), *command.split()[1:]]
            environment = {**os.environ, **broken}
            environment.pop("COLUMNS", None)  # the report is read as a whole
            done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
            step("Run `rates doctor`, as the page says")
            assert done.returncode == 1
            runbook = re.search(r"PROBLEM.*(rates runbook \S+)", done.stdout)
            assert runbook is not None
            shown = subprocess.run(
                [str(RATES), *runbook[1].split()[1:]], env=environment, capture_output=True, text=True, check=True
            )
            step("Run `rates runbook cache-down`, as the report says")
            assert "## Mitigation" in shown.stdout
    finally:
        pod.terminate()
