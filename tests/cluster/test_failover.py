"""PostgreSQL's primary is lost permanently, and its replica takes over, as in a managed database's failover."""

from __future__ import annotations

import base64
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.kube import ready, wait_for
from tests.cluster.load import LoadPod
from tests.cluster.release import NAME, STORES, Release, install_stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.kube import Namespace
    from tests.cluster.results import Measurements
    from tests.cluster.settings import ClusterTestSettings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

PRIMARY, REPLICA = f"{STORES}-postgresql", "replica"
START = f"""set -eu
[ -s "$PGDATA/PG_VERSION" ] || pg_basebackup --pgdata="$PGDATA" --write-recovery-conf --checkpoint=fast \\
  --dbname="host={PRIMARY} user=rates password=$POSTGRES_PASSWORD application_name={REPLICA}"
exec postgres
"""
ROW = "orig_code,dest_code,day,price\\nCNGGZ,EETLL,2023-01-0$0,1000\\n"
INGEST = f'printf "{ROW}" > /tmp/$0.csv && rates ingest /tmp/$0.csv 2>&1'


def replica(namespace: Namespace) -> None:
    """Start a synchronous streaming replica, like the standby of a managed database."""
    primary = namespace.get("statefulset", PRIMARY)
    let_in = "echo 'host replication all all scram-sha-256' >> \"$PGDATA/pg_hba.conf\" && kill -HUP 1"
    namespace.kubectl("exec", f"{PRIMARY}-0", "--", "sh", "-c", let_in)
    pod: dict[str, Any] = primary["spec"]["template"]["spec"]
    pod["containers"][0] |= {"command": ["sh", "-c", START], "args": []}
    pod["containers"][0].pop("livenessProbe")
    labels = {"app": REPLICA}
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": REPLICA},
            "spec": {"clusterIP": "None", "selector": labels, "ports": [{"port": 5432}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": REPLICA},
            "spec": {
                "serviceName": REPLICA,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    )
    wait_for("the replica", lambda: any(map(ready, namespace.list("pods", f"app={REPLICA}"))))
    psql(namespace, f"{PRIMARY}-0", "ALTER SYSTEM SET synchronous_standby_names = '*'")
    psql(namespace, f"{PRIMARY}-0", "SELECT pg_reload_conf()")


def psql(namespace: Namespace, pod: str, statement: str) -> str:
    command = f'PGPASSWORD="$POSTGRES_PASSWORD" psql -U rates -d rates -Atc "{statement}"'
    return namespace.kubectl("exec", pod, "--", "sh", "-c", command)


@pytest.fixture
def release(stores: Namespace, settings: ClusterTestSettings) -> Iterator[Release]:
    replica(stores)
    secret = stores.get("secret", STORES)
    url = base64.b64decode(secret["data"]["RATES_DATABASE_URL"]).decode().replace(PRIMARY, REPLICA)
    stores.kubectl("patch", "secret", STORES, "--patch", f'{{"stringData": {{"RATES_REPLICA_URLS": "{url}"}}}}')
    release = Release(stores, settings.image)
    release.upgrade("1")
    release.wait_for_version("1")
    yield release
    release.uninstall()
    stores.kubectl("delete", "statefulset,service", REPLICA)
    stores.helm("uninstall", STORES, "--wait")
    install_stores(stores, settings, secrets.token_hex(16))


def test_the_replica_takes_over_without_a_lost_row(release: Release, report: Measurements) -> None:
    namespace = release.namespace
    pod = f"deployment/{NAME}"
    namespace.kubectl("exec", pod, "--", "sh", "-c", INGEST, "1")
    rows = release.rows()
    with LoadPod(namespace, f"{release.image}:1") as load:
        began = time.time()
        namespace.kubectl("scale", "statefulset", PRIMARY, "--replicas=0")
        namespace.kubectl("delete", "pod", f"{PRIMARY}-0", "--grace-period=0", "--force", "--ignore-not-found")
        psql(namespace, f"{REPLICA}-0", "SELECT pg_promote()")
        # The database's name now resolves to the other server.
        selector = '{"spec": {"selector": null}}', f'{{"spec": {{"selector": {{"app": "{REPLICA}"}}}}}}'
        for patch in selector:
            namespace.kubectl("patch", "service", PRIMARY, "--type=merge", "--patch", patch)
        wait_for(
            "a batch after the failover",
            lambda: "published" in namespace.kubectl("exec", pod, "--", "sh", "-c", INGEST, "2", check=False),
            300,
        )
        back = time.time() - began
        load.pass_requests(500)
        tally = load.end()
    lost = rows + 1 - release.rows()
    report.fault("PostgreSQL's primary is lost, its replica promoted", "Database", tally, began, lost)
    report.seen("PostgreSQL's primary is lost", f"a batch published {back:.0f} s later")
    assert (tally.wrong, lost) == (0, 0), tally.examples
