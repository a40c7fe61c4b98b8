"""Tasks of suppliers and operators in the browser: upload, follow, replace, decide, withdraw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from playwright.sync_api import expect

from rates_app.batches import ledger
from rates_app.batches.formats.inspection import inspect
from rates_app.batches.model import Slice

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import BrowserContext, Page

    from tests.ui.conftest import Site

pytestmark = pytest.mark.xdist_group("ui-batches")

HEADER = "orig_code,dest_code,day,price\n"


@pytest.fixture
def supplier(request: pytest.FixtureRequest, site: Site) -> str:
    """A token with every scope of a supplier."""
    return site.token(request.node.name, "batches:write", "batches:withdraw")


def unlike(request: pytest.FixtureRequest) -> str:
    """Return rows that no other test delivers, of a lane and a year that no other test reads."""
    price = 1000 + sum(map(ord, request.node.name))
    return HEADER + f"CNSGH,NOOSL,2011-03-01,{price}\n" * 3


def deliver(
    page: Page, token: str, name: str, content: str, *, button: str = "Deliver", replaces: int | None = None
) -> None:
    page.goto("/batches/new")
    if replaces is not None:
        page.get_by_label("Replaces batch").fill(str(replaces))
    page.get_by_label("Token with the scope batches:write").fill(token)
    transfer = page.evaluate_handle(
        """([name, content]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([content], name, { type: "text/csv" }));
            return transfer;
        }""",
        [name, content],
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class("drop over")
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class("drop")
    page.get_by_role("button", name=button, exact=True).click()


def test_a_dropped_file_is_followed_until_it_is_published_and_withdrawn(
    page: Page, site: Site, supplier: str, request: pytest.FixtureRequest
) -> None:
    deliver(page, supplier, "my prices (1).csv", unlike(request))
    expect(page.get_by_role("heading", level=1)).to_contain_text("my-prices-1-.csv")
    expect(page.locator("#batch .state")).to_have_text("received")
    with site.dispatcher():
        # The page updates itself without a reload.
        expect(page.locator("#batch .state")).to_have_text("published", timeout=60_000)
    expect(page.locator("#live")).to_have_text("The batch has ended.")
    expect(page.locator(".steps li.done")).to_have_count(4)

    page.get_by_role("button", name="Withdraw this batch …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("my-prices-1-.csv?")
    expect(dialog).to_contain_text("This removes its 3 prices for all users")
    page.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Withdraw this batch …").click()
    dialog.get_by_label("Token with the scope batches:withdraw").fill("rates_wrong")
    dialog.get_by_role("button", name="Withdraw batch").click()
    expect(dialog.get_by_role("alert")).to_contain_text("The token is unknown")
    dialog.get_by_label("Token with the scope batches:withdraw").fill(supplier)
    dialog.get_by_role("button", name="Withdraw batch").click()
    expect(page.locator("#batch .state")).to_have_text("withdrawn")
    expect(page.get_by_role("button", name="Withdraw this batch …")).to_have_count(0)


def test_a_refused_batch_leads_to_its_rejects(
    page: Page, site: Site, supplier: str, request: pytest.FixtureRequest
) -> None:
    content = unlike(request) + "CNGGZ,NOWHR,2011-03-01,900\nCNGGZ,EETLL,2011-02-30,900\nCNGGZ,EETLL,2011-03-02,<b>x\n"
    deliver(page, supplier, "bad.csv", content)
    expect(page.locator("#batch .state")).to_have_text("received")
    with site.dispatcher():
        expect(page.locator("#batch .state")).to_have_text("refused", timeout=60_000)
    page.get_by_role("link", name="3, show them").click()
    table = page.locator("table tbody tr")
    expect(table).to_have_count(3)
    expect(table.first).to_contain_text("NOWHR")
    expect(table.first.locator("th")).to_have_text("5")
    expect(table.last).to_contain_text("<b>x")
    page.get_by_label("Field, reason or value contains").fill("02-30")
    page.get_by_role("button", name="Search").click()
    expect(table).to_have_count(1)
    expect(table.first).to_contain_text("2011-02-30")
    with page.expect_download() as taken:
        page.get_by_role("link", name="CSV").click()
    lines = Path(taken.value.path()).read_text().splitlines()
    assert lines[0] == "line,field,reason,value"
    assert len(lines) == 4
    page.get_by_label("Field, reason or value contains").fill("nothing like it")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("heading", name="No reject contains “nothing like it”")).to_be_visible()


def test_errors_of_a_delivery_are_explained(
    page: Page, site: Site, supplier: str, request: pytest.FixtureRequest
) -> None:
    outcome = page.locator("#outcome")
    deliver(page, "rates_wrong", "prices.csv", unlike(request))
    expect(outcome).to_contain_text("The token is unknown")
    deliver(page, site.token(f"{request.node.name} reader", "batches:withdraw"), "prices.csv", unlike(request))
    expect(outcome).to_contain_text("batches:write")
    deliver(page, supplier, "empty.csv", "")
    expect(outcome).to_contain_text("The delivery is not a batch")
    deliver(page, supplier, "prices.csv", unlike(request))
    expect(page.locator("#batch")).to_be_visible()
    deliver(page, supplier, "prices.csv", unlike(request))
    expect(outcome).to_contain_text("This content was delivered before")
    outcome.get_by_role("link", name="Open the batch").click()
    expect(page.locator("#batch .state")).to_have_text("received")


def test_a_correction_replaces_a_batch_and_an_operator_decides_about_a_held_one(
    page: Page, site: Site, supplier: str, request: pytest.FixtureRequest
) -> None:
    # Each parametrisation has its own day, because the changes count all prices of the lane on the batch's days.
    day = f"04-{1 + sum(map(ord, request.node.name)) % 28:02}"
    content = unlike(request).replace("2011-03-01", f"2011-{day}")
    far = content.replace("2011", "2098")
    with site.dispatcher():
        deliver(page, supplier, "first.csv", content)
        expect(page.locator("#batch .state")).to_have_text("published", timeout=60_000)
        first = int(page.locator("#batch").get_attribute("data-batch") or 0)
        deliver(page, supplier, "checked.csv", far, button="Check only", replaces=first)
        expect(page.locator("#batch .state")).to_have_text("checked", timeout=60_000)
        expect(page.locator("#batch")).to_contain_text("1 lane: 0 new, 0 lost. 3 prices before, 3 after.")
        deliver(page, supplier, "second.csv", far, replaces=first)
        expect(page.locator("#batch .state")).to_have_text("held", timeout=60_000)
    expect(page.locator("#batch")).to_contain_text("days may be 366 ahead")
    page.get_by_role("button", name="Publish this batch …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token with the scope operator").fill(supplier)
    dialog.get_by_role("button", name="Publish batch").click()
    expect(dialog.get_by_role("alert")).to_contain_text("operator")
    dialog.get_by_label("Token with the scope operator").fill(site.token(f"{request.node.name} op", "operator"))
    dialog.get_by_role("button", name="Publish batch").click()
    expect(page.locator("#batch .state")).to_have_text("published")
    page.get_by_role("link", name=f"Batch {first}", exact=True).click()
    expect(page.locator("#batch")).to_contain_text("replaced by batch")


def test_progress_arrives_while_a_batch_is_staged(
    page: Page, site: Site, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    file = tmp_path / "slow.csv"
    file.write_text(unlike(request))
    with psycopg.connect(site.settings.database_url.get_secret_value(), autocommit=True) as connection:
        batch, _ = ledger.accept(connection, inspect(str(file)), name="slow.csv", supplier="test")
        ledger.enter_slices(connection, batch.id, [Slice(0, 0, 50), Slice(1, 50, 100)])
        ledger.set_state(connection, batch.id, "staging")
        page.goto(f"/batches/{batch.id}")
        expect(page.locator("#batch")).to_contain_text("0 of 2 slices staged")
        expect(page.locator("#live")).to_have_text("This page updates itself.")
        connection.execute(
            "UPDATE slices SET state = 'staged', rows = 2, rejected = 1, staged_at = clock_timestamp()"
            " WHERE batch_id = %s AND number = 0",
            (batch.id,),
        )
        expect(page.locator("#batch")).to_contain_text("1 of 2 slices staged")
        assert page.locator("progress").get_attribute("value") == "50"
        ledger.set_state(connection, batch.id, "failed", failure="the disk is full")
        expect(page.locator("#batch")).to_contain_text("the disk is full")
        expect(page.locator("#live")).to_have_text("The batch has ended.")


def test_the_list_filters_by_state_and_leads_to_batches(page: Page) -> None:
    page.goto("/batches")
    sample = page.get_by_role("link", name="prices-2021-01.csv.gz")
    expect(sample).to_be_visible()
    page.get_by_role("navigation", name="State").get_by_role("link", name="Verified").click()
    expect(page.get_by_role("heading", name="No batch is verified")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    sample.click()
    expect(page.locator("#batch")).to_contain_text("56,689")


def test_batches_can_be_read_without_javascript(open_context: Callable[..., BrowserContext]) -> None:
    page = open_context(java_script_enabled=False).new_page()
    page.goto("/batches/1")
    assert "rates withdraw 1" in page.locator("main").inner_text()
    assert not page.locator("[data-withdraw]").is_visible()
    page.goto("/batches/new")
    assert "This form needs JavaScript" in page.locator("main").inner_text()
    assert not page.locator("#deliver").is_visible()
