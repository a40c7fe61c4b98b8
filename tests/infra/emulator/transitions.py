"""Take every stack through its life cycle, from the first preview to its removal, and print a table.

``make transitions`` runs them and prints it; ``STACKS="dev prod"`` for some, ``ENGINE=yes`` on Pulumi's engine, and
``RECORD=yes`` writes it into docs/transitions.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rehearsal import ROOT, stack_config

from .account import Account
from .deployment import Deployment, Outcome

STACKS = ("dev", "staging", "prod", "dev-copy")
EAST, WEST = "us-east-1", "us-west-2"
PAGE = ROOT / "docs" / "transitions.md"
MARKERS = ("<!-- transitions -->", "<!-- /transitions -->")
KINDS = ("create", "update", "replace", "delete")
DATABASE = "aws:rds/instance:Instance"
NODES = "aws:eks/nodeGroup:NodeGroup"
QUEUE = "aws:sqs/queue:Queue"
REPOSITORY = "aws:ecr/repository:Repository"
STANDBY = {
    "region": WEST,
    "cidr": "10.99.0.0/16",
    "zoneIds": ["usw2-az1", "usw2-az2", "usw2-az3"],
    "nodes": {"min": 1, "max": 3},
}

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import date

    from .engine import Stack

    Stackish = Deployment | Stack

Made = TypeVar("Made")


@dataclass(frozen=True)
class Step:
    """One transition and what it did.

    Attributes:
        fault: Problems after it, other than refused calls; empty if there are none.
        note: What the table says about a step without problems.
        expected: Name of the rule that must refuse a call; empty if none may.
    """

    stack: str
    name: str
    outcome: Outcome
    fault: str = ""
    expected: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether exactly the expected rule refused a call, and no problem was found."""
        return self.outcome.refused == ((self.expected,) if self.expected else ()) and not self.fault


def deploy(name: str, make: Callable[[str, dict[str, Any], Account], Made]) -> Made:
    """Prepare a stack in a new account; a developer's copy in one that has dev's registry.

    Args:
        name: Name of the stack.
        make: ``Deployment``, or ``engine.Stack`` for Pulumi's engine.
    """
    config = stack_config("dev" if name.startswith("dev-") else name)
    account = Account(config["rates:account"])
    if name.startswith("dev-"):
        account.create("aws:ecr/repository:Repository", "dev", {"name": "rates-dev"}, EAST)
    return make(name, config, account)


def run(deployment: Stackish) -> Iterator[Step]:
    """Take a stack through its transitions.

    Args:
        deployment: A stack that is not deployed yet.

    Yields:
        One step a transition, in order. After one that is not ok the rest means little.
    """
    account, config = deployment.account, deployment.config
    domain = config.get("rates:domain")

    def step(
        name: str,
        act: Callable[[], Outcome] = deployment.up,
        fault: Callable[[], str] = lambda: "",
        *,
        expected: str = "",
        still: bool = False,
    ) -> Step:
        outcome = act()
        wrong = "" if outcome.refused else fault()
        if still and outcome.touched:
            wrong = f"changes without a reason: {', '.join(outcome.touched[:3])}"
        return Step(deployment.name, name, outcome, wrong, expected)

    def configured(name: str, fault: Callable[[], str] = lambda: "", **values: Any) -> Step:
        for path, value in values.items():
            deployment.set(path.replace("__", "."), value)
        return step(name, fault=fault)

    if domain:
        deployment.set("delegated", False)
    deployment.set("account", "999999999999")
    yield step("another account", expected="account-guard")
    deployment.set("account", account.number)
    yield step("preview", deployment.preview)
    yield from _interrupted(deployment, step)
    if domain:
        account.delegate(domain)
        yield configured("domain delegated", delegated=True)
    yield step("second up", still=True)
    account.work()
    yield from _routine(deployment, step, configured)
    if "green" in config["rates:clusters"]:
        yield from _colours(configured)
    if "rates:standby" in config:
        yield from _regions(deployment, step, configured)
    elif domain:
        yield configured("standby added", standby=STANDBY)
        yield configured("standby protection off", database__protect=False)
        yield configured("standby removed", standby=None)
    yield step("refresh", deployment.refresh, still=True)
    yield step("up after refresh", still=True)
    yield from _drifted(deployment, step)
    if config["rates:database"]["protect"]:
        yield configured("protection off", database__protect=False)
    account.work()
    kept = {str(one) for one in deployment.outputs["keptOnDestroy"]}
    last = step("destroy", deployment.destroy, lambda: left_over(deployment, kept))
    yield replace(last, note=f"keeps {', '.join(sorted(kept))}" if kept else "keeps nothing")


