"""The search page and its results."""

from __future__ import annotations

import ast
import csv
import json
import re
import shlex
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import typer
from playwright.sync_api import expect

from rates_app.alerts.cli import app as alert_app
from rates_app.alerts.model import NewLaneAlert

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import BrowserContext, Page, Route

    from tests.ui.conftest import Site

pytestmark = pytest.mark.xdist_group("ui-rates")

LANE = "/?origin=china_main&destination=scandinavia&date_from=2021-01-01&date_to=2021-01-31&interval=day"


def choose(page: Page, label: str, text: str, *, number: int = 0) -> None:
    """Type into a field and choose the first suggestion with the keyboard: one interaction."""
    field = page.get_by_label(label, exact=True).nth(number)
    field.press_sequentially(text)
    expect(page.locator("auto-complete[open] [role=option]").first).to_be_visible()
    field.press("Enter")


def rows(page: Page) -> list[str]:
    return page.locator("table[data-sort] tbody tr").all_inner_texts()


def test_a_newcomer_finds_a_price_in_three_interactions(page: Page, site: Site) -> None:
    page.goto("/")
    choose(page, "From", "ningb")
    choose(page, "To", "scandi")
    page.get_by_role("button", name="Show rates").click()
    expect(page.get_by_role("heading", name="Ningbo to Scandinavia")).to_be_visible()
    arguments = {
        "origin": "CNNBO",
        "destination": "scandinavia",
        "date_from": "2021-01-01",
        "date_to": "2021-01-31",
    }
    code = re.search(r"origin=(\w+)", page.url)
    assert code is not None
    arguments["origin"] = code[1]
    answer = httpx.get(f"{site.url}/v1/rates", params=arguments).json()
    assert answer["origin"]["name"] == "Ningbo"
    expect(page.locator(".figures .main")).to_contain_text(f"{answer['rates'][-1]['average']:,.2f}")


def test_a_newcomer_finds_a_price_between_regions_with_one_click(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="China Main to Scandinavia").click()
    expect(page.locator(".figures .main dd").first).to_have_text("1,216.52")


def test_the_home_page_shows_the_busiest_lanes(page: Page, site: Site) -> None:
    page.goto("/")
    row = page.get_by_role("row", name=re.compile("China Main to Scandinavia"))
    expect(row).to_contain_text("1,217")
    expect(row).to_contain_text("Down 6.9% in a week; 8 of 10 prices are 836\N{EN DASH}1,728.")
    expect(page.locator("main")).to_contain_text("Prices to 31 Jan 2021")
    expect(page.locator("main .notice").filter(has_text="days ago")).to_be_visible()
    assert httpx.get(f"{site.url}/", headers={"Accept-Encoding": "br"}).headers["Content-Encoding"] == "br"


def test_fields_tolerate_typing_errors_and_work_with_the_keyboard(page: Page) -> None:
    page.goto("/")
    field = page.get_by_label("From", exact=True)
    field.press_sequentially("sjanghai")
    option = page.locator("#origin-1-options [role=option]")
    expect(option.first).to_contain_text("Shanghai")
    expect(field).to_have_attribute("aria-expanded", "true")
    field.press("ArrowDown")
    expect(option.first).to_have_attribute("aria-selected", "true")
    field.press("Enter")
    expect(field).to_have_value(re.compile(r"^Shanghai \(CN"))
    expect(option.first).to_be_hidden()
    field.fill("no such place at all")
    expect(page.locator("#origin-1-options")).to_contain_text("No matching port or region")
    field.press("Escape")
    expect(page.locator("#origin-1-options")).to_be_hidden()


def test_suggestions_close_when_the_field_loses_focus(page: Page) -> None:
    page.goto("/")
    page.get_by_label("From", exact=True).press_sequentially("china")
    expect(page.locator("#origin-1-options")).to_be_visible()
    page.get_by_role("heading", level=1).click()
    expect(page.locator("#origin-1-options")).to_be_hidden()


