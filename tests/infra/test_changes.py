"""Single changes of dev in the emulated account, without the engine; test_engine.py runs its whole life."""

from __future__ import annotations

from typing import Any

import pytest
from rehearsal import stack_config

from tests.infra.emulator import rules
from tests.infra.emulator.account import Account
from tests.infra.emulator.deployment import Deployment, Outcome
from tests.infra.emulator.transitions import EAST, STANDBY, fail_over, left_over, pending

pytestmark = pytest.mark.xdist_group("infra")

DOMAIN = "rates.rehearsal.test"


def undeployed(**values: Any) -> Deployment:
    """Return dev, with settings by their paths, dots as two underscores."""
    config = stack_config("dev")
    deployment = Deployment("dev", config, Account(config["rates:account"]))
    for path, value in values.items():
        deployment.set(path.replace("__", "."), value)
    return deployment


def accepted(outcome: Outcome) -> Outcome:
    """Return an outcome that no rule refused a part of."""
    assert outcome.refused == (), outcome.message
    return outcome


def deployed(**values: Any) -> Deployment:
    deployment = undeployed(**values)
    accepted(deployment.up())
    return deployment


def change(deployment: Deployment, **values: Any) -> Outcome:
    for path, value in values.items():
        deployment.set(path.replace("__", "."), value)
    return accepted(deployment.up())


def sizes(deployment: Deployment) -> dict[str, int]:
    """Return the running nodes of each group."""
    groups = deployment.of_type(rules.NODES)
    return {name: int(group["scalingConfig"]["desiredSize"]) for name, group in groups.items()}


def test_a_first_deployment_needs_nothing_that_does_not_exist_yet() -> None:
    """Neither a cluster nor a delegated domain."""
    deployment = undeployed(domain=DOMAIN)
    accepted(deployment.preview())
    accepted(deployment.up())
    assert deployment.outputs["nameServers"]
    assert deployment.outputs["url"].startswith("http://")
    assert accepted(deployment.up()).touched == ()


def test_a_changed_limit_takes_no_nodes_away() -> None:
    deployment = deployed()
    change(deployment, nodes__min=4)
    assert sizes(deployment) == {"blue-serving": 4, "blue-spark": 0}
    deployment.account.autoscale(5)
    change(deployment, nodes__max=7)
    assert sizes(deployment) == {"blue-serving": 5, "blue-spark": 0}


def test_a_changed_class_does_not_wait_for_a_maintenance_window() -> None:
    deployment = deployed()
    change(deployment, database__instanceClass="db.r6g.large", cache__nodeType="cache.r6g.large")
    assert pending(deployment) == ""


def test_a_zone_that_is_away_changes_nothing() -> None:
    deployment = deployed()
    deployment.account.away.add("use1-az1")
    assert accepted(deployment.up()).touched == ()


def test_a_running_stack_gets_and_loses_a_second_region() -> None:
    deployment = undeployed(domain=DOMAIN, delegated=True, database__finalSnapshot=True)
    deployment.account.delegate(DOMAIN)
    accepted(deployment.up())
    change(deployment, standby=STANDBY)
    change(deployment, standby=None)


def test_a_promoted_database_stays_promoted() -> None:
    deployment = undeployed(domain=DOMAIN, delegated=True, standby=STANDBY)
    deployment.account.delegate(DOMAIN)
    accepted(deployment.up())
    deployment.account.lost.add(EAST)
    fail_over(deployment)
    deployment.account.lost.clear()
    accepted(deployment.refresh())  # the state then knows that the database follows nothing
    change(deployment, standby__promoted=True)
    assert not deployment.of_type(rules.DATABASE)["standby-database"]["replicateSourceDb"]


def test_destroy_leaves_what_it_announces_and_can_be_repeated() -> None:
    deployment = undeployed(database__finalSnapshot=True)
    kept: set[str] = set()
    for _ in range(2):
        accepted(deployment.up())
        kept |= {str(one) for one in deployment.outputs["keptOnDestroy"]}
        deployment.account.work()
        accepted(deployment.destroy())
    assert len(kept) == 4
    assert left_over(deployment, kept) == ""


def test_a_protected_stack_is_not_destroyed() -> None:
    deployment = deployed(database__protect=True)
    account = deployment.account
    for live in (*account.find(rules.CLUSTER), *account.find(rules.BALANCER)):
        assert live["deletionProtection"] or live["enableDeletionProtection"], live.id
    protected = {bool(live["replicateSourceDb"]): live["deletionProtection"] for live in account.find(rules.DATABASE)}
    assert protected == {False: True, True: False}
    assert all(one.protect for one in deployment.state.values() if one.live.type == rules.KEY)
    assert deployment.destroy().refused
