"""The database connections that each stack can need at its limits, against those that its instances accept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from rehearsal import ROOT, stack_config

from docs.tables import format_row, format_table, read_table
from rates_app.settings import Settings
from tests.charts.rendering import IMAGE, of_kind, synced, the
from tests.infra.room import applications, clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rehearsal import Rehearsal

    from tests.charts.rendering import KubernetesManifest

pytestmark = pytest.mark.xdist_group("infra")

PAGE = ROOT / "docs" / "connections.md"
COLUMNS = ("stack", "pods", "processes", "primary", "each replica", "accepted")
#: Memory of the instance classes in GiB (AWS, "Amazon RDS DB instance classes").
MEMORY_GIB = {"db.t4g.medium": 4, "db.t4g.large": 8, "db.r6g.2xlarge": 64}
#: RDS's default of max_connections is LEAST(DBInstanceClassMemory / 9531392, 5000), and DBInstanceClassMemory is less
#: than the memory: the operating system and RDS's processes have the rest.
BYTES_PER_CONNECTION, MOST_CONNECTIONS, SHARE_OF_MEMORY = 9_531_392, 5000, 0.9
#: Share of the accepted connections for pods that are ending, operators, migrations, housekeeping, and RDS itself.
RESERVE = 0.2
#: A driver, the dispatcher's own connections, its metrics and its lane alerts, in addition to the workers that stage.
OF_A_DISPATCHER = 5
LEASE = 1


class Demand(NamedTuple):
    """What the pods of some clusters can open at their limits."""

    pods: int
    processes: int
    primary: int
    replica: int


def accepted(instance_class: str) -> int:
    """Return the connections that RDS accepts by default."""
    memory = MEMORY_GIB[instance_class] * 2**30 * SHARE_OF_MEMORY
    return min(int(memory / BYTES_PER_CONNECTION), MOST_CONNECTIONS)


def settings_of(workload: KubernetesManifest) -> Settings:
    """Return the settings that a workload's first container has in its environment."""
    (container, *_) = workload["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    fields = {
        name: given[f"RATES_{name.upper()}"] for name in Settings.model_fields if f"RATES_{name.upper()}" in given
    }
    return Settings.model_validate({"database_url": "postgresql://database/rates", **fields})


def most_pods(manifests: list[KubernetesManifest]) -> int:
    """Return the pods of the service that can exist at a time: the autoscaler's limit, and new ones in a release."""
    limit = int(the(manifests, "HorizontalPodAutoscaler")["spec"]["maxReplicas"])
    (workload,) = [*of_kind(manifests, "Deployment"), *of_kind(manifests, "Rollout")]
    strategy: dict[str, Any] = workload["spec"]["strategy"]
    canary = strategy.get("canary", {})
    if "blueGreen" in strategy or "trafficRouting" in canary:
        return 2 * limit
    surge = (strategy.get("rollingUpdate") or canary)["maxSurge"]
    return limit + math.ceil(limit * int(surge.rstrip("%")) / 100)


def serving(manifests: list[KubernetesManifest]) -> Demand:
    """Return the demand of the service."""
    (workload,) = [*of_kind(manifests, "Deployment"), *of_kind(manifests, "Rollout")]
    settings, pods = settings_of(workload), most_pods(manifests)
    processes = pods * settings.workers
    return Demand(pods, processes, processes * (settings.pool_size + LEASE), processes * settings.pool_size)


def ingesting(manifests: list[KubernetesManifest]) -> int:
    """Return the connections to the primary of dispatchers, and of Spark's executors, one for each core."""
    dispatcher = the(manifests, "Deployment", "rates-dispatcher")
    settings = settings_of(dispatcher)
    quota = the(manifests, "ResourceQuota")["spec"]["hard"]
    if dispatcher["spec"]["replicas"] == 0:
        return 0
    return int(dispatcher["spec"]["replicas"]) * (settings.ingest_workers + OF_A_DISPATCHER) + int(
        quota["requests.cpu"]
    )


def demands(stack: Rehearsal) -> Iterator[tuple[str, Demand]]:
    """Yield the demand by region, of which each has its own instances: ``""``, or ``standby``."""
    regions: dict[str, list[Demand]] = {}
    for cluster in clusters(stack):
        made = applications(cluster.registration)
        rates, ingest = (
            synced(made[chart]["source"], IMAGE, namespace="rates") for chart in ("rates-app", "spark-ingest")
        )
        own = serving(rates)
        region = "standby" if "standby" in cluster.name else ""
        regions.setdefault(region, []).append(own._replace(primary=own.primary + ingesting(ingest)))
    for region, found in sorted(regions.items()):
        yield region, Demand(*map(sum, zip(*found, strict=True)))


def test_every_instance_accepts_the_connections_of_all_pods(
    dev: Rehearsal, staging: Rehearsal, prod: Rehearsal
) -> None:
    rows = []
    for stack in (dev, staging, prod):
        limit = accepted(stack_config(stack.stack)["rates:database"]["instanceClass"])
        for region, demand in demands(stack):
            name = " ".join(filter(None, (stack.stack, region)))
            most = max(demand.primary, demand.replica)
            assert most <= limit * (1 - RESERVE), f"{name}: {demand} of {limit}: lower pool_size or maxReplicas"
            rows.append(format_row((name, *(f"{number:,}" for number in (*demand, limit)))))
    table = format_table(COLUMNS, rows, numbers=range(1, len(COLUMNS)))
    assert list(read_table(PAGE.read_text(), "connections").values()) == rows, f"copy into {PAGE.name}:\n{table}"
