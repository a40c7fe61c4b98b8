"""The incidents name rules, recipients and runbooks that exist, and one of them from its begin to its end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from docs.tables import read_table
from tests.charts.rendering import applications
from tests.charts.test_monitoring import groups, kebab
from tests.incidents.alerting import HEARTBEAT_MINUTES, scaled_routes, scaled_rules
from tests.incidents.catalogue import HEARTBEAT, INCIDENTS, IncidentCase, severity
from tests.incidents.rehearse import PAGE, RECIPIENTS, rehearse_all
from tests.runbooks.pages import FOLDER, ROOT, commands

if TYPE_CHECKING:
    from pathlib import Path

#: Runbooks of alarms that are not an alert of Prometheus.
PAGES = {HEARTBEAT: "watchdog"}


def test_rules_keep_their_meaning_at_another_speed() -> None:
    made = [rule for group in scaled_rules(groups()) for rule in group["rules"]]
    (rule,) = [one for one in made if one.get("alert") == "GenerationSkew"]
    assert "offset 4000ms" in rule["expr"]
    assert rule["for"] == "6000ms"
    windows = {one["record"]: one["expr"] for one in made if "record" in one}
    assert "[120000ms]" in windows["rates:error_ratio:rate1h"]


def test_every_recipient_has_a_stand_in(tmp_path: Path) -> None:
    values = applications("prod")["kube-prometheus-stack"]["spec"]["source"]["helm"]["valuesObject"]
    text = yaml.safe_dump(scaled_routes(values["alertmanager"]["config"], "http://stand-in", tmp_path))
    assert "sns_configs" not in text
    assert {f"http://stand-in/{name}" in text for name in ("pager", "critical", "warning", "heartbeat")} == {True}
    assert "group_wait: 1s" in text


@pytest.mark.parametrize("case", INCIDENTS, ids=lambda case: case.name)
def test_a_runbook_of_its_alerts_has_the_command_that_finds_the_cause(case: IncidentCase) -> None:
    assert {severity(alert) for alert in case.alerts} <= RECIPIENTS.keys()
    pages = [FOLDER / f"{PAGES.get(alert, kebab(alert))}.md" for alert in sorted(case.alerts)]
    named = [" ".join((*command.words, command.given)) for page in pages for command in commands(page)]
    program = " ".join(case.command) or "kubectl"
    assert not case.alerts or any(program in command for command in named), named
    assert case.alerts or case.minutes, "no one is notified, so the incident must last for a while"


def test_the_heartbeats_alarm_begins_as_in_prod() -> None:
    alarm = (ROOT / "pulumi" / "components" / "alarms.py").read_text().partition('name=f"heartbeat-')[2]
    assert f"minutes={HEARTBEAT_MINUTES}," in alarm.partition("Alarm(")[0]


def test_recorded_texts_are_those_of_the_topics() -> None:
    """The pager gets the summary alone, after the environment and the alert."""
    recorded = read_table(PAGE.read_text(), "incidents")
    assert recorded.keys() == {case.name for case in INCIDENTS}
    assert not [name for name, row in recorded.items() if re.search(r"prod \w+: ", row)]


@pytest.mark.demonstration
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", INCIDENTS[:1], ids=lambda case: case.name)
def test_the_right_people_are_notified_and_nobody_else(case: IncidentCase, tmp_path: Path) -> None:
    (result,) = rehearse_all([case], tmp_path)
    assert result.problems == []
