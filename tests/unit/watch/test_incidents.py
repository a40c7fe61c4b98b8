"""Few notifications and none missing, with a clock that the test controls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rates_app.watch.incidents import Incidents
from rates_app.watch.rules import CRASH_LOOP, IMAGE_PULL, OUT_OF_MEMORY, Detection, Rule
from rates_app.watch.settings import WatchSettings

START = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


class IncidentClock:
    """Incidents with a clock, and their notifications."""

    def __init__(self, **settings: float) -> None:
        self.settings = WatchSettings(**settings)  # type: ignore[arg-type]  # numbers, checked by the class
        self.incidents = Incidents("prod", self.settings, lambda page: f"runbooks/{page}.md")
        self.now = START
        self.sent: list[str] = []
        self.facts: list[dict[str, str]] = []

    def update(self, pod: str, *rules: Rule, workload: str = "app") -> None:
        found = [Detection(rule, "rates", workload, pod, "node-1", "app", rule.name, "", self.now) for rule in rules]
        self.incidents.update(pod, found, self.now)

    def wait(self, seconds: float) -> None:
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now = min(end, self.now + timedelta(seconds=5))
            for notification in self.incidents.collect_notifications(self.now, lambda _: ""):
                self.sent.append(f"{notification.state} {notification.key.removeprefix('prod/')}")
                self.facts.append(notification.facts)


def test_a_lasting_problem_has_one_notification_and_one_all_clear() -> None:
    night = IncidentClock()
    night.update("a", CRASH_LOOP)
    night.wait(25)
    assert night.sent == []
    night.wait(3600)
    assert night.sent == ["firing rates/app/crash-loop"]
    night.update("a")
    night.wait(295)
    assert len(night.sent) == 1
    night.wait(10)
    assert night.sent[1:] == ["resolved rates/app/crash-loop"]
    assert night.incidents.open == 0


def test_all_pods_of_a_rollout_are_one_message() -> None:
    night = IncidentClock()
    for number in range(60):
        night.update(f"pod-{number:02d}", IMAGE_PULL)
        night.wait(0.4)
    night.wait(600)
    for number in range(60):
        night.update(f"pod-{number:02d}")
    night.wait(600)
    assert night.sent == ["firing rates/app/image-pull", "resolved rates/app/image-pull"]
    assert night.facts[1]["pods"] == "60 in total"


def test_a_short_problem_is_not_notified() -> None:
    night = IncidentClock()
    night.update("a", CRASH_LOOP)
    night.wait(10)
    night.update("a")
    night.wait(3600)
    assert night.sent == []


def test_slow_flapping_becomes_one_long_incident() -> None:
    night = IncidentClock()
    for _ in range(36):  # six hours in ten-minute cycles: four minutes broken, six minutes healthy
        night.update("a", CRASH_LOOP)
        night.wait(240)
        night.update("a")
        night.wait(360)
    assert len(night.sent) <= 5
    night.wait(3 * 3600)
    assert night.sent[-1] == "resolved rates/app/crash-loop"
    assert night.sent.count("firing rates/app/crash-loop") == night.sent.count("resolved rates/app/crash-loop")


def test_a_storm_becomes_one_notification_after_the_first_few() -> None:
    night = IncidentClock()
    for number in range(40):
        night.update(f"pod-{number}", CRASH_LOOP if number % 2 else OUT_OF_MEMORY, workload=f"app-{number:02d}")
    night.wait(900)
    assert len(night.sent) == 7
    assert all("crash-loop" in line for line in night.sent[:6])  # the most severe come first
    assert night.sent[6] == "firing //storm"
    assert night.facts[6]["problems"].endswith("and 29 more")
    for number in range(39):
        night.update(f"pod-{number}", workload=f"app-{number:02d}")
    night.wait(3600)
    assert len(night.sent) == 7 + 6  # one problem of the storm is left
    night.update("pod-39", workload="app-39")
    night.wait(3600)
    assert night.sent[13:] == ["resolved //storm"]
    assert night.incidents.open == 0


def test_a_restart_repeats_and_loses_no_notification() -> None:
    night = IncidentClock()
    night.update("a", CRASH_LOOP)
    night.update("b", IMAGE_PULL)
    night.wait(60)
    later = IncidentClock()
    later.incidents.restore(night.incidents.snapshot(), later.now)
    later.update("a", CRASH_LOOP)
    later.wait(3600)
    assert later.sent == ["resolved rates/app/image-pull"]
