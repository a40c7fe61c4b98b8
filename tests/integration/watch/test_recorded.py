"""Replay recorded events of a real cluster with their times: exactly the expected alerts fire."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rates_app.watch.incidents import Incidents
from rates_app.watch.rules import MIGRATION_FAILED, NOT_STARTED, RULES, SPARK_FAILED, pod_detections
from rates_app.watch.settings import WatchSettings

if TYPE_CHECKING:
    from rates_app.notify.alert import Alert
    from rates_app.watch.rules import Detection

FOLDER = Path(__file__).parent / "recorded"
RECORDED = [json.loads(line) for line in (FOLDER / "kubernetes-1.34.jsonl").read_text().splitlines()]
SECOND = timedelta(seconds=1)


class Replay:
    """The recording, second by second, with a check of all pods each second, as in the watcher."""

    def __init__(self, **settings: float) -> None:
        self.settings = WatchSettings(**settings)  # type: ignore[arg-type]  # numbers, checked by the class
        self.incidents = Incidents("test", self.settings, lambda page: f"runbooks/{page}.md")
        self.pods: dict[str, Any] = {}
        self.reported: list[str] = []
        self.alerts: dict[str, Alert] = {}
        self.now = datetime.fromisoformat(RECORDED[0]["at"])
        self.findings: list[Detection] = []

    def run(self, seconds_after: int = 0) -> list[str]:
        for event in RECORDED:
            self._wait(datetime.fromisoformat(event["at"]))
            uid = event["object"]["metadata"]["uid"]
            if event["type"] == "DELETED":
                self.pods.pop(uid)
            else:
                self.pods[uid] = event["object"]
            self._look(uid)
        self._wait(self.now + seconds_after * SECOND)
        return self.reported

    def _wait(self, until: datetime) -> None:
        while self.now < until:
            self.now += SECOND
            for uid in self.pods:
                self._look(uid)
            if self.incidents.advance(self.now, lambda _: ""):
                for alert in self.incidents.alerts(self.now):
                    state = "resolved" if alert.resolved(self.now) else "firing"
                    line = f"{state} {alert.labels['workload']}/{alert.labels['alertname']}"
                    if line not in self.reported:
                        self.reported.append(line)
                        self.alerts.setdefault(alert.labels["workload"], alert)

    def _look(self, uid: str) -> None:
        found = pod_detections(self.pods[uid], self.now, self.settings) if uid in self.pods else []
        self.findings += found
        self.incidents.update(uid, found, self.now)


def test_each_problem_has_one_begin_and_one_end() -> None:
    replay = Replay(pending_seconds=60)
    assert replay.run(seconds_after=900) == [
        "firing memory/ContainerOutOfMemory",
        "firing config/ContainerConfigError",
        "firing image/ImagePullFailure",
        "firing crash/PodCrashLoop",
        "firing disk/PodEvicted",
        "firing room/PodUnschedulable",
        "resolved crash/PodCrashLoop",
        "resolved image/ImagePullFailure",
        "resolved memory/ContainerOutOfMemory",
        "resolved config/ContainerConfigError",
        "resolved room/PodUnschedulable",
        "resolved disk/PodEvicted",
    ]
    assert replay.incidents.firing == 0


def test_an_alert_contains_the_clusters_message() -> None:
    replay = Replay(pending_seconds=60)
    replay.run()
    texts = {workload: alert.annotations["description"] for workload, alert in replay.alerts.items()}
    assert 'Message: secret "not-there" not found.' in texts["config"]
    assert texts["disk"].endswith('Message: Usage of EmptyDir volume "tmp" exceeds the limit "10Mi".')
    assert "Insufficient cpu" in texts["room"]
    assert texts["image"].count("image-") == 2
    assert "Reason: OOMKilled." in texts["memory"]
    assert all(re.search(r"Nodes: n[123]\.", texts[name]) for name in ("config", "crash", "disk", "memory"))


def test_the_recording_shows_every_rule_of_pods() -> None:
    replay = Replay(pending_seconds=60)
    replay.run()
    assert {finding.rule for finding in replay.findings} == set(RULES) - {SPARK_FAILED, MIGRATION_FAILED, NOT_STARTED}
    reasons = {finding.reason for finding in replay.findings}
    assert reasons == {
        "CrashLoopBackOff", "CreateContainerConfigError", "ErrImagePull", "ImagePullBackOff", "OOMKilled", "Evicted",
        "Unschedulable",
    }  # fmt: skip


@pytest.mark.parametrize("story", ["crash", "bad-rollout"])
def test_written_stories_have_the_form_of_recorded_ones(story: str) -> None:
    """A status in a written story has only fields of real ones with the same container state."""
    lines = [json.loads(line) for line in (FOLDER / f"{story}.jsonl").read_text().splitlines()]
    written = {form for line in lines for form in forms(line["object"]["status"])}
    assert written <= {form for event in RECORDED for form in forms(event["object"]["status"])}


def forms(node: Any, path: str = "") -> set[str]:
    """Return the paths to every value; ids were removed from the recording."""
    if isinstance(node, dict):
        return {
            form
            for key, value in node.items()
            if key not in {"imageID", "containerID"}
            for form in forms(value, f"{path}.{key}")
        }
    if isinstance(node, list):
        return {form for value in node for form in forms(value, path)}
    return {path}
