"""Servers for tests: where their data is, and that none of them outlives the run.

The folder belongs to the process that began the run. Workers of pytest-xdist get its path. They start servers
in it when a test first needs one, and share them. The first process stops them when all workers have ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import structlog

from rates_app.local.postgres import PostgresServer
from rates_app.local.redis import RedisServer
from rates_app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.workermanage import WorkerController

# Pulumi's engine starts gRPC's threads in a worker. Their handlers of forks must not run in processes that tests start.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

pytest_plugins = [
    "tests.fixtures.reachable",
    "tests.fixtures.service",
    "tests.fixtures.stores",
    "tests.fixtures.targets",
]

FOLDER = pytest.StashKey[Path]()
#: Longer content is not part of a test's name.
MAX_NAMED_BYTES = 60


# Hypothesis would fail an example for its duration, which on a busy machine says nothing about the code.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", {}).get("servers_folder")
    if given:
        config.stash[FOLDER] = Path(given)
        return
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # handle SIGTERM like Ctrl-C
    folder = Path(tempfile.mkdtemp(prefix="rates-tests-"))
    folder.chmod(0o711)  # for root's servers, which run as another account
    config.stash[FOLDER] = folder


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    node.workerinput["servers_folder"] = str(node.config.stash[FOLDER])


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long content by its argument: bytes of a compressed file contain the time, which differs between workers."""
    return argname if isinstance(val, bytes) and len(val) > MAX_NAMED_BYTES else None


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    folder = config.stash[FOLDER]
    if (folder / "shared").exists():
        primary = PostgresServer(folder / "shared" / "primary")
        for server in (
            RedisServer(folder / "shared" / "redis"),
            PostgresServer(folder / "shared" / "replica", primary=primary),
            primary,
        ):
            server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def servers_folder(pytestconfig: pytest.Config) -> Path:
    """A short folder that the servers' account can reach; removed at the end of the run."""
    return pytestconfig.stash[FOLDER]


@pytest.fixture(autouse=True)
def _own_process_state() -> Iterator[None]:
    """Reset logging and settings, because commands that a test runs in its process configure them."""
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()
    structlog.reset_defaults()
