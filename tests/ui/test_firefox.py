"""The short form of test_every_page.py in Firefox: pages load without errors, are accessible, and fit a phone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import axe_playwright_python
import pytest

from tests.ui.conftest import SIZES
from tests.ui.firefox import firefox
from tests.ui.test_every_page import PAGES

if TYPE_CHECKING:
    from tests.ui.conftest import Site

pytestmark = pytest.mark.xdist_group("ui-pages")

PROGRAMS = ("firefox-esr", "firefox")
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
RUN_AXE = "axe.run().then((found) => JSON.stringify(found.violations.map((each) => [each.id, each.nodes[0].html])))"
WIDER = "document.documentElement.scrollWidth - innerWidth"


def test_pages_load_without_errors_and_fit_a_phone_in_firefox(site: Site, tmp_path: Path) -> None:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert program is not None, "no Firefox on the PATH: 'make test' installs Debian's if root runs it"
    axe = AXE.read_text(encoding="utf-8")
    found: list[str] = []
    with firefox(program, tmp_path) as browser:
        browser.resize(SIZES["phone"]["width"], SIZES["phone"]["height"])
        for name, address in {**PAGES, "status": f"{site.operations_url}/status"}.items():
            browser.open(address if address.startswith("http") else site.url + address)
            assert browser.run("innerWidth") == SIZES["phone"]["width"]
            assert len(browser.run("document.querySelector('main').innerText")) > 20, name
            browser.run(axe)
            found += [f"{name}: {rule}: {html[:200]}" for rule, html in json.loads(browser.run(RUN_AXE, wait=True))]
            if (wider := browser.run(WIDER)) > 0:
                found.append(f"{name} is {wider} pixels too wide")
            found += [f"{name}: {error}" for error in browser.errors]
            browser.errors.clear()
        browser.run("console.error('an error that is noticed')")
        browser.run("1")
        assert browser.errors == ["an error that is noticed"]
    assert not found, "\n".join(found)