def test_suggestions_that_arrive_after_the_focus_has_left_stay_closed(page: Page) -> None:
    page.goto("/")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/locations/options*", hold)
    page.get_by_label("From", exact=True).press_sequentially("china")
    page.wait_for_timeout(500)  # the field waits for a pause in typing
    page.get_by_label("First day").focus()
    for route in held:
        route.continue_()
    expect(page.locator("#origin-1-options [role=option]").first).to_be_attached()
    expect(page.locator("#origin-1-options")).to_be_hidden()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
@pytest.mark.parametrize("label", ["From", "To", "First day"])
def test_enter_in_any_field_searches(label: str, open_context: Callable[..., BrowserContext], *, scripts: bool) -> None:
    page = open_context(java_script_enabled=scripts).new_page()
    page.goto("/?origin=CNGGZ&destination=EETLL&interval=week")
    page.get_by_label(label, exact=True).press("Enter")
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("heading", name="Guangzhou to Tallinn")).to_be_visible()


def test_a_tap_reads_the_chart_until_the_next_one(open_context: Callable[..., BrowserContext]) -> None:
    page = open_context("phone").new_page()
    page.goto(LANE)
    page.locator(".plot").tap(position={"x": 100, "y": 80})
    expect(page.locator(".tip")).to_contain_text("Jan 2021")
    page.wait_for_timeout(300)
    expect(page.locator(".tip")).to_be_visible()
    page.get_by_text("Download or share").tap()
    expect(page.locator(".tip")).to_be_hidden()


def test_a_phone_s_comparison_begins_on_the_first_screen(open_context: Callable[..., BrowserContext]) -> None:
    page = open_context("phone").new_page()
    page.goto(f"{LANE}&origin=CNGGZ&destination=EETLL&origin=china_east_main&destination=uk_main")
    heading, table = (page.locator(part).bounding_box() for part in ("#result", ".figures-table"))
    assert heading is not None
    assert table is not None
    assert heading["y"] < 600
    assert table["y"] < 780


def test_names_are_understood_without_choosing(page: Page) -> None:
    page.goto("/")
    page.get_by_label("From", exact=True).fill("china south main")
    page.get_by_label("To", exact=True).fill("noosl")
    page.get_by_role("button", name="Show rates").click()
    expect(page.get_by_role("heading", name="China South Main to Oslo")).to_be_visible()
    assert "origin=china_south_main&destination=NOOSL&date_from=2021-01-01" in page.url


def test_the_address_holds_the_view_and_back_and_forward_work(
    page: Page, open_context: Callable[..., BrowserContext]
) -> None:
    page.goto(LANE)
    month = rows(page)
    page.get_by_role("button", name="Week", exact=True).click()
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(7)
    assert "date_from=2021-01-25&date_to=2021-01-31" in page.url
    week, address = rows(page), page.url
    page.get_by_role("button", name="Swap from and to").click()
    expect(page.get_by_role("heading", name="Scandinavia to China Main")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="China Main to Scandinavia")).to_be_visible()
    assert rows(page) == week
    page.go_back()
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(31)
    assert rows(page) == month
    page.go_forward()
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(7)
    elsewhere = open_context().new_page()
    elsewhere.goto(address)
    assert rows(elsewhere) == week


def test_lanes_are_compared_and_taken_out_again(page: Page) -> None:
    page.goto(LANE)
    page.get_by_role("button", name="+ Compare a lane").click()
    expect(page.locator(".search .lane")).to_have_count(2)
    expect(page.locator("#origin-2")).to_be_focused()
    page.locator("#origin-2").fill("CNGGZ")
    page.locator("#destination-2").fill("EETLL")
    page.get_by_role("button", name="Show rates").click()
    expect(page.locator(".figures-table tbody tr")).to_have_count(2)
    expect(page.locator("svg polyline.average")).to_have_count(2)
    expect(page.get_by_role("row", name="31 Jan 2021").last).to_contain_text("1,154.33")
    page.get_by_role("button", name="Remove lane 1").click()
    expect(page.get_by_role("heading", name="Guangzhou to Tallinn")).to_be_visible()
    expect(page.locator(".figures-table")).to_have_count(0)


