"""A game day breaks the part that it names and no other, and measures what a client sees."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest
import typer
from moto import mock_aws

from drills import game_day
from drills.game_day import FAULTS, NothingToBreak, OutsideClient, main, rehearse_in_aws, terminate_node
from drills.report import promise
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OUTPUTS = {"region": "us-east-1", "clusters": {"blue": "rates-blue"}, "database": "rates-database"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield


def start_instance(cluster: str) -> str:
    ec2 = boto3.client("ec2", region_name="us-east-1")
    (image,) = ec2.describe_images(Owners=["amazon"])["Images"][:1]
    tags = [{"Key": f"kubernetes.io/cluster/{cluster}", "Value": "owned"}]
    (instance,) = ec2.run_instances(
        ImageId=image["ImageId"],
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )["Instances"]
    return str(instance["InstanceId"])


def test_every_fault_has_an_objective() -> None:
    assert all(promise(row).recovery for _, row in FAULTS.values())


@pytest.mark.usefixtures("aws")
def test_only_a_node_of_the_cluster_is_terminated() -> None:
    with pytest.raises(NothingToBreak, match="rates-blue has no running node"):
        terminate_node(OUTPUTS)
    own, other = start_instance("rates-blue"), start_instance("other")
    assert own in terminate_node(OUTPUTS)
    ec2 = boto3.client("ec2", region_name="us-east-1")
    found = ec2.describe_instances(InstanceIds=[own, other])["Reservations"]
    states = {one["InstanceId"]: one["State"]["Name"] for each in found for one in each["Instances"]}
    assert states == {own: "terminated", other: "running"}


def test_failed_and_wrong_responses_are_counted_until_all_is_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game_day, "CALM_SECONDS", 0.5)
    monkeypatch.setattr(game_day, "PAUSE_SECONDS", 0.01)
    broken = threading.Event()
    left = [503, 503, 200]  # after the fault: two failures, and one response that differs

    class FailingOver(BaseHTTPRequestHandler):
        """Responds as a stack that fails over."""

        def do_GET(self) -> None:
            status = left.pop(0) if broken.is_set() and left else 0
            body = b"other" if status == 200 else b"known"
            self.send_response(status or 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class's name

    def fail(_outputs: object) -> str:
        broken.set()
        return "it fails over"

    monkeypatch.setitem(game_day.FAULTS, "database", (fail, "Database"))
    with serving(FailingOver) as url:
        row = rehearse_in_aws("database", {**OUTPUTS, "url": url}, "/rates")
    fault, _, requests, failed, wrong, _, recovery, _ = [cell.strip() for cell in row.split("|")[1:-1]]
    assert (fault, failed, wrong, recovery) == ("it fails over", "2", "1", promise("Database").recovery)
    assert int(requests) > 3


def test_a_stack_that_does_not_respond_is_not_broken_further() -> None:
    with pytest.raises(httpx.HTTPError):
        OutsideClient("http://127.0.0.1:1/rates")


def test_another_stack_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps({**OUTPUTS, "url": "https://staging.example.com"}))
    with pytest.raises(typer.BadParameter, match="nothing was changed"):
        main("database", file, "/rates", "https://example.com")
    with pytest.raises(typer.BadParameter, match="Unknown fault region"):
        main("region", file, "/rates", "https://staging.example.com")
