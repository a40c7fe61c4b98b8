"""The incidents: what breaks, who must be notified by which alert, and which command of its runbook finds the cause."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.charts.test_monitoring import rules
from tests.incidents import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from drills.stack import RunningStack
    from tests.incidents.world import Surroundings

#: The query of the page on PoolExhausted.
SLOW_QUERIES = (
    "select pid, now() - query_start as age, left(query, 80) from pg_stat_activity"
    " where state = 'active' order by 2 desc limit 10"
)

#: The alarm of CloudWatch on the heartbeat of Alertmanager.
HEARTBEAT = "heartbeat"


@dataclass(frozen=True)
class IncidentCase:
    """One incident.

    Attributes:
        name: Its name in the table.
        fault: A context in which the fault lasts.
        alerts: The alerts that must be notified, each by the recipients of its severity; none for an incident that
            must page no one.
        command: A command of the first alert's runbook that must find the cause meanwhile: ``rates`` with arguments,
            ``rates_psql replica`` with a query, or ``grep`` with a word of Alertmanager's log. None if the runbook's
            commands need a cluster.
        cause: A regular expression that the command's output must match.
        ended_by: The mitigation, with which the fault ends.
        also: Alerts that may be notified, too: they say the same, or they page no one.
        minutes: How long the fault lasts at least, in minutes of prod.
    """

    name: str
    fault: Callable[[RunningStack, Surroundings], AbstractContextManager[None]]
    alerts: frozenset[str]
    command: tuple[str, ...]
    cause: str
    ended_by: str
    also: frozenset[str] = frozenset()
    minutes: int = 0


def severity(alert: str) -> str:
    """Return the severity of an alert or of CloudWatch's alarm on the heartbeat."""
    return "critical" if alert == HEARTBEAT else str(rules()[alert]["labels"]["severity"])


@contextmanager
def _dispatcher_down(stack: RunningStack, world: Surroundings) -> Iterator[None]:
    with world.dispatcher.stopped(), faults.waiting_file(stack):
        yield


@contextmanager
def _pager_misconfigured(stack: RunningStack, world: Surroundings) -> Iterator[None]:
    """Let the pager's service refuse the key, and let a batch fail meanwhile."""
    failed = faults.recorded_batch(stack, "failed", failure="no space left on device")
    with world.alerting.role_down("pager"), failed:
        yield


