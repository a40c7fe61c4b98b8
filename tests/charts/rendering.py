"""Render the charts as Helm and Argo CD do."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from .tools import module, program

if TYPE_CHECKING:
    from collections.abc import Iterator

KubernetesManifest = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHARTS = ("rates-app", "spark-ingest", "monitoring", "preview-stores", "image-policy", "gitops/root", "gitops/cluster")
STRATEGIES = ("rolling", "blueGreen", "canary")
STACKS = ("dev", "staging", "prod")
KUBERNETES = ("1.31", "1.32", "1.33", "1.34")

DATABASE_ROLES = ("owner", "serving", "ingest", "operator")
CACHE_ROLES = ("serving", "ingest", "operator")

# A fixed digest, so that a promotion changes no golden file.
IMAGE = {"image": {"digest": "sha256:" + "e" * 64}}
# The signer of the stack that admits signed images only.
SIGNER = {
    "workflow": "https://github.com/freight-rates/freight-rates/.github/workflows/release.yaml",
    "issuer": "https://token.actions.githubusercontent.com",
    "mode": "enforce",
}
# Required values of each chart.
REQUIRED: dict[str, KubernetesManifest] = {
    "rates-app": {
        "image": {"repository": "registry.example.com/rates-app", **IMAGE["image"]},
        "secrets": {
            "region": "eu-west-1",
            "database": {role: f"database-{role}" for role in DATABASE_ROLES},
            "cache": {role: f"cache-{role}" for role in CACHE_ROLES},
        },
    },
    "spark-ingest": {"image": {"repository": "registry.example.com/rates-app", **IMAGE["image"]}},
    "monitoring": {"image": {"repository": "registry.example.com/rates-app", **IMAGE["image"]}},
    "preview-stores": {},
    "image-policy": {
        "repository": "registry.example.com/rates-app",
        "signer": {"workflow": SIGNER["workflow"]},
    },
    "gitops/root": {"previews": {"enabled": True}},
    "gitops/cluster": {
        "cluster": {
            "name": "local",
            "server": "https://kubernetes.default.svc",
            "environment": "dev",
            "colour": "blue",
            "size": "small",
            "registry": "registry.example.com",
        }
    },
}


SPARK = "spark-ingest"
_COPIES = TemporaryDirectory(prefix="charts-")


class Loader(yaml.CSafeLoader):
    """A YAML loader that reads a bare `=` as text."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda _, node: node.value)


class RenderError(Exception):
    """Helm failed; the message is Helm's."""


@cache
def _copy() -> Path:
    copy = Path(_COPIES.name)
    shutil.copytree(ROOT / "helm", copy / "helm", ignore=shutil.ignore_patterns("charts"))
    return copy


@cache
def _add_operator(operator: Path) -> None:
    helm("package", str(operator), "--destination", str(_copy() / "helm/spark-ingest/charts"))


def charts(chart: str = SPARK) -> Path:
    """Return a copy of the charts' folder. For spark-ingest, it has the dependency, from the operator's module."""
    if chart == SPARK:
        _add_operator(module("spark-operator") / "charts/spark-operator-chart")
    return _copy()


def helm(*arguments: str, stdin: str | None = None) -> str:
    """Run Helm and return what it prints."""
    done = subprocess.run([program("helm"), *arguments], capture_output=True, text=True, input=stdin, check=False)
    if done.returncode:
        raise RenderError(done.stderr)
    return done.stdout


def render(
    chart: str,
    *values: KubernetesManifest,
    files: tuple[str, ...] = (),
    release: str | None = None,
    namespace: str = "rates",
    kubernetes: str = "1.34",
    crds: bool = False,
) -> list[KubernetesManifest]:
    """Render a chart.

    Args:
        chart: Folder below ``helm/``.
        values: Values that override those of the files; later ones override earlier ones.
        files: Value files, from the repository's root.
        release: Name of the release; the chart's own unless given.
        namespace: Namespace of the release.
        kubernetes: Version of Kubernetes to render for.
        crds: Whether to include the CRDs of dependencies.

    Returns:
        The manifests, in Helm's order.
    """
    folder = charts(chart)
    arguments = [release or chart.rsplit("/", 1)[-1], str(folder / "helm" / chart)]
    arguments += ["--namespace", namespace, "--kube-version", kubernetes, *(["--include-crds"] if crds else [])]
    for file in files:
        arguments += ["--values", str(folder / file.removeprefix("/"))]
    merged: KubernetesManifest = {}
    for more in values:
        merged = merge(merged, more)
    output = helm("template", *arguments, "--values", "-", stdin=json.dumps(merged))
    return [manifest for manifest in yaml.load_all(output, Loader=Loader) if manifest]


def merge(base: KubernetesManifest, more: KubernetesManifest) -> KubernetesManifest:
    """Merge values as Helm does: maps by key, other values as a whole."""
    merged = dict(base)
    for key, value in more.items():
        merged[key] = (
            merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
        )
    return merged


