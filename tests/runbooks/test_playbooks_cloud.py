"""Playbooks with an AWS substitute: preconditions, refusals, check mode, and no repetition."""

from __future__ import annotations

import json
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.rds.models import RDSBackend
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from tests.runbooks.stacks import PLAYBOOKS, PROGRAMS, Runner, outputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.xdist_group("playbooks-cloud"), pytest.mark.timeout(900)]

REGION = "us-east-1"


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """Run an AWS substitute and yield its address."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def client(aws: str, service: str, region: str = REGION) -> Any:
    make: Any = boto3.client  # its types want the service's name as it is written
    return make(service, region, endpoint_url=aws, aws_access_key_id="testing", aws_secret_access_key="testing")


@pytest.fixture(scope="module")
def prod(aws: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The outputs of prod and the AWS resources that playbooks read. Its service answers only `/readyz`."""
    put_out = outputs("prod")
    for region, name in ((REGION, put_out["database"]), ("us-west-2", put_out["standby"]["database"])):
        subnets = [one["SubnetId"] for one in client(aws, "ec2", region).describe_subnets()["Subnets"]]
        rds = client(aws, "rds", region)
        rds.create_db_subnet_group(DBSubnetGroupName="data", DBSubnetGroupDescription="data", SubnetIds=subnets)
        rds.create_db_instance(
            DBInstanceIdentifier=name,
            DBInstanceClass="db.r6g.large",
            Engine="postgres",
            AllocatedStorage=20,
            MasterUsername="rates",
            MasterUserPassword="not-a-real-one",
            MultiAZ=True,
            BackupRetentionPeriod=7,
            DBSubnetGroupName="data",
        )
    client(aws, "s3", "us-west-2").create_bucket(
        Bucket="standby-incoming", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    client(aws, "s3", "us-west-2").put_object(Bucket="standby-incoming", Key="acme/late.csv", Body=b"")
    put_out = put_out | {"standby": put_out["standby"] | {"incomingBucket": "standby-incoming"}}
    sqs = client(aws, "sqs")
    sqs.create_queue(QueueName=put_out["incomingQueue"])
    sqs.create_queue(QueueName=put_out["deadLetterQueue"])
    service = make_server("127.0.0.1", 0, Response("ready"), threaded=True)
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    folder = tmp_path_factory.mktemp("prod")
    url = f"http://127.0.0.1:{service.port}"
    (folder / "outputs.json").write_text(json.dumps(put_out | {"url": url}))
    yield Runner(
        folder,
        RATES_STACK="prod",
        RATES_STACK_OUTPUTS=str(folder / "outputs.json"),
        AWS_ENDPOINT_URL=aws,
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_DEFAULT_REGION=REGION,
        RATES_URL=url,
    )
    service.shutdown()
    thread.join()


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=on call", "-c", "user.email=oncall@example.com")
    done = subprocess.run(["git", *identity, "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_rollback_is_a_separate_commit(tmp_path: Path, prod: Runner) -> None:
    image = tmp_path / "helm/gitops/stacks/prod/image.yaml"
    image.parent.mkdir(parents=True)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for name, value in (("user.name", "on call"), ("user.email", "oncall@example.com")):
        git(tmp_path, "config", name, value)
    where = ("-e", f"repository={tmp_path}")
    for number, digest in enumerate(("", "a" * 64, "b" * 64)):
        image.write_text(f'image: {{ digest: "{digest and f"sha256:{digest}"}" }}\n')
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "--quiet", "--message", f"Run {number}")
        if number == 1:
            assert "ran no image before" in prod("release-rollback", "-e", "confirm=prod", *where, code=2)
    image.write_text("changed")
    prod("release-rollback", "-e", "confirm=prod", *where, code=2)
    git(tmp_path, "checkout", ".")
    prod("release-rollback", "--check", *where)
    assert git(tmp_path, "branch", "--show-current") == "main"
    prod("release-rollback", "-e", "confirm=prod", *where)
    assert git(tmp_path, "branch", "--show-current").startswith("rollback-prod-")
    assert "a" * 64 in image.read_text()
    git(tmp_path, "switch", "main")
    assert "changed=0" in prod("release-rollback", *where)


def test_rds_fails_over_only_with_a_standby(aws: str, prod: Runner) -> None:
    rds, name = client(aws, "rds"), outputs("prod")["database"]
    prod("database-failover", "--check")
    assert prod.record()[0]["arguments"]["check"]
    prod("database-failover", "-e", "confirm=prod")
    assert "Fail over" in [line.get("task") for line in prod.record() if line["event"] == "changed"]
    rds.modify_db_instance(DBInstanceIdentifier=name, MultiAZ=False, ApplyImmediately=True)
    assert "needs a standby" in prod("database-failover", "-e", "confirm=prod", code=2)
    rds.modify_db_instance(DBInstanceIdentifier=name, MultiAZ=True, ApplyImmediately=True)


def test_a_restore_creates_one_new_instance(aws: str, prod: Runner) -> None:
    rds = client(aws, "rds")
    now = datetime.now(UTC)

    def restored() -> list[str]:
        names = [one["DBInstanceIdentifier"] for one in rds.describe_db_instances()["DBInstances"]]
        return [name for name in names if name != outputs("prod")["database"]]

    too_early = f"restore_time={now - timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}"
    assert "can be restored to moments between" in prod("point-in-time-restore", "--check", "-e", too_early, code=2)
    when = f"restore_time={now:%Y-%m-%dT%H:%M:%SZ}"
    prod("point-in-time-restore", "--check", "-e", when)
    assert restored() == []
    prod("point-in-time-restore", "-e", when, "-e", "confirm=prod")
    assert restored() == [f"{outputs('prod')['database']}-{now:%Y%m%d%H%M%S}"]
    assert "changed=0" in prod("point-in-time-restore", "-e", when)


def test_dead_letters_are_redriven_except_unprocessable_ones(aws: str, prod: Runner) -> None:
    sqs = client(aws, "sqs")
    queue, dead = (
        sqs.get_queue_url(QueueName=outputs("prod")[name])["QueueUrl"] for name in ("incomingQueue", "deadLetterQueue")
    )
    for key in ("acme/a.csv", "acme/poison.csv", "acme/b.csv"):
        sqs.send_message(QueueUrl=dead, MessageBody=json.dumps({"Records": [{"s3": {"object": {"key": key}}}]}))

    def count(url: str) -> int:
        name = "ApproximateNumberOfMessages"
        return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    assert "0 messages were sent again, of 3" in prod("dead-letter-redrive", "--check")
    assert (count(queue), count(dead)) == (0, 3)
    assert "2 messages were sent again" in prod("dead-letter-redrive", "-e", "leave=acme/poison.csv")
    assert count(queue) == 2


def test_a_colour_with_an_alarm_gets_no_traffic(aws: str, prod: Runner) -> None:
    service = ("-e", f"colour_url={prod.environment['RATES_URL']}")
    assert "Say which colour" in prod("cluster-promotion", "--check", "-e", "colour=red", code=2)
    prod("cluster-promotion", "--check", "-e", "colour=green", *service)
    steps = [line for line in prod.record() if line.get("task") == "Look at the colour again"]
    assert len(steps) == 3
    watch = client(aws, "cloudwatch")
    watch.put_metric_alarm(
        AlarmName="rates-prod-errors-green",
        MetricName="x",
        Namespace="x",
        Period=60,
        Statistic="Sum",
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    watch.set_alarm_state(AlarmName="rates-prod-errors-green", StateValue="ALARM", StateReason="a test")
    assert "Raised: rates-prod-errors-green" in prod(
        "cluster-promotion", "--check", "-e", "colour=green", *service, code=2
    )


def test_a_region_that_serves_is_not_failed_over(prod: Runner) -> None:
    first = ("-e", f"first_region_url={prod.environment['RATES_URL']}")
    assert "The first region serves" in prod("region-failover", "-e", "confirm=prod", *first, code=2)
    assert "acme/late.csv" in prod("region-failover", "--check", "-e", "first_region_url=http://127.0.0.1:9")


def test_a_region_failover_calls_the_second_region_only(
    aws: str, prod: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first region's endpoints refuse every connection, and no command of Pulumi runs."""
    promote = RDSBackend.promote_read_replica

    def complete(backend: RDSBackend, options: dict[str, Any]) -> Any:
        instance = promote(backend, options)
        # moto keeps reporting the source.
        instance.source_db_instance_identifier = None
        return instance

    monkeypatch.setattr(RDSBackend, "promote_read_replica", complete)
    standby = outputs("prod")["standby"]
    rds = client(aws, "rds", standby["region"])
    rds.create_db_instance_read_replica(
        DBInstanceIdentifier="following",
        SourceDBInstanceIdentifier=f"arn:aws:rds:{REGION}:123456789012:db:{outputs('prod')['database']}",
    )
    (before,) = rds.describe_db_instances(DBInstanceIdentifier="following")["DBInstances"]
    assert before["ReadReplicaSourceDBInstanceIdentifier"]
    following = standby | {"database": "following", "incomingBucket": "standby-incoming"}
    lost = ("-e", "first_region_url=http://127.0.0.1:9", "-e", json.dumps({"rates_standby": following}))
    report = prod("region-failover", "-e", "confirm=prod", *lost, code=2)
    (after,) = rds.describe_db_instances(DBInstanceIdentifier="following")["DBInstances"]
    assert "ReadReplicaSourceDBInstanceIdentifier" not in after
    assert after["BackupRetentionPeriod"] == 35
    watch = client(aws, "cloudwatch", standby["region"])
    assert [one["MetricName"] for one in watch.list_metrics(Namespace="Rates/rates-prod")["Metrics"]] == ["TakenOver"]
    assert client(aws, "cloudwatch").list_metrics(Namespace="Rates/rates-prod")["Metrics"] == []
    # Without a cluster, the run ends at its first call to one; after that it only records what it has done.
    assert "Could not create API client" in report


@pytest.mark.parametrize(
    "arguments", [("credential-rotation",), ("node-replacement", "-e", "node=node-1"), ("housekeeping",)]
)
def test_without_a_cluster_playbooks_change_nothing(arguments: tuple[str, ...], prod: Runner) -> None:
    """Cluster tests run these playbooks. Here they find no cluster and stop."""
    playbook, *rest = arguments
    assert "Could not create API client" in prod(playbook, "--check", *rest, code=2)


def test_a_secret_is_rotated_once_an_hour(aws: str, prod: Runner) -> None:
    secrets, name = client(aws, "secretsmanager"), "rotated"
    secrets.create_secret(Name=name, SecretString="{}")

    def rotate(*more: str) -> str:
        done = subprocess.run(
            [
                PROGRAMS / "ansible",
                "prod",
                "-m",
                "secret_rotation",
                "-a",
                f"secret={name} region={REGION} {' '.join(more)}",
            ],
            cwd=PLAYBOOKS,
            env=prod.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def current() -> str:
        versions = secrets.describe_secret(SecretId=name)["VersionIdsToStages"]
        return str(next(version for version, stages in versions.items() if "AWSCURRENT" in stages))

    assert "has no rotation" in rotate()
    secrets.rotate_secret(SecretId=name, RotationRules={"AutomaticallyAfterDays": 30})
    first = current()
    assert '"changed": false' in rotate()
    assert current() == first
    assert "CHANGED" in rotate("not_within=0")
    assert current() != first
