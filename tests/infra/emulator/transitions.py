"""Take every stack through its life cycle, from the first preview to its removal, and print a table.

``make transitions`` runs them and prints it; ``STACKS="dev prod"`` for some.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rehearsal import stack_config

from .account import Account
from .deployment import Deployment, Outcome

STACKS = ("dev", "staging", "prod", "dev-copy")
EAST, WEST = "us-east-1", "us-west-2"
KINDS = ("create", "update", "replace", "delete")
DATABASE = "aws:rds/instance:Instance"
NODES = "aws:eks/nodeGroup:NodeGroup"

Act = Callable[[Deployment], Outcome]


@dataclass(frozen=True)
class Step:
    """One transition and what it did.

    Attributes:
        fault: Problems after it, other than refused calls; empty if there are none.
    """

    stack: str
    name: str
    outcome: Outcome
    fault: str = ""

    @property
    def ok(self) -> bool:
        """Whether no call was refused and no problem was found."""
        return not self.outcome.refused and not self.fault


def deploy(name: str) -> Deployment:
    """Prepare a stack in a new account; a developer's copy in one where dev is deployed."""
    config = stack_config("dev" if name.startswith("dev-") else name)
    deployment = Deployment(name, config, Account(config["rates:account"]))
    if name.startswith("dev-"):
        deployment.account.create("aws:ecr/repository:Repository", "dev", {"name": "rates-dev"}, EAST)
    return deployment


def run(deployment: Deployment) -> Iterator[Step]:
    """Take a stack through its transitions.

    Args:
        deployment: A stack that is not deployed yet.

    Yields:
        One step a transition, in order. After one that is not ok the rest means little.
    """
    account, config = deployment.account, deployment.config
    domain = config.get("rates:domain")

    def step(name: str, act: Callable[[], Outcome] = deployment.up, fault: Callable[[], str] = lambda: "") -> Step:
        outcome = act()
        return Step(deployment.name, name, outcome, "" if outcome.refused else fault())

    def configured(name: str, fault: Callable[[], str] = lambda: "", **values: Any) -> Step:
        for path, value in values.items():
            deployment.set(path.replace("__", "."), value)
        return step(name, fault=fault)

    if domain:
        deployment.set("delegated", False)
    yield step("preview", deployment.preview)
    yield step("up")
    if domain:
        account.delegate(domain)
        yield configured("domain delegated", delegated=True)
    yield step("second up", fault=lambda: _changed(deployment))
    account.work()
    yield from _routine(deployment, step, configured)
    if "green" in config["rates:clusters"]:
        yield from _colours(configured)
    if "rates:standby" in config:
        yield from _regions(deployment, step, configured)
    elif domain:
        standby = {"region": WEST, "cidr": "10.99.0.0/16", "zoneIds": ["usw2-az1", "usw2-az2", "usw2-az3"]}
        yield configured("standby added", standby={**standby, "nodes": {"min": 1, "max": 3}})
        yield configured("standby protection off", database__protect=False)
        yield configured("standby removed", standby=None)
    deployment.refresh()
    yield step("up after refresh", fault=lambda: _changed(deployment))
    if config["rates:database"]["protect"]:
        yield configured("protection off", database__protect=False)
    account.work()
    yield step("destroy", deployment.destroy, lambda: _left(deployment))


def _routine(deployment: Deployment, step: Callable[..., Step], configured: Callable[..., Step]) -> Iterator[Step]:
    account, config = deployment.account, deployment.config
    account.autoscale(config["rates:nodes"]["max"])
    running = {group.id: group["scalingConfig"]["desiredSize"] for group in account.find(NODES)}

    def kept() -> str:
        less = [g.id for g in account.find(NODES) if g["scalingConfig"]["desiredSize"] < running.get(g.id, 0)]
        return f"nodes were taken from {less}" if less else ""

    yield configured("node maximum raised", kept, nodes__max=config["rates:nodes"]["max"] + 2)
    yield configured("node minimum raised", kept, nodes__min=config["rates:nodes"]["min"] + 1)
    yield configured("instance type", nodes__instanceType="m6a.2xlarge")
    yield configured("database class", lambda: _pending(deployment), database__instanceClass="db.r6g.large")
    yield configured("replica added", database__replicas=config["rates:database"]["replicas"] + 1)
    yield configured("replica removed", database__replicas=config["rates:database"]["replicas"] - 1)
    yield configured("cache type", lambda: _pending(deployment), cache__nodeType="cache.r6g.large")
    account.away.add(config["rates:network"]["zoneIds"][0])
    yield step("a zone is away", fault=lambda: _changed(deployment))
    account.away.clear()


def _colours(configured: Callable[..., Step]) -> Iterator[Step]:
    pinned = stack_config("dev")["rates:kubernetes"]["1.35"]
    yield configured("idle colour scaled up", clusters__green__nodes=None)
    yield configured("versions of 1.36 pinned", kubernetes={"1.35": pinned, "1.36": pinned})
    yield configured("idle colour upgraded", clusters__green__version="1.36")
    for blue, green in ((90, 10), (0, 100), (100, 0)):
        yield configured(f"weights {blue}:{green}", clusters__blue__weight=blue, clusters__green__weight=green)


def _regions(deployment: Deployment, step: Callable[..., Step], configured: Callable[..., Step]) -> Iterator[Step]:
    account = deployment.account
    account.lost.add(EAST)
    deployment.set("standby.promoted", True)

    def promoted() -> str:
        database = deployment.of_type(DATABASE)["standby-database"]
        return "the second region's database still follows" if database["replicateSourceDb"] else ""

    yield step("first region lost", lambda: deployment.up(only=WEST), promoted)
    account.lost.clear()
    yield step("first region back")


def _changed(deployment: Deployment) -> str:
    outcome = deployment.preview()
    return f"changes without a reason: {outcome.touched[:3]}" if outcome.touched else ""


def _pending(deployment: Deployment) -> str:
    waiting = [live.id for live in deployment.account.live.values() if live.pending]
    return f"waits for the maintenance window: {waiting}" if waiting else ""


def _left(deployment: Deployment) -> str:
    kept = dict(deployment.account.kept)
    wanted = deployment.config["rates:database"].get("finalSnapshot", True)
    snapshots, keys = kept.pop("snapshots", []), kept.pop("retained", [])
    # The volumes of a cluster's claims stay: they belong to no stack.
    kept.pop("volumes", None)
    if bool(snapshots) != wanted or bool(keys) != wanted:
        return f"final snapshots {snapshots} and keys {keys}"
    left = [live.id for live in deployment.account.live.values() if live.type.startswith("aws:")]
    left = [one for one in left if one != "rates-dev" and not any(key.endswith(f" {one}") for key in keys)]
    return f"left in the account: {left[:5]} {kept}" if left or kept else ""


def table(steps: list[Step]) -> str:
    """Write steps as a Markdown table."""
    head = ["stack", "transition", *KINDS, "refused by rule, or wrong after it"]
    rows = [
        [
            one.stack,
            one.name,
            *(str(one.outcome.changes.get(kind, 0)) for kind in KINDS),
            ", ".join(one.outcome.refused) or one.fault,
        ]
        for one in steps
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def main() -> None:
    """Run the stacks named on the command line, or all, and print the table."""
    steps = [one for name in sys.argv[1:] or STACKS for one in run(deploy(name))]
    sys.stdout.write(f"{table(steps)}\n")
    sys.exit(0 if all(one.ok for one in steps) else 1)


if __name__ == "__main__":
    main()
