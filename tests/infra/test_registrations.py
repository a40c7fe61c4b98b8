"""Charts rendered from the program's own registrations, and the room that the nodes have for their pods."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from rehearsal import stack_config

from tests.charts.rendering import IMAGE, batch, facts_of, of_kind, pods, synced, the
from tests.charts.schemas import problems
from tests.infra.emulator.rules.limits import CORES
from tests.infra.room import RegisteredCluster, applications, at_rest, clusters, mebibytes, shortage

if TYPE_CHECKING:
    from rehearsal import Rehearsal

pytestmark = pytest.mark.xdist_group("infra")


def test_charts_accept_every_registration_and_its_pods_fit(stack: Rehearsal) -> None:
    short = []
    for cluster in clusters(stack):
        made = applications(cluster.registration)
        assert {"rates-app", "spark-ingest", "monitoring", "storage", "cluster-autoscaler"} <= made.keys()
        standby = "standby" in cluster.name
        ingest = synced(made["spark-ingest"]["source"], IMAGE, namespace="rates")
        assert (the(ingest, "Deployment", "rates-dispatcher")["spec"]["replicas"] == 0) == standby
        assert the(ingest, "CronJob")["spec"]["suspend"] == standby
        spark = f"{cluster.name.removeprefix(f'rates-{stack.stack}-')}-spark"
        disk = stack.of_type("aws:autoscaling/tag:Tag")[f"{spark}-disk"].inputs["tag"]["value"]
        for role in ("driver", "executor"):
            (container,) = batch(ingest)["spec"][role]["template"]["spec"]["containers"]
            assert mebibytes(container["resources"]["requests"]["ephemeral-storage"]) <= mebibytes(disk)
        # A node has disk for as many executors as it has cores for.
        machine = stack.of_type("aws:eks/nodeGroup:NodeGroup")[spark].inputs["instanceTypes"][0]
        executor = batch(ingest)["spec"]["executor"]
        executors = (CORES[machine.partition(".")[2]] - 0.5) // executor["cores"]
        assert executors * mebibytes(container["resources"]["requests"]["ephemeral-storage"]) <= mebibytes(disk)
        for chart in ("rates-app", "spark-ingest", "monitoring"):
            for manifest in synced(made[chart]["source"], IMAGE, namespace="rates"):
                assert problems(manifest, "1.35") == [], manifest["metadata"]["name"]
        short.append(shortage(cluster, *at_rest(made)))
    assert short
    assert not any(short), "\n".join(filter(None, short))


SIGNED = "image-policy-signed"
WORKLOADS = {
    "Rollout/rates-app": "serving",
    "Deployment/rates-app": "serving",
    "Job/rates-app-migrate": "owner",
    "CronJob/rates-app-operator": "operator",
    "Deployment/rates-dispatcher": "ingest",
    "CronJob/rates-housekeeping": "ingest",
}


def test_each_workload_gets_the_logins_of_its_role_only(stack: Rehearsal) -> None:
    readable = stack.of_type("aws:iam/rolePolicy:RolePolicy")
    for cluster in clusters(stack):
        made = applications(cluster.registration)
        manifests = [
            one
            for chart in ("rates-app", "spark-ingest")
            for one in synced(made[chart]["source"], IMAGE, namespace="rates")
        ]
        sources = {
            secret["spec"]["target"]["name"]: [one["extract"]["key"] for one in secret["spec"]["dataFrom"]]
            for secret in of_kind(manifests, "ExternalSecret")
        }
        found = set()
        for owner, template in pods(manifests).items():
            for container in [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]:
                keys = [key for one in container.get("envFrom", ()) for key in sources[one["secretRef"]["name"]]]
                if not keys:
                    continue
                assert {key.rsplit("-", 2)[1] for key in keys} == {role_of(owner)}, owner
                found.add(role_of(owner))
            for volume in template["spec"].get("volumes", ()):
                if "secret" in volume:
                    assert {key.rsplit("-", 2)[1] for key in sources[volume["secret"]["secretName"]]} == {
                        role_of(owner)
                    }
        assert found >= {"serving", "ingest", "operator"}
        assert ("owner" in found) == ("standby" not in cluster.name)
        region = "standby" if "standby" in cluster.name else "first"
        policy = readable[f"{region}-external-secrets"].inputs["policy"]
        for key in {key for keys in sources.values() for key in keys}:
            assert key.removeprefix(f"rates-{stack.stack}-").rpartition("-")[0] in policy


def role_of(owner: str) -> str:
    """Return the role of a workload by its name."""
    kind, name = owner.split("/")[:2]
    return "ingest" if kind == "SparkApplication" else WORKLOADS[f"{kind}/{name}"]


def test_the_service_accepts_the_names_that_the_program_publishes(stack: Rehearsal) -> None:
    records = stack.of_type("aws:route53/record:Record").values()
    published = {record.inputs["name"] for record in records if record.inputs["type"] == "A"}
    published.add(urlsplit(stack.outputs["url"]).netloc.lower())
    accepted: set[str] = set()
    for cluster in clusters(stack):
        service = synced(applications(cluster.registration)["rates-app"]["source"], IMAGE, namespace="rates")
        (workload,) = of_kind(service, "Deployment", "Rollout")
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        (hosts,) = [one["value"] for one in container["env"] if one["name"] == "RATES_ALLOWED_HOSTS"]
        public = {host for host in hosts.split(",") if "." in host and not host.startswith(("rates-app", "127."))}
        assert public <= published, "a host that leads elsewhere is accepted"
        if "standby" not in cluster.name:
            accepted |= public
    assert accepted == published


def test_a_node_too_few_is_reported_with_the_pods_that_do_not_fit(dev: Rehearsal) -> None:
    (cluster,) = clusters(dev)
    small = RegisteredCluster(cluster.name, cluster.registration, cluster.machine, 1, 17)
    report = shortage(small, *at_rest(applications(cluster.registration)))
    assert "1 nodes of t3.medium" in report
    assert "no room for" in report


def test_policy_controller_reads_the_registry_where_a_signer_is_registered(stack: Rehearsal) -> None:
    policies = stack.of_type("aws:iam/rolePolicy:RolePolicy")
    for cluster in clusters(stack):
        made = applications(cluster.registration)
        role = policies.get(f"{'standby' if 'standby' in cluster.name else 'first'}-policy-controller")
        assert ("policy-controller" in made) == ("image-policy" in made) == (role is not None)
        assert (role is not None) == ("rates:signer" in stack_config(stack.stack.partition("-")[0]))
        if role:
            policy = the(
                synced(made["image-policy"]["source"], namespace="cosign-system"), "ClusterImagePolicy", SIGNED
            )
            registry = facts_of(cluster.registration)["registry"]
            assert {one["glob"][:-2] for one in policy["spec"]["images"]} == {registry}
            account, region = registry.split(".")[0], registry.split(".")[3]
            assert f"arn:aws:ecr:{region}:{account}:repository/rates-{stack.stack}" in role.inputs["policy"]
