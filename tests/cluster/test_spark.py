"""Big batches on a real cluster: the dispatcher, the real spark-operator, and executors on several nodes."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.ingest import EXECUTORS, Ingest, generate
from tests.cluster.kube import ready, wait_for
from tests.cluster.release import Release
from tests.cluster.runbooks import RunbookShell, Where, chosen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.kube import Namespace
    from tests.cluster.results import Measurements
    from tests.cluster.settings import ClusterTestSettings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

ROWS = 2_000_000


@pytest.fixture(scope="module")
def ingest(stores: Namespace, settings: ClusterTestSettings) -> Iterator[Ingest]:
    """The dispatcher and the operator, next to one pod of the service."""
    release = Release(stores, settings.image, more={"replicas": 1, "priorityClass": {"create": False, "name": ""}})
    release.upgrade("1")
    release.wait_for_version("1")
    ingest = Ingest(release, settings)
    ingest.install("1")
    yield ingest
    ingest.remove()
    release.uninstall()


def test_executors_that_come_and_go_ingest_a_file(ingest: Ingest, tmp_path: Path, report: Measurements) -> None:
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
    # Most executors are idle while the batch waits for its publication.
    wait_for("idle executors have ended", lambda: len(ingest.pods(batch, "executor")) == 1, 300)
    assert ingest.loaded(batch).state != "published"
    ingest.let_publish(held)
    wait_for("the file is archived", lambda: not ingest.objects("incoming"), 300)

    assert ingest.loaded(batch) == expected
    name = f"acme/{batch}-{file.name}"
    assert ingest.objects("processed") == [name, f"{name}.report.json"]
    report_file = json.loads(ingest.s3.get_object(Bucket="processed", Key=f"{name}.report.json")["Body"].read())
    assert (report_file["state"], report_file["rows"]) == ("published", ROWS)
    assert most > EXECUTORS["initial"], "no executor was added"
    assert len(nodes) > 1, "all executors ran on one node"
    report.seen(
        "Spark, as it comes",
        f"{ROWS:,} rows staged {staged:.0f} s after they were dropped, 1 to {most} executors on {len(nodes)} nodes, "
        "then 1 again",
    )


# Each case has a different seed, because known content returns its earlier batch.
@pytest.mark.parametrize(("victim", "seed"), [("executor", 2), ("driver", 3), ("operator", 4)])
def test_a_batch_is_published_once_whatever_is_killed(
    ingest: Ingest, victim: str, seed: int, tmp_path: Path, report: Measurements
) -> None:
    file = tmp_path / f"{victim}-killed.csv"
    expected = generate(file, ROWS, seed=seed)
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
    wait_for("the file is archived", lambda: not ingest.objects("incoming"), 900)
    report.seen(
        f"Spark, {victim} killed",
        f"at {done} of {of} slices; archived {time.monotonic() - began:.0f} s later, {ROWS:,} rows once",
    )
    assert ingest.loaded(batch) == expected
    assert ingest.attempts(file) == 1


@pytest.fixture
def version_1_again(ingest: Ingest) -> Iterator[None]:
    yield
    ingest.install("1")


def _some_are_staged(ingest: Ingest, batch: int) -> None:
    def some() -> bool:
        done, of = ingest.staged(batch)
        assert done < of or of == 0, "the batch is too small: it was staged before anything could be done"
        return done > 0

    wait_for("some slices are staged", some, 600)


@pytest.mark.usefixtures("version_1_again")
def test_an_upgraded_dispatcher_completes_its_batch(ingest: Ingest, tmp_path: Path, report: Measurements) -> None:
    """The old pod completes its batch, while the new one takes the next delivery."""
    ingest.install("1", spark_above_rows=ROWS)
    (old,) = (name for name, pod in ingest.dispatchers().items() if ready(pod))
    file = tmp_path / "in-process.csv"
    expected = generate(file, ROWS // 2, seed=21)
    held = ingest.hold_publishing()
    ingest.drop(file)
    batch = ingest.batch_of(file)
    _some_are_staged(ingest, batch)
    ingest.install("next", spark_above_rows=ROWS)
    wait_for("the old dispatcher is terminating", lambda: "deletionTimestamp" in ingest.dispatchers()[old]["metadata"])
    assert ingest.loaded(batch).state != "published"
    ingest.let_publish(held)
    wait_for("the file is archived", lambda: not ingest.objects("incoming"), 300)
    wait_for("the old dispatcher has ended", lambda: old not in ingest.dispatchers())
    (new,) = ingest.dispatchers()
    assert "delivery_archived" not in ingest.namespace.kubectl("logs", new), "the old dispatcher left it to the new one"
    assert (ingest.loaded(batch), ingest.attempts(file)) == (expected, 1)
    report.seen(
        f"batch of {expected.rows:,} rows during an upgrade of the dispatcher that loads it",
        "published and archived by the pod that began it, every row once",
    )


@pytest.mark.usefixtures("version_1_again")
def test_an_upgrade_of_the_dispatcher_does_not_disturb_a_batch_on_spark(
    ingest: Ingest, tmp_path: Path, report: Measurements
) -> None:
    file = tmp_path / "on-spark.csv"
    expected = generate(file, ROWS, seed=22)
    held = ingest.hold_publishing()
    ingest.drop(file)
    batch = ingest.batch_of(file)
    _some_are_staged(ingest, batch)
    (driver,) = ingest.pods(batch, "driver")
    old = set(ingest.dispatchers())
    ingest.install("next")
    wait_for("the old dispatcher has ended", lambda: not old & set(ingest.dispatchers()))
    assert ingest.loaded(batch).state != "published"
    ingest.let_publish(held)
    wait_for("the file is archived", lambda: not ingest.objects("incoming"), 300)
    drivers = ingest.namespace.list("pods", f"rates.io/batch={batch},spark-role=driver")
    assert {pod["metadata"]["uid"] for pod in drivers} == {driver["metadata"]["uid"]}
    assert (ingest.loaded(batch), ingest.attempts(file)) == (expected, 1)
    report.seen(
        f"batch of {ROWS:,} rows on Spark during an upgrade of the dispatcher",
        "published by the driver that began it, archived by the new dispatcher, every row once",
    )


def test_commands_of_runbooks_find_a_batch_on_spark(ingest: Ingest, tmp_path: Path, report: Measurements) -> None:
    name = str(ingest.namespace.list("sparkapplications")[0]["metadata"]["name"])
    operator = RunbookShell(tmp_path, ingest.namespace.name, {"NAME": name, "BATCH": name.removeprefix("batch-")})
    commands = chosen(Where.SPARK)
    operator.run_all(commands)
    report.seen("commands of runbooks, after batches on Spark", f"{len(commands)} run, each found something")
