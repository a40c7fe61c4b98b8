"""The service with the sample's prices, and Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import pytest
from playwright.sync_api import expect, sync_playwright

from drills.pod import Pod, environment_of
from drills.sample import SAMPLE, store_sample_locations
from rates_app.batches.pipeline.engine import ingest
from rates_app.local.server import HOST, free_port
from rates_app.settings import Settings
from rates_app.store.generation import increment_generation
from rates_app.store.tokens import create_token
from tests.fixtures.stores import create_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

    from rates_app.local.postgres import PostgresPair
    from rates_app.local.redis import RedisServer
    from rates_app.store.tokens import Scope

ROOT = Path(__file__).parents[2]
#: Folder of screenshots and other artefacts.
ARTEFACTS = ROOT / "test-artefacts" / "ui"

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES: dict[str, ViewportSize] = {
    "desktop": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}
Scheme = Literal["light", "dark"]

#: Tokens of links to addresses of lane alerts in each state.
ADDRESSES = {
    state: f"{number:064x}" for number, state in enumerate(("unconfirmed", "confirmed", "unsubscribed", "expired"), 1)
}


@dataclass(frozen=True)
class Site:
    """A running service and its stores."""

    url: str
    operations_url: str
    settings: Settings

    def token(self, name: str, *scopes: Scope) -> str:
        with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
            return create_token(connection, name, list(scopes))

    @contextmanager
    def dispatcher(self) -> Iterator[None]:
        """Run the dispatcher."""
        with subprocess.Popen(
            [Path(sysconfig.get_path("scripts")) / "rates", "dispatch"],
            env={
                "PATH": os.environ["PATH"],
                **environment_of(self.settings),
                "RATES_HOST": HOST,
                "RATES_PORT": str(free_port()),
            },
        ) as process:
            try:
                yield
            finally:
                process.terminate()
                process.wait(60)


@pytest.fixture(scope="session")
def site(
    cluster: PostgresPair,
    redis_server: RedisServer,
    worker_id: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A service for this worker, with the sample published. Tests must not change data that others read."""
    with create_database(cluster, f"rates_ui_{worker_id}") as database:
        settings = Settings.model_validate(
            {
                "database_url": database.url,
                "replica_urls": database.replica_urls,
                "redis_url": redis_server.database_url(
                    15 if worker_id == "master" else 14 - int(worker_id.removeprefix("gw"))
                ),
                "data_dir": tmp_path_factory.mktemp("ui"),
                "rate_limit": "1000000/minute",
                "public_batches": True,
            }
        )
        with psycopg.connect(database.url) as connection:
            store_sample_locations(connection)
            increment_generation(connection, None)
            for state, token in ADDRESSES.items():
                stored, days = ("unconfirmed", 0) if state == "expired" else (state, 7)
                connection.execute(
                    """
                    INSERT INTO lane_alert_addresses (owner, address, site, state, token, expires_at)
                    VALUES ('acme', %s, '', %s, decode(%s, 'hex'), now() + %s * interval '1 day')
                    """,
                    (f"{state}@acme.example", stored, token, days),
                )
        batch, _ = ingest(settings, str(SAMPLE / "prices-2021-01.csv.gz"), supplier="sample")
        assert batch.state == "published", batch.failure
        served = Pod(environment_of(settings) | {"RATES_DRAIN_SECONDS": "0"})
        try:
            served.wait_until_ready()
            yield Site(served.url, served.operations_url, settings)
        finally:
            served.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's Chromium or Chrome, for one module. Playwright's event loop disturbs other tests."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail(
            "no Chromium or Chrome on the PATH: 'make test' installs Debian's if root runs it",
            False,
        )
    flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]  # root cannot use the sandbox
    expect.set_options(timeout=15_000)  # the machine may be busy
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=flags)
        yield launched
        launched.close()


@pytest.fixture
def open_context(browser: Browser, site: Site) -> Iterator[Callable[..., BrowserContext]]:
    """Create browser contexts with further options. An error in a page's script fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def make(size: str = "desktop", scheme: Scheme = "light", **options: Any) -> BrowserContext:
        context = browser.new_context(
            base_url=site.url, viewport=SIZES[size], color_scheme=scheme, has_touch=size == "phone", **options
        )
        context.set_default_timeout(15_000)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture(params=[("desktop", "light"), ("phone", "dark")], ids=["desktop-light", "phone-dark"])
def page(request: pytest.FixtureRequest, open_context: Callable[..., BrowserContext]) -> Page:
    """A page on a desktop in light mode, and on a phone in dark mode."""
    return open_context(*request.param).new_page()


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Save a screenshot as an artefact."""

    def save(page: Page, name: str) -> None:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    return save
