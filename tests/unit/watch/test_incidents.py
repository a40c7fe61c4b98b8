"""One alert per problem and workload, with a clock that the test controls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rates_app.watch.incidents import END_REPEATED, VALID, Incidents
from rates_app.watch.rules import CRASH_LOOP, IMAGE_PULL, Detection, Rule
from rates_app.watch.settings import WatchSettings

START = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


class IncidentClock:
    """Incidents with a clock, and the begins and ends of their alerts."""

    def __init__(self) -> None:
        self.incidents = Incidents("prod", WatchSettings(), lambda page: f"runbooks/{page}.md")
        self.now = START
        self.seen: list[str] = []

    def update(self, pod: str, *rules: Rule, workload: str = "app") -> None:
        found = [Detection(rule, "rates", workload, pod, "node-1", "app", rule.name, "", self.now) for rule in rules]
        self.incidents.update(pod, found, self.now)

    def wait(self, seconds: float) -> None:
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now = min(end, self.now + timedelta(seconds=5))
            if self.incidents.advance(self.now, lambda _: "last line"):
                states = {
                    f"{alert.labels['alertname']} {'ended' if alert.resolved(self.now) else 'fires'}"
                    for alert in self.incidents.alerts(self.now)
                }
                self.seen += sorted(states - set(self.seen[-len(states) :]))


def test_a_lasting_problem_is_one_alert_from_its_begin_to_its_end() -> None:
    night = IncidentClock()
    night.update("a", CRASH_LOOP)
    night.wait(25)
    assert night.incidents.alerts(night.now) == []
    night.wait(3600)
    (alert,) = night.incidents.alerts(night.now)
    assert alert.labels == {
        "alertname": "PodCrashLoop",
        "severity": "critical",
        "environment": "prod",
        "namespace": "rates",
        "workload": "app",
    }
    assert alert.annotations == {
        "summary": "app: a container keeps crashing",
        "description": f"{CRASH_LOOP.meaning} Pods: a. Nodes: node-1. Container: app. Reason: PodCrashLoop.",
        "runbook_url": "runbooks/pod-crash-loop.md",
        "log": "last line",
    }
    assert (alert.starts_at, alert.ends_at) == (START, night.now + VALID)
    night.update("a")
    night.wait(595)
    assert night.incidents.firing == 1
    night.wait(10)
    (ended,) = night.incidents.alerts(night.now)
    assert ended.resolved(night.now)
    assert (ended.labels, ended.starts_at) == (alert.labels, alert.starts_at)
    assert night.incidents.firing == 0


def test_the_end_is_sent_again_until_alertmanager_must_have_it() -> None:
    night = IncidentClock()
    night.update("a", CRASH_LOOP)
    night.wait(60)
    night.update("a")
    night.wait(600 + END_REPEATED.total_seconds() - 10)
    assert len(night.incidents.alerts(night.now)) == 1
    night.wait(30)
    assert night.incidents.alerts(night.now) == []


def test_all_pods_of_a_rollout_are_one_alert() -> None:
    night = IncidentClock()
    for number in range(60):
        night.update(f"pod-{number:02d}", IMAGE_PULL)
        night.wait(0.4)
    night.wait(600)
    (alert,) = night.incidents.alerts(night.now)
    assert "Pods: pod-00, pod-01, pod-02, pod-03, pod-04 and 55 more." in alert.annotations["description"]
    for number in range(60):
        night.update(f"pod-{number:02d}")
    night.wait(700)
    assert night.seen == ["ImagePullFailure fires", "ImagePullFailure ended"]


def test_a_short_problem_is_no_alert() -> None:
    night = IncidentClock()
    night.update("a", CRASH_LOOP)
    night.wait(10)
    night.update("a")
    night.wait(3600)
    assert night.seen == []


def test_slow_flapping_is_one_long_alert() -> None:
    night = IncidentClock()
    for _ in range(36):  # six hours in ten-minute cycles: four minutes broken, six minutes healthy
        night.update("a", CRASH_LOOP)
        night.wait(240)
        night.update("a")
        night.wait(360)
    night.wait(3600)
    assert night.seen == ["PodCrashLoop fires", "PodCrashLoop ended"]


def test_a_restarted_watcher_raises_the_same_alert_again() -> None:
    first, second = IncidentClock(), IncidentClock()
    first.update("a", CRASH_LOOP)
    first.wait(60)
    second.now = first.now
    found = Detection(CRASH_LOOP, "rates", "app", "a", "node-1", "app", CRASH_LOOP.name, "", START)
    second.incidents.update("a", [found], second.now)
    second.wait(60)
    assert second.incidents.alerts(second.now) == [
        alert.model_copy(update={"ends_at": second.now + VALID}) for alert in first.incidents.alerts(first.now)
    ]
    assert timedelta(seconds=WatchSettings().wait_seconds) < VALID  # Alertmanager has not ended it meanwhile
