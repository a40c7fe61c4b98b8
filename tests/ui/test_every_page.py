"""Rules for every page: accessible, responsive, small, and without foreign code."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.ui.conftest import ADDRESSES, SIZES

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import BrowserContext, Page, ViewportSize

    from tests.ui.conftest import Site

pytestmark = pytest.mark.xdist_group("ui-pages")

LANE = "origin=china_main&destination=scandinavia"
PAGES = {
    "home": "/",
    "answer": f"/?{LANE}",
    "compare": f"/?{LANE}&origin=CNGGZ&destination=EETLL&origin=china_east_main&destination=uk_main",
    "unknown": "/?origin=Sjanghai&destination=scandinavia",
    "no-prices": "/?origin=CNGGZ&destination=EETLL&date_from=2020-01-01&date_to=2020-01-05",
    "quotes": "/quotes?origin=china_main&destination=scandinavia&days=2021-01-01/2021-01-31",
    "explore": "/explore",
    "region": "/locations/northern_europe",
    "port": "/locations/CNGGZ",
    "batches": "/batches",
    "no-batches": "/batches?state=failed",
    "batch": "/batches/1",
    "rejects": "/batches/1/rejects",
    "deliver": "/batches/new",
    "reference": "/docs",
    "guide-query": "/guides/query",
    "guide-alerts": "/guides/alerts",
    "guide-deliver": "/guides/deliver",
    "guide-figures": "/guides/figures",
    "sign-in": "/sign-in",
    **{f"address-{state}": f"/alerts/confirm?token={token}" for state, token in ADDRESSES.items()},
    "address-unsubscribe": f"/alerts/unsubscribe?token={ADDRESSES['confirmed']}",
    "not-found": "/nowhere",
}
VIEWS = list(product(SIZES, ("light", "dark")))

#: Maximum size of a first view, compressed with headers, and its maximum number of requests.
MAX_BYTES = 100_000
MAX_REQUESTS = 12

#: A4 with margins of a centimetre, at 96 pixels an inch.
PAPER: ViewportSize = {"width": 718, "height": 1047}

WATCH_SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifts += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_axe_finds_nothing_and_nothing_overflows(
    size: str, scheme: str, open_context: Callable[..., BrowserContext], keep: Callable[[Page, str], None], site: Site
) -> None:
    page = open_context(size, scheme).new_page()
    found = []
    for name, address in {**PAGES, "status": f"{site.operations_url}/status"}.items():
        page.goto(address)
        keep(page, f"{name}-{size}-{scheme}")
        found += [
            f"{name}: {violation['id']} ({violation['impact']}): {violation['nodes'][0]['html'][:200]}"
            for violation in Axe().run(page).response["violations"]
        ]
        if (wider := page.evaluate("document.documentElement.scrollWidth - innerWidth")) > 0:
            found.append(f"{name} is {wider} pixels too wide")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", ["home", "answer", "explore", "batches"])
@pytest.mark.parametrize("size", SIZES)
def test_a_first_view_is_small_and_does_not_shift(
    size: str, name: str, open_context: Callable[..., BrowserContext], site: Site
) -> None:
    page = open_context(size).new_page()
    page.add_init_script(WATCH_SHIFTS)
    transferred: dict[str, int] = {}
    protocol = page.context.new_cdp_session(page)
    protocol.send("Network.enable")
    protocol.on(
        "Network.loadingFinished", lambda event: transferred.update({event["requestId"]: event["encodedDataLength"]})
    )
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(PAGES[name], wait_until="networkidle")
    assert all(address.startswith((f"{site.url}/", "blob:", "data:")) for address in addresses), addresses
    assert len(addresses) <= MAX_REQUESTS, addresses
    assert 0 < sum(transferred.values()) < MAX_BYTES
    assert page.evaluate("window.shifts") < 0.001


def test_a_second_view_loads_no_asset_again(open_context: Callable[..., BrowserContext]) -> None:
    page = open_context().new_page()
    page.goto(PAGES["answer"], wait_until="networkidle")
    page.goto(PAGES["answer"], wait_until="networkidle")
    loaded = page.evaluate(
        "performance.getEntriesByType('resource').map((part) => [part.name, part.transferSize, part.decodedBodySize])"
    )
    assets = [entry for entry in loaded if "/static/" in entry[0]]
    assert len(assets) >= 5
    assert [entry for entry in assets if entry[1] or not entry[2]] == []


@pytest.mark.parametrize("address", [*PAGES.values(), "/locations/options?q=shang"])
def test_no_page_permits_inline_scripts(address: str, site: Site) -> None:
    answer = httpx.get(site.url + address, headers={"Accept": "text/html"})
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    for script in re.findall(r"<script[^>]*>", answer.text):
        assert re.fullmatch(r'<script type="module" src="/static/[0-9a-f]{12}/[\w/.-]+">', script)
    assert not re.search(r"<[^>]+\s(style|on\w+)=", answer.text)
    assert answer.headers["Cache-Control"] in {"no-cache", "no-store"}


def test_the_policy_holds_in_the_browser(open_context: Callable[..., BrowserContext]) -> None:
    page = open_context().new_page()
    page.goto("/")
    page.evaluate(
        "document.head.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = 1' }))"
    )
    assert page.evaluate("window.ran") is None


def test_everything_can_be_reached_with_the_keyboard(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("From", exact=True)).to_be_focused()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    for name in ("destination-1", "date_from", "interval", "Show rates"):
        assert name in reached


def broken_texts(page: Page, selector: str) -> list[str]:
    """Return the texts of elements that have more than one line."""
    broken: list[str] = page.locator(selector).evaluate_all(
        """parts => parts.filter((part) => {
          const range = document.createRange();
          range.selectNodeContents(part);
          return range.getBoundingClientRect().height > 2 * parseFloat(getComputedStyle(part).fontSize);
        }).map((part) => part.textContent)"""
    )
    return broken


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_key_figures_are_whole_at_every_width(width: int, open_context: Callable[..., BrowserContext]) -> None:
    page = open_context().new_page()
    page.set_viewport_size({"width": width, "height": 900})
    for name in ("answer", "quotes"):
        page.goto(PAGES[name])
        figures = page.locator(".figures dd:not(.small)")
        assert broken_texts(page, ".figures dd:not(.small)") == []
        for figure in figures.all():
            assert figure.evaluate("part => part.scrollWidth <= part.clientWidth")


def test_printed_pages_have_the_chart_and_the_whole_table(
    open_context: Callable[..., BrowserContext], keep: Callable[..., None]
) -> None:
    page = open_context().new_page()
    page.goto(PAGES["answer"])
    page.emulate_media(media="print")
    keep(page, "answer-print")
    for part in (".search", ".own", ".alert", ".curl", ".take"):
        expect(page.locator(part)).to_be_hidden()
    expect(page.locator(".chart")).to_be_visible()
    scroll = page.locator(".scroll.tall")
    assert scroll.evaluate("part => part.scrollHeight - part.clientHeight") == 0
    page.set_viewport_size(PAPER)
    assert scroll.evaluate("part => part.scrollWidth - part.clientWidth") == 0
    assert broken_texts(page, "table[data-sort] td") == []


def test_printed_comparisons_have_every_lane_and_colour(
    open_context: Callable[..., BrowserContext], keep: Callable[..., None]
) -> None:
    page = open_context().new_page()
    page.set_viewport_size(PAPER)
    page.goto(PAGES["compare"])
    page.emulate_media(media="print")
    keep(page, "compare-print")
    for part in page.locator(".scroll").all():
        assert part.evaluate("part => part.scrollWidth - part.clientWidth") <= 0
    swatches = page.locator(".lanes-title .swatch")
    expect(swatches).to_have_count(3)
    for swatch in swatches.all():
        assert swatch.evaluate("part => getComputedStyle(part).printColorAdjust") == "exact"


def test_the_status_page_shows_version_and_generation(page: Page, site: Site) -> None:
    assert httpx.get(f"{site.url}/v1/locations?q=shang").status_code == 200
    page.goto(f"{site.operations_url}/status")
    main = page.locator("main")
    for word in ("serving", "Generation", "dev", "Cache hits", "Replica lag", "replica-1", "primary"):
        expect(main).to_contain_text(word)
    expect(main).to_contain_text(re.compile(r"Cache hits\s*\d+\.\d%\s*in memory; Redis"))
    expect(main).to_contain_text(re.compile(r"Requests\s*\d+\s*0\.00% with a server error"))
    expect(main).to_contain_text(re.compile(r"Quick reads\s*\d+\.\d%\s*within 250 ms"))


def test_explore_leads_to_regions_and_lanes(page: Page) -> None:
    page.goto("/explore")
    page.get_by_role("link", name="Scandinavia", exact=True).click()
    expect(page.get_by_role("heading", name="Scandinavia")).to_be_visible()
    page.get_by_role("link", name="Stockholm Area").click()
    page.locator(".tags a").first.click()
    expect(page.locator("main")).to_contain_text("Port")
    page.locator("table a").first.click()
    expect(page.locator("#answer .figures, #answer .notice")).to_be_visible()


def test_errors_are_pages_for_browsers_and_problems_for_programs(page: Page, site: Site) -> None:
    page.goto("/batches/999999")
    expect(page.get_by_role("heading", name="Page not found")).to_be_visible()
    expect(page.locator("main")).to_contain_text("There is no batch '999999'")
    for address in ("/nowhere", "/v1/nowhere"):
        assert httpx.get(site.url + address).headers["Content-Type"] == "application/problem+json"
    shown = httpx.get(f"{site.url}/v1/nowhere", headers={"Accept": "text/html"})
    assert shown.headers["Content-Type"] == "application/problem+json"
