"""Prometheus in the tests' namespace, for analyses of rollouts. It scrapes the charts' ServiceMonitors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cluster.kube import ready, wait_for

if TYPE_CHECKING:
    from tests.cluster.kube import Namespace

NAME = "prometheus"

CONFIG = {
    "scrape_configs": [
        {
            "job_name": "rates",
            "scrape_interval": "5s",
            "kubernetes_sd_configs": [{"role": "endpointslice", "namespaces": {"own_namespace": True}}],
            "relabel_configs": [
                {
                    "source_labels": ["__meta_kubernetes_service_label_rates_io_scrape"],
                    "regex": "true",
                    "action": "keep",
                },
                # The labels that the Prometheus operator sets for a ServiceMonitor.
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "service"},
                {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            ],
        }
    ]
}


def install(namespace: Namespace, image: str) -> str:
    """Start Prometheus, wait until it is ready, and return its address."""
    rules = [
        {"apiGroups": [""], "resources": ["pods", "services", "endpoints"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
    ]
    named = {"metadata": {"name": NAME}}
    namespace.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", **named},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **named, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            **named,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", **named, "data": {"prometheus.yml": json.dumps(CONFIG)}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            **named,
            "spec": {"selector": {"app": NAME}, "ports": [{"port": 9090}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": NAME, "labels": {"app": NAME}},
            "spec": {
                "serviceAccountName": NAME,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65534,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": NAME,
                        "image": image,
                        "args": ["--config.file=/config/prometheus.yml", "--storage.tsdb.path=/data"],
                        "ports": [{"containerPort": 9090}],
                        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 9090}, "periodSeconds": 2},
                        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [
                            {"name": "config", "mountPath": "/config"},
                            {"name": "data", "mountPath": "/data"},
                        ],
                    }
                ],
                "volumes": [{"name": "config", "configMap": {"name": NAME}}, {"name": "data", "emptyDir": {}}],
            },
        },
    )
    wait_for("Prometheus", lambda: ready(namespace.get("pod", NAME)))
    return f"http://{NAME}.{namespace.name}:9090"
