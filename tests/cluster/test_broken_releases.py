"""Releases that cannot start get no traffic, and the pod watcher reports the cause."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cluster.kube import wait_for
from tests.cluster.load import LoadPod
from tests.cluster.release import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.release import Release
    from tests.cluster.results import Measurements

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


@contextmanager
def watching(release: Release, folder: Path, **environment: str) -> Iterator[Callable[[str], bool]]:
    """Run the pod watcher on the release's namespace and return a function that searches its log.

    Args:
        release: The release.
        folder: For the log.
        environment: Further settings of the watcher.
    """
    path = folder / "watcher.log"
    with path.open("w") as log:
        watcher = subprocess.Popen(
            [sys.executable, "-c", "from rates_app.cli import main; main()", "watch-pods"],
            env={
                **os.environ,
                "RATES_WATCH_NAMESPACES": release.namespace.name,
                "RATES_WATCH_WAIT_SECONDS": "2",
                "RATES_WATCH_PORT": "0",
                **environment,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for("the watcher", lambda: "exporter_started" in path.read_text())
        yield lambda text: text in path.read_text()
    finally:
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait(60) == 0, path.read_text()


@pytest.mark.parametrize(
    ("tag", "reported"),
    [("crashing", ("pod-crash-loop", "CrashLoopBackOff")), ("missing", ("image-pull-failure", "ImagePull"))],
)
def test_a_release_that_cannot_start_takes_no_traffic(
    rolling: Release, tmp_path: Path, report: Measurements, tag: str, reported: tuple[str, ...]
) -> None:
    with LoadPod(rolling.namespace, f"{rolling.image}:1") as load, watching(rolling, tmp_path) as is_reported:
        rolling.upgrade(tag, migration={"enabled": False}, sampleData={"folder": ""})
        wait_for(f"an alert about {' and '.join(reported)}", lambda: all(map(is_reported, reported)), 600)
        load.pass_requests(200)
        assert rolling.serving() == {"1"}
        rolling.rollback()
        rolling.wait_for_version("1")
        tally = load.end()
    report.load(f"release {tag}, never ready", tally)
    assert (tally.failed, tally.wrong) == (0, 0), tally.examples


def test_a_broken_migration_stops_the_release_and_changes_nothing(
    rolling: Release, tmp_path: Path, report: Measurements
) -> None:
    tables = (
        "import psycopg; from rates_app.settings import load_settings; "
        "url = load_settings().database_url.get_secret_value(); "
        "print(psycopg.connect(url).execute(\"SELECT to_regclass('half_made')\").fetchone()[0])"
    )
    with LoadPod(rolling.namespace, f"{rolling.image}:1") as load, watching(rolling, tmp_path) as is_reported:
        with pytest.raises(AssertionError, match="pre-upgrade hooks failed"):
            rolling.upgrade("broken-migration")
        assert rolling.pods("broken-migration") == []
        assert rolling.namespace.python(f"deployment/{NAME}", tables).strip() == "None"
        wait_for("an alert about the migration", lambda: is_reported("migration-failed"))
        load.pass_requests(200)
        tally = load.end()
    rolling.upgrade("1")
    rolling.wait_for_version("1")
    report.load("release with a migration that fails", tally)
    assert (tally.failed, tally.wrong) == (0, 0), tally.examples
