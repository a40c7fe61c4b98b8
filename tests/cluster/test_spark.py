"""Big batches on a real cluster: the dispatcher, the real spark-operator, and executors on several nodes."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.ingest import EXECUTORS, Ingest, generate
from tests.cluster.kube import wait_for
from tests.cluster.release import Release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.kube import Namespace
    from tests.cluster.settings import ClusterSettings

    Report = Callable[[str, str], None]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

ROWS = 2_000_000


@pytest.fixture(scope="module")
def ingest(stores: Namespace, settings: ClusterSettings) -> Iterator[Ingest]:
    """The dispatcher and the operator, beside one pod of the service."""
    release = Release(stores, settings.image, more={"replicas": 1, "priorityClass": {"create": False, "name": ""}})
    release.upgrade("1")
    release.wait_for_version("1")
    ingest = Ingest(release, settings)
    ingest.install("1")
    yield ingest
    ingest.remove()
    release.uninstall()


def test_a_dropped_file_is_loaded_by_executors_that_come_and_go(ingest: Ingest, tmp_path: Path, report: Report) -> None:
    file = tmp_path / "as-it-comes.csv"
    expected = generate(file, ROWS, seed=1)
    held = ingest.hold_publishing()
    began = time.monotonic()
    ingest.drop(file)
    batch = ingest.batch_of(file)
    most = 0
    nodes: set[str] = set()

    def whole() -> bool:
        nonlocal most
        pods = ingest.pods(batch, "executor")
        most = max(most, len(pods))
        nodes.update(pod["spec"]["nodeName"] for pod in pods)
        done, of = ingest.staged(batch)
        return 0 < done == of

    wait_for("all slices are staged", whole, 900)
    staged = time.monotonic() - began
    # Nothing is left for most of them while the batch waits to be published.
    wait_for("idle executors have ended", lambda: len(ingest.pods(batch, "executor")) == 1, 300)
    assert ingest.loaded(batch).state != "published"
    ingest.let_publish(held)
    wait_for("the file is put away", lambda: not ingest.objects("incoming"), 300)

    assert ingest.loaded(batch) == expected
    name = f"acme/{batch}-{file.name}"
    assert ingest.objects("processed") == [name, f"{name}.report.json"]
    told = json.loads(ingest.s3.get_object(Bucket="processed", Key=f"{name}.report.json")["Body"].read())
    assert (told["state"], told["rows"]) == ("published", ROWS)
    assert most > EXECUTORS["initial"], "no executor was added"
    assert len(nodes) > 1, "all executors ran on one node"
    report(
        "Spark, as it comes",
        f"{ROWS:,} rows staged {staged:.0f} s after they were dropped, 1 to {most} executors on {len(nodes)} nodes, "
        "then 1 again",
    )


@pytest.mark.parametrize("victim", ["executor", "driver", "operator"])
def test_whatever_is_killed_the_batch_ends_whole_and_exactly_once(
    ingest: Ingest, victim: str, tmp_path: Path, report: Report
) -> None:
    file = tmp_path / f"{victim}-killed.csv"
    expected = generate(file, ROWS, seed=len(victim))
    ingest.drop(file)
    batch = ingest.batch_of(file)

    def in_the_middle() -> bool:
        done, of = ingest.staged(batch)
        assert done < of or of == 0, "the batch is too small: it was staged before anything could be killed"
        return done >= of // 6 > 0

    wait_for("some slices are staged", in_the_middle, 600)
    if victim == "operator":
        killed = ingest.namespace.list("pods", "app.kubernetes.io/name=spark-operator")
    else:
        killed = ingest.pods(batch, victim)[:1]
    assert killed
    for pod in killed:
        ingest.kill(pod)
    done, of = ingest.staged(batch)
    began = time.monotonic()
    wait_for("the file is put away", lambda: not ingest.objects("incoming"), 900)
    report(
        f"Spark, {victim} killed",
        f"at {done} of {of} slices; put away {time.monotonic() - began:.0f} s later, {ROWS:,} rows once",
    )
    assert ingest.loaded(batch) == expected
    ((attempts,),) = ingest.query(f"SELECT count(*) FROM batches WHERE name = '{file.name}'")
    assert attempts == 1
