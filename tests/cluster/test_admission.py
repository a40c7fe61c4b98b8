"""Who may create SparkApplications, and a driver that was taken over, get no other rights in the namespace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rates_app.batches.pipeline import spark
from tests.charts.rendering import REQUIRED, of_kind, render, the
from tests.cluster.changes import change
from tests.cluster.kube import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.charts.rendering import KubernetesManifest
    from tests.cluster.kube import Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.smoke]

IMAGE = "registry.example.com/rates-app:spark-1"
HOST_FOLDER = {"name": "host", "hostPath": {"path": "/"}}
SECRET_VOLUME = {"name": "secret", "secret": {"secretName": "rates-app"}}
DRIVER = ("spec", "driver")
POD = (*DRIVER, "template", "spec")
CONTAINER = (*POD, "containers", 0)

#: The place in the dispatcher's application that an attacker changes, and the new value.
APPLICATIONS: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "another name": (("metadata", "name"), "nightly"),
    "another image": (("spec", "image"), "docker.io/evil/spark:1"),
    "an image of the driver": ((*DRIVER, "image"), "docker.io/evil/spark:1"),
    "an image of the container": ((*CONTAINER, "image"), "docker.io/evil/spark:1"),
    "another program": (("spec", "mainApplicationFile"), "https://evil.com/x.py"),
    "further files": (("spec", "deps"), {"pyFiles": ["https://evil.com/x.py"]}),
    "further arguments": (("spec", "arguments"), ["--batch", "1", "--source", "s3://a/b", "--conf"]),
    "another service account": ((*DRIVER, "serviceAccount"), "rates-dispatcher"),
    "a service account in the pod": ((*POD, "serviceAccountName"), "rates-dispatcher"),
    "a service account of executors": (("spec", "executor", "serviceAccount"), "rates-app"),
    "a Secret": ((*DRIVER, "secrets"), [{"name": "rates-notify", "path": "/x", "secretType": "Generic"}]),
    "a Secret's key": (
        (*CONTAINER, "env"),
        [{"name": "RATES_X", "valueFrom": {"secretKeyRef": {"name": "rates-notify", "key": "a"}}}],
    ),
    "all of a Secret": ((*CONTAINER, "envFrom"), [{"secretRef": {"name": "rates-notify"}}]),
    "a ConfigMap": ((*CONTAINER, "envFrom"), [{"configMapRef": {"name": "rates-watcher"}}]),
    "code by a variable": ((*CONTAINER, "env"), [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]),
    "a folder of the node": (("spec", "volumes"), [HOST_FOLDER]),
    "a folder of the node in the pod": ((*POD, "volumes"), [HOST_FOLDER]),
    "a Secret as a volume": ((*POD, "volumes"), [SECRET_VOLUME]),
    "the node's network": ((*DRIVER, "hostNetwork"), True),
    "the node's network in the pod": ((*POD, "hostNetwork"), True),
    "the node's processes": ((*POD, "hostPID"), True),
    "a privileged container": ((*CONTAINER, "securityContext", "privileged"), True),
    "a capability": ((*CONTAINER, "securityContext", "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    "escalation": ((*CONTAINER, "securityContext", "allowPrivilegeEscalation"), True),
    "another command": ((*CONTAINER, "command"), ["sh", "-c", "id"]),
    "a second container": ((*POD, "containers", 1), {"name": "x", "image": "docker.io/evil/x:1"}),
    "an init container": ((*DRIVER, "initContainers"), [{"name": "x", "image": "docker.io/evil/x:1"}]),
    "a sidecar": ((*DRIVER, "sidecars"), [{"name": "x", "image": "docker.io/evil/x:1"}]),
    "another priority": ((*POD, "priorityClassName"), "system-node-critical"),
    "no network policy": ((*DRIVER, "template", "metadata", "labels", "app.kubernetes.io/name"), "free"),
    "a property": (("spec", "sparkConf", "spark.kubernetes.driver.secrets.rates-notify"), "/x"),
    "a user of Hadoop": (("spec", "proxyUser"), "root"),
    "properties of Hadoop": (("spec", "hadoopConf"), {"a": "b"}),
}


class Admission:
    """A namespace under the chart's policies."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._namespace = namespace
        values = {"image": {"repository": "registry.example.com/rates-app", "digest": "", "tag": "1"}}
        rendered = render("spark-ingest", REQUIRED["spark-ingest"], values, namespace=namespace.name, crds=True)
        template = folder / "sparkapplication.yaml"
        template.write_text(the(rendered, "ConfigMap", "rates-batch-template")["data"][template.name])
        self.application = spark.render(template, 7, "s3://incoming/acme/a.csv")
        self.second_attempt = spark.render(template, 7, "s3://incoming/acme/a.csv", 2)
        self.driver = f"system:serviceaccount:{namespace.name}:rates-spark"
        definitions = json.dumps(the(rendered, "CustomResourceDefinition", "sparkapplications.sparkoperator.k8s.io"))
        namespace.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", text=definitions)
        kinds = ("PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
        self._objects = [*of_kind(rendered, *kinds), *self._rights_of_drivers()]
        namespace.apply(*self._objects)
        crd = "customresourcedefinition/sparkapplications.sparkoperator.k8s.io"
        namespace.kubectl("wait", "--for=condition=Established", crd, "--timeout=60s")

    def remove(self) -> None:
        """Remove the objects, because a release of the chart would refuse to adopt them."""
        for one in self._objects:
            self._namespace.kubectl("delete", one["kind"], one["metadata"]["name"])

    def _rights_of_drivers(self) -> list[KubernetesManifest]:
        """Return a role as the operator's chart gives it to drivers."""
        metadata = {"name": "rates-spark", "namespace": self._namespace.name}
        group = "rbac.authorization.k8s.io"
        resources = ["pods", "configmaps", "services", "persistentvolumeclaims"]
        rule = {"apiGroups": [""], "resources": resources, "verbs": ["*"]}
        other = {**metadata, "name": "rates-app"}  # the API server refuses pods whose service account is missing
        return [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": other},
            {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "rates-spark"},
                "subjects": [{"kind": "ServiceAccount", **metadata}],
            },
        ]

    def refusal(self, manifest: KubernetesManifest, *options: str, verb: str = "create") -> str:
        """Return the API server's refusal of a manifest; empty if it is accepted. Nothing is stored."""
        command = (verb, "--dry-run=server", "--filename", "-", "--output", "name", *options)
        return self._namespace.refusal(*command, text=json.dumps(manifest))


