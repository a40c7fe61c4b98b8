"""Validate manifests against the schemas of Kubernetes and of custom resources."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from .rendering import KubernetesManifest, Loader
from .tools import module

#: The folder in each project's module, and the API groups that it defines.
DEFINITIONS = {
    "argo-cd": ("manifests/crds", "argoproj.io"),
    "argo-rollouts": ("manifests/crds", "argoproj.io"),
    "external-secrets": ("config/crds/bases", "external-secrets.io"),
    "gateway-api": ("config/crd/standard", "gateway.networking.k8s.io"),
    "policy-controller": ("config", "policy.sigstore.dev"),
    "prometheus-operator": ("example/prometheus-operator-crd", "monitoring.coreos.com"),
    "spark-operator": ("charts/spark-operator-chart/crds", "sparkoperator.k8s.io"),
}

# The load balancer controller publishes no Go module of its second version, so this follows its reference:
# https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/targetgroupbinding/spec/
TARGET_GROUP_BINDING: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["serviceRef", "targetGroupARN"],
            "properties": {
                "targetGroupARN": {"type": "string", "minLength": 1},
                "targetType": {"type": "string", "enum": ["instance", "ip"]},
                "serviceRef": {
                    "type": "object",
                    "required": ["name", "port"],
                    "properties": {"name": {"type": "string"}, "port": {"x-kubernetes-int-or-string": True}},
                },
            },
        },
    },
}


def problems(manifest: KubernetesManifest, kubernetes: str) -> list[str]:
    """Return the violations of a manifest with their paths, including unknown fields and kinds."""
    kind = (manifest["apiVersion"], manifest["kind"])
    validator = _custom_kind(kind) or _kubernetes_kind(*kind, kubernetes)
    return [
        f"{manifest['kind']}/{manifest['metadata']['name']} at {error.json_path}: {error.message[:300]}"
        for error in validator.iter_errors(manifest)
    ]


@cache
def _kubernetes_kind(api_version: str, kind: str, kubernetes: str) -> Draft202012Validator:
    group, _, version = api_version.rpartition("/")
    name = "-".join([kind.lower(), *([group.split(".")[0]] if group else []), version])
    folder = _folder(kubernetes)
    schema = Path(str(folder)) / f"{name}.json"
    assert schema.exists(), f"no schema knows {api_version} {kind} in Kubernetes {kubernetes}"
    content = json.loads(schema.read_text())
    definitions = Resource.from_contents(json.loads((folder / "_definitions.json").read_text()))
    return Draft202012Validator(content, registry=definitions @ Registry())


@cache
def _folder(kubernetes: str) -> Path:
    return Path(str(files("kubernetes_validate") / f"kubernetes-json-schema/v{kubernetes}.0-local-strict"))


@cache
def _custom_kind(kind: tuple[str, str]) -> Draft202012Validator | None:
    """Find a kind among those of the projects that define its API group; the other projects need not be reachable."""
    if kind == ("elbv2.k8s.aws/v1beta1", "TargetGroupBinding"):
        return Draft202012Validator(_strict(TARGET_GROUP_BINDING))
    group = kind[0].rpartition("/")[0]
    for name, (_, suffix) in DEFINITIONS.items():
        if group.endswith(suffix) and kind in _custom_kinds(name):
            return _custom_kinds(name)[kind]
    return None


@cache
def _custom_kinds(name: str) -> dict[tuple[str, str], Draft202012Validator]:
    kinds = {}
    folder, suffix = DEFINITIONS[name]
    for path in sorted((module(name) / folder).glob("*.yaml")):
        for definition in yaml.load_all(path.read_text(), Loader=Loader):
            if not definition or definition.get("kind") != "CustomResourceDefinition":
                continue
            spec = definition["spec"]
            assert spec["group"].endswith(suffix), f"{name} defines {spec['group']}, too: add it to DEFINITIONS"
            for version in spec["versions"]:
                schema = _strict(version["schema"]["openAPIV3Schema"])
                # A definition leaves the metadata to Kubernetes, and may omit the type.
                kept = {name: {"type": "string"} for name in ("apiVersion", "kind")}
                schema["properties"] |= {**kept, "metadata": {"type": "object"}}
                kinds[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = Draft202012Validator(schema)
    assert kinds, f"no custom kind was found in the module of {name}"
    return kinds


def _strict(schema: Any) -> Any:
    """Make a structural schema as strict as the API server: no unknown fields, int-or-string, nulls."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: value for key, value in schema.items() if key not in ("default", "example")}
    for key in ("items", "additionalProperties", "not"):
        if isinstance(strict.get(key), dict):
            strict[key] = _strict(strict[key])
    for key in ("anyOf", "allOf", "oneOf"):
        if key in strict:
            strict[key] = _strict(strict[key])
    if "properties" in strict:
        strict["properties"] = {key: _strict(value) for key, value in strict["properties"].items()}
        if not strict.get("x-kubernetes-preserve-unknown-fields") and strict.get("type") == "object":
            strict.setdefault("additionalProperties", False)
    if strict.get("x-kubernetes-int-or-string"):
        strict["type"] = ["integer", "string"]
    if strict.pop("nullable", False) and "type" in strict:
        strict["type"] = [strict["type"], "null"]
    return strict
