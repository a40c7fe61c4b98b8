"""The chart spark-ingest: releases do not affect batches, and batches have a lower priority than the service."""

from __future__ import annotations

import copy
import re

import pytest
import yaml

from .rendering import IMAGE, STACKS, KubernetesManifest, Loader, applications, batch, of_kind, pods, stack, synced, the
from .tools import module


@pytest.mark.parametrize("environment", STACKS)
def test_release_holds_no_spark_application_and_a_batch_carries_none_of_its_labels(environment: str) -> None:
    manifests = stack(environment, "spark-ingest")
    assert of_kind(manifests, "SparkApplication", "ScheduledSparkApplication") == []
    application = batch(manifests)
    release = applications(environment)["spark-ingest"]["spec"]["source"]["helm"]["releaseName"]
    for labels in (
        application["metadata"]["labels"],
        *(application["spec"][role]["template"]["metadata"]["labels"] for role in ("driver", "executor")),
    ):
        assert labels["app.kubernetes.io/instance"] != release
        assert labels["rates.io/batch"] == "0192f0c2"


def test_driver_and_executors_run_the_spark_image_of_the_release() -> None:
    source = applications("dev")["spark-ingest"]["spec"]["source"]
    for image, tag in (({"digest": "sha256:" + "f" * 64}, "f" * 64), ({"digest": "", "tag": "0f3c"}, "0f3c")):
        manifests = synced(source, {"image": image}, namespace="rates")
        repository = source["helm"]["valuesObject"]["image"]["repository"]
        assert batch(manifests)["spec"]["image"] == f"{repository}:spark-{tag}"
        assert (
            "spark"
            not in the(manifests, "Deployment", "rates-dispatcher")["spec"]["template"]["spec"]["containers"][0][
                "image"
            ]
        )


@pytest.mark.parametrize("environment", STACKS)
def test_batch_survives_the_loss_of_spot_nodes_and_is_retried(environment: str) -> None:
    spec = batch(stack(environment, "spark-ingest"))["spec"]
    executor = spec["executor"]["template"]["spec"]
    assert executor["nodeSelector"] == {"rates.io/workload": "spark"}
    assert executor["tolerations"] == [
        {"key": "rates.io/workload", "operator": "Equal", "value": "spark", "effect": "NoSchedule"}
    ]
    assert not {"tolerations", "nodeSelector"} & spec["driver"]["template"]["spec"].keys()
    assert (
        spec["driver"]["template"]["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"]
        == "false"
    )
    assert spec["restartPolicy"]["type"] == "OnFailure"
    assert spec["restartPolicy"]["onFailureRetries"] > 0
    assert spec["restartPolicy"]["onSubmissionFailureRetries"] > 0
    allocation = spec["dynamicAllocation"]
    assert allocation["enabled"]
    assert allocation["minExecutors"] <= allocation["initialExecutors"] <= allocation["maxExecutors"]


@pytest.mark.parametrize("environment", STACKS)
def test_the_service_has_priority_over_the_dispatcher_and_that_over_batches(environment: str) -> None:
    classes = of_kind([*stack(environment, "rates-app"), *stack(environment, "spark-ingest")], "PriorityClass")
    value = {one["metadata"]["name"]: one["value"] for one in classes}
    assert value["rates-serving"] > value["rates-ingest"] > value["rates-batch"] > 0
    assert all(one["preemptionPolicy"] == "Never" for one in classes if one["metadata"]["name"] != "rates-serving")
    for owner, template in pods(stack(environment, "spark-ingest")).items():
        expected = "rates-batch" if owner.startswith("SparkApplication") else "rates-ingest"
        assert template["spec"]["priorityClassName"] == expected, owner


def quantity(text: str) -> float:
    units = {"Gi": 2**30, "Mi": 2**20, "g": 2**30, "m": 2**20}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * units.get(unit, 1)


@pytest.mark.parametrize("environment", STACKS)
def test_quota_fits_a_whole_batch_and_counts_only_batches(environment: str) -> None:
    manifests = stack(environment, "spark-ingest")
    quota = the(manifests, "ResourceQuota")["spec"]
    assert quota["scopeSelector"]["matchExpressions"][0]["values"] == ["rates-batch"]
    spec = batch(manifests)["spec"]
    executors = spec["dynamicAllocation"]["maxExecutors"]
    # Spark adds a tenth of the heap and Python's share, two fifths in total.
    memory = 1.4 * (quantity(spec["driver"]["memory"]) + executors * quantity(spec["executor"]["memory"]))
    assert quantity(quota["hard"]["requests.memory"]) >= memory
    assert float(quota["hard"]["requests.cpu"]) >= spec["driver"]["cores"] + executors * spec["executor"]["cores"]
    assert int(quota["hard"]["pods"]) >= 1 + executors


def test_new_image_changes_the_template_and_the_dispatcher_but_no_selector() -> None:
    source = applications("prod")["spark-ingest"]["spec"]["source"]
    before = synced(source, IMAGE, namespace="rates")
    after = synced(source, {"image": {"digest": "sha256:" + "f" * 64}}, namespace="rates")
    assert batch(before)["spec"]["image"] != batch(after)["spec"]["image"]
    old, new = (the(manifests, "Deployment", "rates-dispatcher") for manifests in (before, after))
    assert old["spec"]["selector"] == new["spec"]["selector"]
    key = "checksum/batch-template"
    assert (
        old["spec"]["template"]["metadata"]["annotations"][key]
        != new["spec"]["template"]["metadata"]["annotations"][key]
    )


