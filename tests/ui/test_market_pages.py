"""The home page's map, the port pairs behind a region's rates, and the user's own rates, in Chromium."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.ui.conftest import Site

pytestmark = pytest.mark.xdist_group("ui-pages")

LANE = "origin=china_main&destination=scandinavia"


def test_the_map_is_below_the_prices_and_fits_the_screen(page: Page, keep: Callable[[Page, str], None]) -> None:
    page.goto("/")
    picture = page.get_by_role("img", name="Map of the sea routes of these lanes")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
    small = (page.viewport_size or {"width": 0})["width"] < 704
    assert picture.evaluate("image => new URL(image.currentSrc).search") == ("?size=small" if small else "")
    board, drawn = page.locator(".lanes").bounding_box(), picture.bounding_box()
    assert board is not None
    assert drawn is not None
    assert drawn["y"] > board["y"] + board["height"]
    keep(page, f"map-{'phone' if small else 'desktop'}")


def test_a_region_shows_its_port_pairs(page: Page, site: Site) -> None:
    asked = f"{LANE}&date_from=2021-01-01&date_to=2021-01-31"
    page.goto(f"/?{asked}")
    rates = httpx.get(f"{site.url}/v1/rates?{asked}&include=port_pairs").json()
    row = page.locator("table[data-sort] tbody tr").last
    first = rates["rates"][0]
    expect(row).to_contain_text(f"{first['port_pairs']} of {rates['port_pairs']}")
    expect(row).to_contain_text(f"{first['index']:,.2f}")
    expect(page.locator(".plot .index")).to_have_count(1)
    plot = page.locator(".plot")
    plot.focus()
    page.keyboard.press("Home")
    expect(page.locator(".tip")).to_contain_text(f"{first['port_pairs']} of {rates['port_pairs']}")
    expect(page.locator(".tip")).to_contain_text(f"{first['index']:,.2f}")
    page.get_by_role("link", name="constant mix").click()
    expect(page.locator("#constant-mix + dd")).to_contain_text("time-dummy index")


def test_lanes_between_ports_have_no_port_pairs(page: Page) -> None:
    page.goto("/?origin=CNGGZ&destination=EETLL")
    expect(page.locator(".plot .index")).to_have_count(0)
    expect(page.get_by_role("columnheader", name="Port pairs")).to_have_count(0)


def test_rates_are_compared_with_the_market(page: Page, keep: Callable[[Page, str], None]) -> None:
    page.goto(f"/?{LANE}")
    page.get_by_text("Compare your rates with the market").click()
    page.get_by_label("Your rates in USD, one per line").fill("1,250\n900\nask me")
    page.get_by_label("Compare with").select_option(index=1)
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("heading", name="Your rates against the market")).to_be_visible()
    assert page.url.endswith("/quotes"), "the rates are not in the address"
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody tr").first).to_contain_text(re.compile(r"1,250\.00\s*\d+% of prices"))
    expect(page.get_by_role("alert")).to_contain_text("ask me")
    keep(page, f"quotes-{(page.viewport_size or {'width': 0})['width']}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("link", name="China Main → Scandinavia").click()
    expect(page.locator("table[data-sort] tbody tr")).to_have_count(31)