@pytest.fixture(scope="module")
def admission(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admission]:
    admission = Admission(namespace, tmp_path_factory.mktemp("template"))
    path, value = APPLICATIONS["another image"]
    evil = change(admission.application, path, value)
    wait_for("the policies are in force", lambda: "ValidatingAdmissionPolicy" in admission.refusal(evil))
    yield admission
    admission.remove()


def test_the_dispatcher_s_application_is_admitted(admission: Admission) -> None:
    assert admission.refusal(admission.application) == ""
    assert admission.refusal(admission.second_attempt) == ""
    # The operator's webhook adds an empty field before the policy sees the application.
    assert admission.refusal(change(admission.application, ("spec", "deps"), {})) == ""


@pytest.mark.parametrize("attack", APPLICATIONS)
def test_an_application_with_anything_else_is_refused(admission: Admission, attack: str) -> None:
    path, value = APPLICATIONS[attack]
    refusal = admission.refusal(change(admission.application, path, value))
    assert "ValidatingAdmissionPolicy" in refusal, refusal or "it was accepted"
    assert "no such key" not in refusal, "an expression fails instead of its message"


def executor(**spec: Any) -> KubernetesManifest:
    """Return an executor's pod as Spark creates it, with changes to its specification."""
    labels = {"app.kubernetes.io/name": "rates-batch", "spark-app-selector": "spark-1", "spark-role": "executor"}
    address = {"name": "SPARK_EXECUTOR_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "spark-kubernetes-executor", "image": IMAGE, "env": [address], "securityContext": context}
    container["envFrom"] = [{"secretRef": {"name": "rates-app"}}]
    body = {
        "serviceAccountName": "rates-spark",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "spark-conf", "configMap": {"name": "spark-exec-1"}}, {"name": "tmp", "emptyDir": {}}],
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "batch-1-exec-1", "labels": labels}, "spec": body}


def own_container(**changes: Any) -> list[KubernetesManifest]:
    return [{**executor()["spec"]["containers"][0], **changes}]


TEMPLATE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rates-batch-template"}, "data": {"a": "b"}}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "x", "labels": {"spark-app-selector": "spark-1"}},
    "spec": {"ports": [{"port": 80}], "selector": {"app.kubernetes.io/name": "rates-app"}},
}
DRIVERS: dict[str, KubernetesManifest] = {
    "another service account": executor(serviceAccountName="rates-app"),
    "a Secret as a volume": executor(volumes=[SECRET_VOLUME]),
    "another image": executor(containers=own_container(image="docker.io/evil/x:1")),
    "another Secret": executor(containers=own_container(envFrom=[{"secretRef": {"name": "rates-notify"}}])),
    "a Secret's key": executor(
        containers=own_container(
            env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "rates-notify", "key": "a"}}}]
        )
    ),
    "a pod without a network policy": change(executor(), ("metadata", "labels"), {"spark-app-selector": "spark-1"}),
    "a ConfigMap that is not Spark's": TEMPLATE,
    "a Service that catches requests": SERVICE,
}


def test_a_driver_may_create_executors(admission: Admission) -> None:
    assert admission.refusal(executor(), "--as", admission.driver) == ""
    own = change(TEMPLATE, ("metadata",), {"name": "spark-exec-1", "labels": {"spark-app-selector": "spark-1"}})
    assert admission.refusal(own, "--as", admission.driver) == ""


@pytest.mark.parametrize("attack", DRIVERS)
def test_a_driver_gets_no_other_rights(admission: Admission, attack: str) -> None:
    refusal = admission.refusal(DRIVERS[attack], "--as", admission.driver)
    assert "ValidatingAdmissionPolicy" in refusal, refusal or "it was accepted"
    assert "no such key" not in refusal, "an expression fails instead of its message"


def test_a_driver_cannot_change_or_delete_the_release_s_objects(admission: Admission, namespace: Namespace) -> None:
    namespace.apply(TEMPLATE)
    taken = change(TEMPLATE, ("metadata", "labels"), {"spark-app-selector": "spark-1"})
    assert "ValidatingAdmissionPolicy" in admission.refusal(taken, "--as", admission.driver, verb="replace")
    command = ("delete", "configmap", "rates-batch-template", "--dry-run=server", "--as", admission.driver)
    assert "ValidatingAdmissionPolicy" in namespace.refusal(*command)