def _interrupted(deployment: Stackish, step: Callable[..., Step]) -> Iterator[Step]:
    """Fail at the first database instance, and continue."""
    quotas = deployment.account.quotas
    wanted, quotas["DB instances"] = quotas["DB instances"], 0
    yield step("up, interrupted by a quota", expected="quota")
    quotas["DB instances"] = wanted
    yield step("up, continued")


def _drifted(deployment: Stackish, step: Callable[..., Step]) -> Iterator[Step]:
    """Delete a queue by hand; a refresh notices, and an update creates it again."""
    queue = deployment.of_type(QUEUE)["incoming"]
    del deployment.account.live[queue.region, queue.type, queue.id]
    yield step("refresh after a deletion by hand", deployment.refresh)
    yield step(
        "repair", fault=lambda: "" if "incoming" in deployment.of_type(QUEUE) else "the queue was not created again"
    )


def _routine(deployment: Stackish, step: Callable[..., Step], configured: Callable[..., Step]) -> Iterator[Step]:
    account, config = deployment.account, deployment.config
    account.autoscale(config["rates:nodes"]["max"])
    running = {group.id: group["scalingConfig"]["desiredSize"] for group in account.find(NODES)}

    def kept() -> str:
        less = [g.id for g in account.find(NODES) if g["scalingConfig"]["desiredSize"] < running.get(g.id, 0)]
        return f"nodes were taken from {less}" if less else ""

    yield configured("node maximum raised", kept, nodes__max=config["rates:nodes"]["max"] + 2)
    yield configured("node minimum raised", kept, nodes__min=config["rates:nodes"]["min"] + 1)
    yield configured("instance type", nodes__instanceType="m6a.2xlarge")
    yield configured("database class", lambda: pending(deployment), database__instanceClass="db.r6g.large")
    yield configured("replica added", database__replicas=config["rates:database"]["replicas"] + 1)
    yield configured("replica removed", database__replicas=config["rates:database"]["replicas"] - 1)
    yield configured("cache type", lambda: pending(deployment), cache__nodeType="cache.r6g.xlarge")
    account.away.add(config["rates:network"]["zoneIds"][0])
    yield step("a zone is away", still=True)
    account.away.clear()


def _colours(configured: Callable[..., Step]) -> Iterator[Step]:
    pinned = stack_config("dev")["rates:kubernetes"]["1.35"]
    yield configured("idle colour scaled up", clusters__green__nodes=None)
    yield configured("versions of 1.36 pinned", kubernetes={"1.35": pinned, "1.36": pinned})
    yield configured("idle colour upgraded", clusters__green__version="1.36")
    for blue, green in ((90, 10), (0, 100), (100, 0)):
        yield configured(f"weights {blue}:{green}", clusters__blue__weight=blue, clusters__green__weight=green)


def _regions(deployment: Stackish, step: Callable[..., Step], configured: Callable[..., Step]) -> Iterator[Step]:
    account = deployment.account
    account.lost.add(EAST)
    yield step("first region lost", expected="region-lost")
    yield step("failover", lambda: fail_over(deployment), lambda: _following(deployment))
    account.lost.clear()
    yield configured("first region back", lambda: _following(deployment), standby__promoted=True)


def fail_over(deployment: Stackish) -> Outcome:
    """Promote as runbooks/playbooks/region-failover.yml does: by calls to the second region, without the program.

    Args:
        deployment: A stack with a second region.

    Returns:
        What it did.
    """
    database = deployment.of_type(DATABASE)["standby-database"]
    inputs = {key: value for key, value in database.inputs.items() if key != "replicateSourceDb"}
    deployment.account.update(database, inputs)
    return Outcome({"update": 1}, touched=(f"update {DATABASE} standby-database",))


def _following(deployment: Stackish) -> str:
    database = deployment.of_type(DATABASE)["standby-database"]
    return "the second region's database still follows" if database["replicateSourceDb"] else ""