def test_dispatcher_may_start_and_remove_batches_and_not_change_them() -> None:
    role = the(stack("prod", "spark-ingest"), "Role", "rates-dispatcher")
    assert role["rules"] == [
        {
            "apiGroups": ["sparkoperator.k8s.io"],
            "resources": ["sparkapplications"],
            "verbs": ["create", "delete", "get", "list", "watch"],
        }
    ]


def test_housekeeping_never_runs_twice_at_a_time() -> None:
    spec = the(stack("prod", "spark-ingest"), "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    # It ends before the next one starts.
    assert spec["schedule"] == "*/10 * * * *"
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 600


def test_driver_runs_as_the_account_that_the_operators_chart_makes() -> None:
    manifests = stack("prod", "spark-ingest")
    account = batch(manifests)["spec"]["driver"]["serviceAccount"]
    binding: KubernetesManifest = copy.deepcopy(the(manifests, "RoleBinding", account))
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "rates"}]


def test_disabling_the_operator_keeps_the_kinds_of_running_batches() -> None:
    source = applications("prod")["spark-ingest"]["spec"]["source"]

    def kinds(*values: KubernetesManifest) -> list[KubernetesManifest]:
        return of_kind(synced(source, IMAGE, *values, namespace="rates", crds=True), "CustomResourceDefinition")

    # Argo CD deletes what a release no longer contains, unless the object has this annotation.
    assert kinds({"spark-operator": {"enabled": False}}) == []
    made = {one["metadata"]["name"].partition(".")[0]: one for one in kinds()}
    assert made.keys() == {"sparkapplications", "scheduledsparkapplications", "sparkconnects"}
    for name, definition in made.items():
        assert (
            definition["metadata"]["annotations"].items()
            >= {
                "argocd.argoproj.io/sync-options": "Prune=false",
                "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
            }.items()
        ), name
        path = module("spark-operator") / f"charts/spark-operator-chart/crds/sparkoperator.k8s.io_{name}.yaml"
        assert definition["spec"] == yaml.load(path.read_text(), Loader=Loader)["spec"]


def keys_of(node: object) -> set[str]:
    """Return all keys of maps in a node, at any depth."""
    if isinstance(node, dict):
        return set(node).union(*map(keys_of, node.values()))
    return set().union(*map(keys_of, node)) if isinstance(node, list) else set()


@pytest.mark.parametrize("environment", STACKS)
def test_the_policy_knows_every_field_of_the_dispatcher_s_application(environment: str) -> None:
    """tests/cluster/test_admission.py evaluates the policy; here a new field of the template is noticed."""
    manifests = stack(environment, "spark-ingest")
    expressions = yaml.safe_dump(the(manifests, "ValidatingAdmissionPolicy", "rates-spark-applications")["spec"])
    known = set(re.findall(r"\'([\w./-]+)\'|'([\w./-]+)'", expressions.replace("''", "'")))
    spec = batch(manifests)["spec"]
    own: set[str] = set(spec) | set(spec["sparkConf"])
    for role in (spec["driver"], spec["executor"]):
        pod = role["template"]["spec"]
        own |= set(role) | set(role["template"]) | set(role["template"]["metadata"]) | set(pod)
        own |= keys_of(pod["volumes"]) - {"sizeLimit"} | set(pod["containers"][0])
        own |= set(pod["containers"][0]["securityContext"])
    assert own <= {first or second for first, second in known}


def test_policies_apply_to_the_namespace_of_the_release_and_deny() -> None:
    manifests = stack("prod", "spark-ingest")
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(manifests, "ValidatingAdmissionPolicy")}
    bindings = of_kind(manifests, "ValidatingAdmissionPolicyBinding")
    assert {one["spec"]["policyName"] for one in bindings} == set(policies)
    for binding in bindings:
        assert "Deny" in binding["spec"]["validationActions"]
        selector = binding["spec"]["matchResources"]["namespaceSelector"]
        assert selector == {"matchLabels": {"kubernetes.io/metadata.name": "rates"}}
    assert all(spec["failurePolicy"] == "Fail" for spec in policies.values())


def test_the_dispatcher_sends_emails_of_lane_alerts_only_with_a_mail_server() -> None:
    source = applications("dev")["spark-ingest"]["spec"]["source"]
    for secret, ports in (("", set()), ("rates-mail", {465, 587})):
        manifests = synced(source, {**IMAGE, "dispatcher": {"mailSecret": secret}}, namespace="rates")
        assert _egress_ports(manifests, "rates-dispatcher") == {53, 80, 443, 5432, 6379, 6443} | ports
        for pod in ("rates-housekeeping", "rates-batch"):  # they send no e-mails
            assert _egress_ports(manifests, pod) == {53, 80, 443, 5432, 6379, 6443}
        containers = the(manifests, "Deployment", "rates-dispatcher")["spec"]["template"]["spec"]["containers"]
        servers = [each["valueFrom"] for each in containers[0]["env"] if each["name"] == "RATES_ALERTS_SMTP_URL"]
        expected = [{"secretKeyRef": {"name": secret, "key": "RATES_ALERTS_SMTP_URL"}}] if secret else []
        assert servers == expected


def _egress_ports(manifests: list[KubernetesManifest], pod: str) -> set[int]:
    """Return the ports that all network policies together permit to pods with a name."""
    policies = [one["spec"] for one in of_kind(manifests, "NetworkPolicy") if _selects(one["spec"]["podSelector"], pod)]
    return {port["port"] for spec in policies for rule in spec["egress"] for port in rule.get("ports", [])}


def _selects(selector: KubernetesManifest, pod: str) -> bool:
    labels = {"app.kubernetes.io/name": pod}
    wanted = selector.get("matchLabels", {}).items()
    listed = selector.get("matchExpressions", [])
    return all(labels.get(key) == value for key, value in wanted) and all(
        labels.get(each["key"]) in each["values"] for each in listed
    )
