"""What AWS gives a stack outside its clusters: database, cache, buckets, queue and secrets.

The database is PostgreSQL behind TLS, the cache Valkey, and moto is the rest. All have this machine's address.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import boto3
from lambdas.rotation import handler
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.server import ThreadedMotoServer
from psycopg.conninfo import conninfo_to_dict

from rates_app.local.postgres import PostgresServer
from rates_app.local.redis import RedisServer
from tests.cluster.ingest import CREDENTIALS
from tests.fixtures.tls import forward, tls_in_front
from tests.infra.rotations import STEPS, announce, take_step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

    from rates_app.settings import DatabaseRole
    from tests.infra.emulator.account import Account

MASTER = "rates"
SECRET, VERSION = "aws:secretsmanager/secret:Secret", "aws:secretsmanager/secretVersion:SecretVersion"


class CloudServices:
    """The services of one stack.

    Args:
        address: The address by which pods reach this machine.
        folder: Folder of the servers.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self._address = address
        self._folder = folder
        self._closing = ExitStack()
        self._moto = ThreadedMotoServer("0.0.0.0", port=0, verbose=False)
        self._moto.start()
        self._closing.callback(self._moto.stop)
        self.endpoint = f"http://{address}:{self._moto.get_host_and_port()[1]}"
        self._database = PostgresServer(folder / "database", fast=True)
        self._database.start()
        self._closing.callback(self._database.stop)
        self._cache = RedisServer(folder / "cache")
        self._cache.start()
        self._closing.callback(self._cache.stop)
        self._front = self._closing.enter_context(tls_in_front(folder, self._database.port, address))
        self._cache_port = self._closing.enter_context(forward(self._cache.port, address))

    def close(self) -> None:
        self._closing.close()

    def hold(self, account: Account, facts: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Create what the program has created in an emulated account, and rotate the logins for the first time.

        Args:
            account: The account; its number must be moto's.
            facts: The registration of one of its clusters.
            monkeypatch: Sets the environment of the rotation function.
        """
        assert account.number == DEFAULT_ACCOUNT_ID
        region = facts["region"]
        buckets, queues = self._client("s3", region), self._client("sqs", region)
        for kind in ("incoming", "processed", "rejected"):
            buckets.create_bucket(Bucket=facts[f"{kind}Bucket"])
        queues.create_queue(QueueName=facts["incomingQueueUrl"].rpartition("/")[2])
        values = {version["secretId"]: json.loads(version["secretString"]) for version in account.find(VERSION)}
        arns = {}
        for secret in account.find(SECRET, region):
            value = self._reachable(values.get(secret.id, {}))
            created = self._client("secretsmanager", region).create_secret(
                Name=secret["name"], SecretString=json.dumps(value)
            )
            arns[secret["name"]] = created["ARN"]
            if value.get("username") == MASTER:
                master = created["ARN"]
        for name, value in {
            **CREDENTIALS,
            "AWS_DEFAULT_REGION": region,
            "AWS_ENDPOINT_URL": self.endpoint,
            "ADDRESS": self._address,
            "REPLICAS": "",
            "MASTER_SECRET": master,
            "FOLLOWERS": "{}",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(handler, "AUTHORITIES", self._front.right)
        for number, name in enumerate(sorted(facts["databaseSecrets"].values())):
            token = announce(self._client("secretsmanager", region), arns[name], number)
            for step in STEPS:
                take_step(step, arns[name], token)

    def _reachable(self, value: dict[str, str]) -> dict[str, str]:
        """Replace addresses in AWS, and the logins of this machine's servers, in a secret."""
        if "host" in value:
            value |= {"host": self._address, "port": str(self._front.port), "replicas": ""}
            if value["username"] == MASTER:
                value["password"] = str(conninfo_to_dict(self._database.url)["password"])
        if "RATES_REDIS_URL" in value:
            role = value["RATES_REDIS_URL"].partition("rates-")[2].partition(":")[0]
            here = self._cache.role_url(cast("DatabaseRole", role))
            value["RATES_REDIS_URL"] = f"{here.partition('@')[0]}@{self._address}:{self._cache_port}/0"
        return value

    def _client(self, service: Any, region: str) -> Any:
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