INCIDENTS = (
    IncidentCase(
        "replica killed",
        lambda stack, _: faults.killed(stack.cluster.replica),
        frozenset({"ReplicaDown"}),
        ("rates", "doctor"),
        r"replica .*PROBLEM",
        "the replica is started",
    ),
    IncidentCase(
        "Redis killed",
        lambda stack, _: faults.killed(stack.redis),
        frozenset({"CacheDown"}),
        ("rates", "doctor"),
        r"Redis .*PROBLEM",
        "Redis is started",
    ),
    IncidentCase(
        "batch refused",
        lambda stack, _: faults.refused_batch(stack),
        frozenset({"BatchRefused"}),
        ("rates", "batches"),
        r"refused\.csv.*refused",
        "a quarter of an hour without another one",
    ),
    IncidentCase(
        "primary frozen",
        lambda stack, _: stack.cluster.primary.frozen(),
        frozenset({"DatabaseDown"}),
        ("rates", "doctor"),
        r"primary .*PROBLEM",
        "the primary continues",
    ),
    IncidentCase(
        "lock held",
        lambda stack, _: faults.locked_table(stack),
        frozenset({"DatabaseErrors", "HighErrorRate"}),
        ("rates", "doctor"),
        r"lock",
        "the session ends",
    ),
    IncidentCase(
        "replica frozen",
        lambda stack, _: stack.cluster.replica.frozen(),
        frozenset({"ReplicaDown"}),
        ("rates", "doctor"),
        r"replica .*PROBLEM",
        "the replica continues",
    ),
    IncidentCase(
        "primary killed",
        lambda stack, _: faults.killed(stack.cluster.primary),
        frozenset({"DatabaseDown"}),
        ("rates", "doctor"),
        r"primary .*PROBLEM",
        "the primary is started",
    ),
    IncidentCase(
        "Redis frozen",
        lambda stack, _: stack.redis.frozen(),
        frozenset({"CacheDown"}),
        ("rates", "doctor"),
        r"Redis .*PROBLEM",
        "Redis continues",
    ),
    IncidentCase(
        "batch stuck",
        lambda stack, _: faults.recorded_batch(stack, "staging", age="40 minutes"),
        frozenset({"BatchStuck"}),
        ("rates", "batches"),
        r"staging-40 minutes\.csv",
        "the batch is refused",
    ),
    IncidentCase(
        "supplier silent",
        lambda stack, _: faults.silent_supplier(stack),
        frozenset({"DeliveryOverdue"}),
        ("rates", "schedule", "list"),
        r"acme.*overdue",
        "the schedule is deleted",
    ),
    IncidentCase(
        "pool full",
        lambda stack, _: faults.slow_queries(stack),
        frozenset({"PoolExhausted"}),
        ("rates_psql", "replica", SLOW_QUERIES),
        r"SELECT day, sum",
        "the queries are fast again",
        # Requests that wait too long for a thread are refused. No two queries are the same.
        also=frozenset({"RequestsShed", "HighErrorRate", "CacheHitRateLow"}),
    ),
    IncidentCase(
        "Redis full",
        lambda stack, _: faults.full_redis(stack),
        frozenset({"CacheDown"}),
        ("rates", "doctor"),
        r"Redis .*nothing is evicted",
        "Redis may evict again",
    ),
    IncidentCase(
        "replica lagging",
        lambda stack, _: faults.paused_replica(stack),
        frozenset({"ReplicaLag"}),
        ("rates", "doctor"),
        r"replica .*seconds behind",
        "the replica replays again",
    ),
    IncidentCase(
        "batch late",
        lambda stack, _: faults.recorded_batch(stack, "staging", deadline="-1 minute"),
        frozenset({"BatchLate"}),
        ("rates", "doctor"),
        r"has missed its deadline",
        "the batch is refused",
    ),
    IncidentCase(
        "batch failed",
        lambda stack, _: faults.recorded_batch(stack, "failed", failure="no space left on device"),
        frozenset({"BatchFailed"}),
        ("rates", "doctor"),
        r"has failed: no space left on device",
        "the batch is refused",
    ),
    IncidentCase(
        "dispatcher down",
        _dispatcher_down,
        frozenset({"DispatcherDown"}),
        ("rates", "doctor"),
        r"file in incoming, one for \d+ minutes",
        "the dispatcher is started",
    ),
    IncidentCase(
        "watcher down",
        lambda _, world: world.alerting.role_down("watcher"),
        frozenset({"WatcherDown"}),
        (),
        "",
        "the watcher is started",
    ),
    IncidentCase(
        "Prometheus down",
        lambda _, world: world.alerting.prometheus_down(),
        frozenset({HEARTBEAT}),
        (),
        "",
        "Prometheus is started",
    ),
    IncidentCase(
        "Alertmanager down",
        lambda _, world: world.alerting.alertmanager_down(),
        frozenset({HEARTBEAT}),
        (),
        "",
        "Alertmanager is started",
    ),
    IncidentCase(
        "pager misconfigured",
        _pager_misconfigured,
        frozenset({"NotificationsUndelivered"}),
        ("grep", "Notify for alerts failed"),
        r"critical/pagerduty.*unexpected status code 400",
        "the pager accepts the key",
        # The topic of the same severity still gets the page's text.
        also=frozenset({"BatchFailed"}),
    ),
    IncidentCase(
        "delivery too small",
        lambda stack, _: faults.small_delivery(stack),
        frozenset({"DeliveryTooSmall"}),
        ("rates", "schedule", "list"),
        r"too-small.*too small",
        "the schedule is deleted",
    ),
    IncidentCase(
        "poisoned delivery",
        lambda stack, _: faults.poisoned_delivery(stack),
        frozenset({"BatchFailed"}),
        ("rates", "doctor"),
        r"of poisoned has failed: given up after 5 attempts: .*cache lookup failed",
        "the fault is fixed, and the file is submitted again",
    ),
    IncidentCase(
        "delivery failing for ever",
        lambda stack, _: faults.failing_delivery(stack),
        frozenset({"DeliveryFailing"}),
        ("rates", "doctor"),
        r"a delivery has failed \d+ times: .*No space left on device",
        "there is space again",
    ),
    IncidentCase(
        "disk full",
        lambda stack, _: faults.full_disk(stack),
        frozenset({"DiskFull"}),
        ("rates", "doctor"),
        r"of the disk are free",
        "space is freed",
    ),
    IncidentCase(
        "slow clients",
        lambda stack, _: faults.slow_clients(stack),
        frozenset(),
        (),
        "",
        "the clients disconnect",
        minutes=15,
    ),
    IncidentCase(
        "ordinary hour",
        lambda stack, _: faults.ordinary_hour(stack),
        frozenset(),
        (),
        "",
        "",
        also=frozenset({"BatchRefused"}),
        minutes=60,
    ),
)