def pending(deployment: Stackish) -> str:
    """Describe the changes that wait for a maintenance window; empty if there are none."""
    waiting = [live.id for live in deployment.account.live.values() if live.pending]
    return f"waits for the maintenance window: {waiting}" if waiting else ""


def left_over(deployment: Stackish, wanted: set[str]) -> str:
    """Compare what a destroyed stack leaves in the account with what its output ``keptOnDestroy`` announced.

    Args:
        deployment: A destroyed stack.
        wanted: The entries of the output before its destruction.

    Returns:
        The differences; empty if there are none.
    """
    account = deployment.account
    left = {name: entries for name, entries in account.kept.items() if entries}
    # The volumes of a cluster's claims stay: Kubernetes created them, and docs/tutorials/first-deployment.md says so.
    left.pop("volumes", None)
    # Where the engine lets go of a resource, it still exists in the account.
    left.pop("retained", None)
    found = {entry.partition(" ")[0] for entry in left.pop("snapshots", [])}
    found |= {str(live["arn"] or live.id) for live in account.live.values() if live.type.startswith("aws:")}
    if deployment.name.startswith("dev-"):
        # The registry belongs to dev.
        found -= {str(live["arn"]) for live in account.find(REPOSITORY)}
    problems = [f"left: {', '.join(sorted(found - wanted)[:5])}"] if found - wanted else []
    problems += [f"announced, but gone: {', '.join(sorted(wanted - found))}"] if wanted - found else []
    return "; ".join([*problems, *(f"left: {name} {entries}" for name, entries in left.items())])


def table(steps: Iterable[Step]) -> str:
    """Write steps as a Markdown table."""
    return "\n".join(_rows(steps))


def _rows(steps: Iterable[Step]) -> Iterator[str]:
    head = ["stack", "transition", *KINDS, "refused by rule, or wrong after it"]
    yield _row(head)
    yield _row(["---"] * len(head))
    for one in steps:
        refused = [f"{rule} (expected)" if rule == one.expected else rule for rule in one.outcome.refused]
        numbers = [str(one.outcome.changes.get(kind, 0)) for kind in KINDS]
        yield _row([one.stack, one.name, *numbers, ", ".join(refused) or one.fault or one.note])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _all_steps(names: Iterable[str], *, engine: bool) -> Iterator[Step]:
    for name in names:
        if engine:
            from .engine import Stack  # noqa: PLC0415 - only there is Pulumi's command needed

            with deploy(name, Stack) as stack:
                yield from run(stack)
        else:
            yield from run(deploy(name, Deployment))


def record(rows: Iterable[str], *, today: date) -> None:
    """Write rows into docs/transitions.md, instead of the rows of the same stacks.

    Args:
        rows: Rows of the table, without its head.
        today: The day on which the transitions ran.
    """
    page = PAGE.read_text()
    start, end = (page.index(marker) for marker in MARKERS)
    head, line, *old = page[start + len(MARKERS[0]) : end].strip().splitlines()
    new = [f"{row} {today} |" for row in rows]

    def stack(row: str) -> str:
        return row.split("|")[1].strip()

    recorded = {stack(row) for row in new}
    kept = [row for row in old if stack(row) not in recorded]
    body = sorted([*kept, *new], key=lambda row: STACKS.index(stack(row)))
    PAGE.write_text(page[:start] + "\n".join([MARKERS[0], head, line, *body, ""]) + page[end:])


def main() -> None:
    """Run the stacks named on the command line, or all, and print the table.

    ``--engine`` runs them on Pulumi's engine, ``--record`` writes the table into docs/transitions.md.
    """
    names = [name for name in sys.argv[1:] if not name.startswith("--")] or STACKS
    steps: list[Step] = []

    def noted() -> Iterator[Step]:
        for one in _all_steps(names, engine="--engine" in sys.argv[1:]):
            steps.append(one)
            yield one

    rows = []
    for row in _rows(noted()):
        rows.append(row)
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
    if "--record" in sys.argv[1:]:
        record(rows[2:], today=datetime.now(UTC).date())
    failed = [one for one in steps if not one.ok]
    for one in failed:
        sys.stderr.write(f"{one.stack}, {one.name}: {one.outcome.message or one.fault}\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