def test_the_chart_shows_exact_values_and_zooms(page: Page, site: Site) -> None:
    page.goto(LANE)
    rates = httpx.get(f"{site.url}/v1/rates{LANE[1:]}").json()["rates"]
    plot = page.locator(".plot")
    plot.focus()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    value_text = plot.get_attribute("aria-valuetext") or ""
    for part in (f"{rates[2][name]:,.2f}" for name in ("average", "low", "high", "median")):
        assert part in value_text
    assert f"{rates[2]['count']} prices" in value_text
    box = plot.bounding_box()
    assert box is not None
    step = box["width"] / 30
    page.mouse.move(box["x"] + step * 10, box["y"] + 100)
    expect(page.locator(".tip")).to_contain_text("11 Jan 2021")
    expect(page.locator(".tip")).to_contain_text(f"{rates[10]['average']:,.2f}")
    page.mouse.down()
    page.mouse.move(box["x"] + step * 15, box["y"] + 100, steps=4)
    page.mouse.up()
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(6)
    assert "date_from=2021-01-11&date_to=2021-01-16" in page.url
    page.go_back()
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(31)


def test_the_table_sorts(page: Page) -> None:
    page.goto(LANE)
    button = page.get_by_role("button", name="Average")
    header = page.locator("table[data-sort] thead th").nth(1)

    def averages() -> list[float]:
        return [
            float(text.replace(",", "")) for text in page.locator("table[data-sort] td:nth-child(2)").all_inner_texts()
        ]

    button.click()
    expect(header).to_have_attribute("aria-sort", "descending")
    assert averages() == sorted(averages(), reverse=True)
    button.press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert averages() == sorted(averages())
    expect(page.locator("[aria-sort]")).to_have_count(1)


def test_results_can_be_downloaded_and_shared(page: Page, site: Site) -> None:
    page.goto(LANE)
    expected = httpx.get(f"{site.url}/v1/rates{LANE[1:]}").json()

    def download(role: Any, name: str) -> bytes:
        with page.expect_download() as taken:
            page.locator(".take").get_by_role(role, name=name, exact=True).click()
        return Path(taken.value.path()).read_bytes()

    assert json.loads(download("link", "JSON")) == expected
    table = list(csv.DictReader(download("link", "CSV").decode().splitlines()))
    assert [float(row["average"]) for row in table] == [rate["average"] for rate in expected["rates"]]
    picture = download("link", "SVG").decode()
    assert "China Main → Scandinavia" in picture
    assert picture.count("<circle") == 31
    png = download("button", "PNG")
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (1920, 960)
    page.get_by_text("curl command").click()
    program, address = shlex.split(page.locator(".curl pre").inner_text())
    assert program == "curl"
    assert httpx.get(address).json() == expected


def test_the_page_of_a_lane_has_commands_that_create_an_alert(page: Page, site: Site) -> None:
    page.goto("/?origin=china_main&destination=scandinavia")
    page.get_by_text("Alert me about this lane").click()
    curl, python, command = (part.inner_text().replace("\\\n", "") for part in page.locator(".alert pre").all())
    program, address, *options = shlex.split(
        curl.replace("$TOKEN", site.token(f"alerts-{page.viewport_size}", "alerts:write"))
    )
    headers = dict(options[at + 1].split(": ") for at, option in enumerate(options) if option == "--header")
    body = json.loads(options[options.index("--data") + 1])
    lane = ("china_main", "scandinavia")
    assert (program, body["origin"], body["destination"]) == ("curl", *lane)
    # The service of the test sends no e-mails, which is its only objection.
    refused = httpx.post(address, headers=headers, json=body).json()
    assert [error["parameter"] for error in refused["errors"]] == ["email"], refused
    calls = [node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Call)]
    (added,) = [ast.literal_eval(each.args[0]) for each in calls if ast.unparse(each.func) == "client.add_alert"]
    new = NewLaneAlert.model_validate(added)
    assert ((new.origin, new.destination), new.condition) == (lane, "rise")
    _, _, _, *words = shlex.split(command)
    given = typer.main.get_command(alert_app).get_command(None, "add").make_context("add", words).params  # type: ignore[attr-defined]
    assert ((given["origin"], given["destination"]), given["site"]) == (lane, site.url)


