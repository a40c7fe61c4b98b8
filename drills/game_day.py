"""Break one part of a stack in AWS, measure from outside how long clients notice, and compare with the objective.

A game day runs each fault in staging, with the on-call person at the pager: ``python -m drills.game_day --help``.
runbooks/game-day.md has the preparation and the alerts to expect.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import boto3
import httpx
import orjson
import typer

from docs.tables import format_row
from drills.report import promise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    #: Outputs of a stack, as ``pulumi stack output --json`` prints them.
    Outputs = Mapping[str, Any]

#: Seconds without a failed request after which the fault is over, and between two requests.
CALM_SECONDS, PAUSE_SECONDS = 60.0, 0.5

#: A request without a response for longer has failed, as for a client.
TIMEOUT_SECONDS = 10.0


class NothingToBreak(Exception):
    """The stack has no such part; the message names it."""


def fail_over_database(outputs: Outputs) -> str:
    """Reboot the database with a failover to its standby in another zone."""
    rds = boto3.client("rds", region_name=outputs["region"])
    rds.reboot_db_instance(DBInstanceIdentifier=outputs["database"], ForceFailover=True)
    return f"{outputs['database']} fails over"


def terminate_node(outputs: Outputs) -> str:
    """Terminate one node of the first cluster.

    Raises:
        NothingToBreak: The cluster has no running node.
    """
    cluster = next(iter(outputs["clusters"].values()))
    ec2 = boto3.client("ec2", region_name=outputs["region"])
    filters = [
        {"Name": f"tag:kubernetes.io/cluster/{cluster}", "Values": ["owned"]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)
    nodes = [node["InstanceId"] for page in pages for each in page["Reservations"] for node in each["Instances"]]
    if not nodes:
        raise NothingToBreak(f"cluster {cluster} has no running node")
    node = random.choice(nodes)
    ec2.terminate_instances(InstanceIds=[node])
    return f"node {node} of {cluster} is terminated"


def kill_pod(outputs: Outputs) -> str:
    """Kill one pod of the service in the first cluster, without a grace period."""
    return _kill(outputs, "app.kubernetes.io/name=rates-app")


def kill_dispatcher(outputs: Outputs) -> str:
    """Kill the dispatcher in the first cluster, without a grace period."""
    return _kill(outputs, "app.kubernetes.io/name=rates-dispatcher")


def _kill(outputs: Outputs, selector: str) -> str:
    kubectl = ("kubectl", "--context", next(iter(outputs["clusters"])), "--namespace", "rates")
    found = subprocess.run(
        (*kubectl, "get", "pods", "--selector", selector, "--output", "name"),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    if not found:
        raise NothingToBreak(f"no pod has the labels {selector}")
    pod = random.choice(found)
    subprocess.run((*kubectl, "delete", pod, "--grace-period=0", "--force"), check=True, capture_output=True)
    return f"{pod} is killed"


#: By name: how to break it, and its row of the failure table in docs/capacity.md.
FAULTS: dict[str, tuple[Callable[[Outputs], str], str]] = {
    "database": (fail_over_database, "Database"),
    "node": (terminate_node, "Node"),
    "pod": (kill_pod, "Pod"),
    "dispatcher": (kill_dispatcher, "Queue or dispatcher"),
}


class OutsideClient:
    """Repeats one question, whose answer must not change, on a thread.

    Args:
        url: The question.

    Attributes:
        requests: Number of requests.
        failed: When each failed request began, by the monotonic clock.
        wrong: Number of responses that differ from the first.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask_repeatedly)
        self.requests = 0
        self.wrong = 0
        self.failed: list[float] = []
        self._expected = httpx.get(url, timeout=TIMEOUT_SECONDS).raise_for_status().content

    def __enter__(self) -> OutsideClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _ask_repeatedly(self) -> None:
        # Each request opens a connection, so that each resolves the name again.
        while not self._done.wait(PAUSE_SECONDS):
            began = time.monotonic()
            self.requests += 1
            try:
                response = httpx.get(self._url, timeout=TIMEOUT_SECONDS).raise_for_status()
            except httpx.HTTPError:
                self.failed.append(began)
            else:
                self.wrong += response.content != self._expected

    def wait_until_calm(self, since: float) -> float:
        """Wait until requests have succeeded for a while, and return the seconds until the last failed one began.

        Args:
            since: When the fault began, by the monotonic clock.
        """
        while time.monotonic() - max([since, *self.failed]) < CALM_SECONDS:
            time.sleep(PAUSE_SECONDS)
        return max(0.0, max(self.failed, default=since) - since)


def rehearse_in_aws(fault: str, outputs: Outputs, question: str) -> str:
    """Make one fault and return its row for the record of the game day.

    Args:
        fault: A key of :data:`FAULTS`.
        outputs: Outputs of the stack.
        question: Path and query of a question whose answer no delivery changes meanwhile.

    Raises:
        NothingToBreak: The stack has no such part.
        httpx.HTTPError: The stack does not respond before the fault.
    """
    break_it, row = FAULTS[fault]
    with OutsideClient(f"{outputs['url'].rstrip('/')}{question}") as client:
        since = time.monotonic()
        what = break_it(outputs)
        seconds = client.wait_until_calm(since)
    objective = promise(row)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    counts = (f"{client.requests:,}", str(len(client.failed)), str(client.wrong))
    return format_row((what, when, *counts, f"{seconds:.0f} s", objective.recovery, objective.loss))


def main(
    fault: Annotated[str, typer.Argument(help=f"Part to break: {', '.join(FAULTS)}.")],
    outputs: Annotated[Path, typer.Option(help="File with the output of `pulumi stack output --json`.")],
    question: Annotated[str, typer.Option(help="Path and query of a question whose answer is known.")],
    confirm: Annotated[str, typer.Option(help="The stack's address, to confirm that this stack may be broken.")],
) -> None:
    """Break one part of a stack in AWS and measure the effect from outside.

    Run it in staging first. It changes the stack: a database fails over, a node is terminated, or a pod is killed.
    """
    found: Outputs = orjson.loads(outputs.read_bytes())
    if fault not in FAULTS:
        raise typer.BadParameter(f"Unknown fault {fault}. Faults: {', '.join(FAULTS)}")
    if confirm != found["url"]:
        raise typer.BadParameter(f"--confirm {confirm} is not the stack's address, {found['url']}: nothing was changed")
    typer.echo("| fault | when | requests | failed | wrong | start of last failed request | RTO | RPO |")
    typer.echo("| --- | --- | ---: | ---: | ---: | --- | --- | --- |")
    typer.echo(rehearse_in_aws(fault, found, question))


if __name__ == "__main__":
    typer.run(main)