def fill(template: Any, parameters: KubernetesManifest) -> Any:
    """Fill in each text of an ApplicationSet's template as its controller does, with Go templates and Sprig."""
    texts = sorted(set(_texts(template)))
    with TemporaryDirectory(prefix="fill-") as folder:
        (Path(folder) / "templates").mkdir()
        (Path(folder) / "Chart.yaml").write_text("{apiVersion: v2, name: fill, version: 0.1.0}")
        loop = "texts:\n{{ range .Values.texts }}\n- {{ tpl . $.Values.parameters | toJson }}\n{{ end }}"
        (Path(folder) / "templates/filled.yaml").write_text(loop)
        values = {"texts": texts, "parameters": parameters}
        output = helm("template", "fill", folder, "--values", "-", stdin=json.dumps(values))
    assert "<no value>" not in output, output
    return _replace(template, dict(zip(texts, yaml.safe_load(output)["texts"], strict=True)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _replace(value: Any, filled: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replace(item, filled) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_replace(item, filled) for item in value]
    return filled[value] if isinstance(value, str) else value


def cluster_secret(environment: str, *, standby: str = "", **changes: Any) -> KubernetesManifest:
    """Return the parameters of a cluster that Pulumi has registered in Argo CD, as the cluster generator gives them."""
    size = {"dev": "small", "staging": "medium", "prod": "large"}[environment]
    name = f"rates-{environment}-blue"
    facts = {
        "name": name,
        "region": "eu-west-1",
        "hosts": f"{environment}.rates.example.com serving.{environment}.rates.example.com",
        "targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/rates/0a1b",
        "registry": f"111122223333.dkr.ecr.eu-west-1.amazonaws.com/rates-{environment}",
        "databaseSecrets": {role: f"rates-{environment}-database-{role}" for role in DATABASE_ROLES},
        "cacheSecrets": {role: f"rates-{environment}-cache-{role}" for role in CACHE_ROLES},
        "notifySecret": f"rates-{environment}-alerts-notify",
        "incomingBucket": f"rates-{environment}-incoming",
        "processedBucket": f"rates-{environment}-processed",
        "rejectedBucket": f"rates-{environment}-rejected",
        "incomingQueueUrl": f"https://sqs.eu-west-1.amazonaws.com/111122223333/rates-{environment}-incoming",
        "criticalTopicArn": f"arn:aws:sns:eu-west-1:111122223333:rates-{environment}-alerts-critical",
        "warningTopicArn": f"arn:aws:sns:eu-west-1:111122223333:rates-{environment}-alerts-warning",
        "heartbeatTopicArn": f"arn:aws:sns:eu-west-1:111122223333:rates-{environment}-alerts-heartbeat-blue",
        "pager": environment == "prod",
        "receivers": {},
        "signer": SIGNER if environment == "prod" else {},
        "vpcId": "vpc-0123456789abcdef0",
        "providedAddons": "",
        **changes,
    }
    return {
        "name": name,
        "server": "https://kubernetes.default.svc",
        "metadata": {
            "labels": {
                "argocd.argoproj.io/secret-type": "cluster",
                "rates.io/environment": environment,
                "rates.io/colour": "blue",
                "rates.io/size": size,
            },
            "annotations": {"rates.io/facts": json.dumps(facts), "rates.io/standby": standby},
        },
    }


def gitops_tree() -> list[KubernetesManifest]:
    """Return the manifests of the root Application, with previews enabled."""
    return render("gitops/root", REQUIRED["gitops/root"], namespace="argocd")


def application_set(name: str) -> KubernetesManifest:
    """Return an ApplicationSet of the gitops chart."""
    rendered = gitops_tree()
    return next(one for one in rendered if one["kind"] == "ApplicationSet" and one["metadata"]["name"] == name)


@cache
def cluster_application(environment: str) -> KubernetesManifest:
    """Return the Application that the ApplicationSet `clusters` creates for a stack's cluster."""
    filled: KubernetesManifest = fill(application_set("clusters")["spec"]["template"], cluster_secret(environment))
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", **filled}


@cache
def applications(environment: str) -> dict[str, KubernetesManifest]:
    """Return the applications of a stack's cluster by name, without the cluster's name in front."""
    cluster = cluster_application(environment)
    made = synced(cluster["spec"]["source"], namespace="argocd")
    return {one["metadata"]["name"].removeprefix(f"{cluster['metadata']['name']}-"): one for one in made}


def values_of(source: KubernetesManifest) -> KubernetesManifest:
    """Return the values of an Application's source, which stand there as an object or as text."""
    settings = source["helm"]
    found: KubernetesManifest = settings.get("valuesObject") or yaml.safe_load(settings.get("values", "{}"))
    return found


def facts_of(secret: KubernetesManifest) -> KubernetesManifest:
    """Return the facts of a cluster's registration."""
    facts: KubernetesManifest = json.loads(secret["metadata"]["annotations"]["rates.io/facts"])
    return facts


def synced(
    source: KubernetesManifest,
    *values: KubernetesManifest,
    namespace: str,
    kubernetes: str = "1.34",
    crds: bool = False,
) -> list[KubernetesManifest]:
    """Render the manifests that Argo CD syncs from an Application's source in this repository.

    Args:
        source: The source of the Application.
        values: Values that override those of the source.
        namespace: Namespace of the release.
        kubernetes: Version of Kubernetes to render for.
        crds: Whether to include the CRDs of dependencies, unless the source omits them.

    Returns:
        The manifests, in Helm's order.
    """
    settings = source["helm"]
    return render(
        source["path"].removeprefix("helm/"),
        values_of(source),
        *values,
        files=tuple(settings.get("valueFiles", ())),
        release=settings.get("releaseName"),
        namespace=namespace,
        kubernetes=kubernetes,
        crds=crds and not settings.get("skipCrds", False),
    )


@cache
def stack(environment: str, chart: str, kubernetes: str = "1.34") -> list[KubernetesManifest]:
    """Return the manifests of one of our charts in a stack's cluster."""
    application = applications(environment)[chart]["spec"]
    namespace = application["destination"]["namespace"]
    return synced(application["source"], IMAGE, namespace=namespace, kubernetes=kubernetes, crds=True)


@cache
def _preview(application_set_name: str) -> tuple[KubernetesManifest, list[KubernetesManifest]]:
    parameters = {**cluster_secret("dev"), "number": 7, "head_sha": "0f" * 20}
    filled: KubernetesManifest = fill(application_set(application_set_name)["spec"]["template"], parameters)
    manifests = synced(filled["spec"]["source"], namespace=filled["spec"]["destination"]["namespace"])
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", **filled}, manifests


def preview_environment() -> tuple[KubernetesManifest, list[KubernetesManifest]]:
    """Return the Application with the namespace, limits and stores for pull request 7, and its manifests."""
    return _preview("preview-environments")


def preview() -> tuple[KubernetesManifest, list[KubernetesManifest]]:
    """Return the Application with the manifests of pull request 7, and these manifests."""
    return _preview("previews")


def whole_preview() -> list[KubernetesManifest]:
    """Return the manifests of both Applications of pull request 7."""
    return [*preview_environment()[1], *preview()[1]]


def strategy(name: str, kubernetes: str = "1.34") -> list[KubernetesManifest]:
    """Return rates-app with an ingress under one of its strategies."""
    exposed = {"strategy": {"type": name}, "ingress": {"enabled": True, "host": "rates.example.com"}}
    return render("rates-app", REQUIRED["rates-app"], exposed, kubernetes=kubernetes)


def everything() -> dict[str, list[KubernetesManifest]]:
    """Return all manifests by a name for messages: stacks, strategies, the preview and the GitOps tree."""
    rendered = {
        f"{environment}/{chart}": stack(environment, chart)
        for environment in STACKS
        for chart in ("rates-app", "spark-ingest", "monitoring")
    }
    rendered |= {f"strategy/{name}": strategy(name) for name in STRATEGIES}
    rendered |= {f"{environment}/applications": list(applications(environment).values()) for environment in STACKS}
    rendered["preview"] = whole_preview()
    rendered["gitops"] = gitops_tree()
    return rendered


def of_kind(manifests: list[KubernetesManifest], *kinds: str) -> list[KubernetesManifest]:
    """Return the manifests of some kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def the(manifests: list[KubernetesManifest], kind: str, name: str | None = None) -> KubernetesManifest:
    """Return the one manifest of a kind, or of a kind and name."""
    (found,) = [one for one in of_kind(manifests, kind) if name in (None, one["metadata"]["name"])]
    return found


def batch(manifests: list[KubernetesManifest]) -> KubernetesManifest:
    """Return the SparkApplication that the dispatcher submits, from the template in the manifests."""
    text = the(manifests, "ConfigMap", "rates-batch-template")["data"]["sparkapplication.yaml"]
    application: KubernetesManifest = yaml.safe_load(
        text.replace("$batch_id", "0192f0c2").replace("$source", "s3://incoming/a.csv")
    )
    return application


def pods(manifests: list[KubernetesManifest]) -> dict[str, KubernetesManifest]:
    """Return every pod template among the manifests by kind and name, those of batches and of analyses included."""
    found: dict[str, KubernetesManifest] = {}
    for one in manifests:
        name = f"{one['kind']}/{one['metadata']['name']}"
        match one["kind"]:
            case "Deployment" | "StatefulSet" | "DaemonSet" | "Rollout" | "Job":
                found[name] = one["spec"]["template"]
            case "CronJob":
                found[name] = one["spec"]["jobTemplate"]["spec"]["template"]
            case "Pod":
                found[name] = one
            case "AnalysisTemplate":
                for metric in one["spec"]["metrics"]:
                    if job := metric["provider"].get("job"):
                        found[f"{name}/{metric['name']}"] = job["spec"]["template"]
            case "ConfigMap" if one["metadata"]["name"] == "rates-batch-template":
                spark = batch([one])["spec"]
                found |= {f"SparkApplication/{role}": spark[role]["template"] for role in ("driver", "executor")}
    return found