def test_too_few_prices_and_none_are_explained(page: Page) -> None:
    page.goto("/?origin=CNGGZ&destination=EETLL&date_from=2020-01-01&date_to=2020-01-05")
    expect(page.locator("#answer")).to_contain_text("There are no prices for Guangzhou → Tallinn in this range")
    page.get_by_role("link", name="Show that range").click()
    expect(page.locator(".figures")).to_be_visible()
    page.goto("/?origin=scandinavia&destination=china_main")
    expect(page.locator("#answer")).to_contain_text("No prices have been published for Scandinavia")
    page.get_by_role("link", name="Show the opposite direction").click()
    expect(page.get_by_role("heading", name="China Main to Scandinavia")).to_be_visible()


def test_unknown_input_is_explained_and_can_be_corrected(page: Page) -> None:
    page.goto("/?origin=Sjanghai&destination=scandinavia")
    alert = page.locator("#answer [role=alert]")
    expect(alert).to_contain_text("“Sjanghai” is not a known port or region. Did you mean Shanghai")
    alert.get_by_role("link", name=re.compile("^Shanghai")).click()
    expect(page.get_by_role("heading", name="Shanghai to Scandinavia")).to_be_visible()


def test_being_offline_is_explained_and_can_be_retried(page: Page) -> None:
    page.goto(LANE)
    page.context.set_offline(True)
    expect(page.locator("#progress")).to_contain_text("You are offline")
    page.get_by_role("button", name="Week", exact=True).click()
    expect(page.locator("#failure")).to_contain_text("You are offline")
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(31)
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(7)
    expect(page.locator("#failure")).to_be_hidden()


def test_slow_and_failing_responses_are_reported(page: Page) -> None:
    held: list[Route] = []
    page.goto(LANE)

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/?*span=7*", hold)
    page.get_by_role("button", name="Week", exact=True).click()
    expect(page.locator("main")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#progress")).to_contain_text("The service is slow")
    held[0].fulfill(status=503, body="", content_type="text/html")
    expect(page.locator("#failure")).to_contain_text("temporarily unavailable")
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    page.unroute("**/?*span=7*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(7)


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_search_compare_and_table_work_without_javascript(
    size: str, open_context: Callable[..., BrowserContext], keep: Callable[[Page, str], None]
) -> None:
    page = open_context(size, java_script_enabled=False).new_page()
    page.goto("/")
    page.get_by_label("From", exact=True).fill("China Main")
    page.get_by_label("To", exact=True).fill("Scandinavia (scandinavia)")
    page.get_by_role("button", name="Show rates").click()
    expect(page.locator("table tbody tr")).to_have_count(31)
    expect(page.locator("svg polyline.average")).to_have_count(1)
    expect(page.locator("datalist option")).to_have_count(163)
    keep(page, f"without-javascript-{size}-light")
    page.get_by_role("button", name="+ Compare a lane").click()
    page.locator("#origin-2").fill("CNGGZ")
    page.locator("#destination-2").fill("EETLL")
    page.get_by_role("button", name="Show rates").click()
    expect(page.locator(".figures-table tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Week", exact=True).click()
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(7)
