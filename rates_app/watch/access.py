"""Connect to Kubernetes, and determine which resources the watcher's service account may watch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
from kubernetes import client, config

from rates_app.watch.errors import NoAccess

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.watch.settings import WatchSettings

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

SPARK_GROUP, SPARK_VERSION, SPARK_PLURAL = "sparkoperator.k8s.io", "v1beta2", "sparkapplications"


def connect() -> client.ApiClient:
    """Connect with the pod's service account inside a cluster, otherwise with the user's kubeconfig.

    Raises:
        NoAccess: There is neither a service account nor a usable kubeconfig.
    """
    try:
        config.load_config()  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise NoAccess(
            f"No Kubernetes cluster: {error} Run this in a pod, or set KUBECONFIG to a file that names a cluster."
        ) from None
    return client.ApiClient()


def own_namespace() -> str:
    """Return the namespace of this pod, or of the kubeconfig's context, or ``default``."""
    if NAMESPACE_FILE.exists():
        return NAMESPACE_FILE.read_text().strip()
    try:
        _, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
    except config.ConfigException:
        return "default"
    return str(active["context"].get("namespace", "default"))


def lists(api: client.ApiClient, settings: WatchSettings) -> dict[str, Callable[..., Any]]:
    """Return a list function for each resource and namespace to watch.

    Args:
        api: The cluster.
        settings: The namespaces to watch. If there are none, all namespaces are watched, or only the pod's namespace if
            the service account may not watch all.

    Returns:
        The list functions by a name for metrics and logs. SparkApplications are omitted where the service account may
        not watch them.

    Raises:
        NoAccess: The service account may not watch pods in a namespace.
    """
    core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
    if settings.namespaces:
        namespaces: tuple[str | None, ...] = settings.namespaces
    else:
        namespaces = (None,) if _may_watch(api, "", "pods", None) else (own_namespace(),)
    found: dict[str, Callable[..., Any]] = {}
    for namespace in namespaces:
        scope = namespace or "all namespaces"
        if not _may_watch(api, "", "pods", namespace):
            raise NoAccess(
                f"The service account may not watch pods in {scope}. Grant it a Role with the verbs list and watch."
            )
        found[f"pods in {scope}"] = (
            partial(core.list_namespaced_pod, namespace) if namespace else core.list_pod_for_all_namespaces
        )
        if _may_watch(api, SPARK_GROUP, SPARK_PLURAL, namespace):
            found[f"sparkapplications in {scope}"] = (
                partial(custom.list_namespaced_custom_object, SPARK_GROUP, SPARK_VERSION, namespace, SPARK_PLURAL)
                if namespace
                else partial(custom.list_cluster_custom_object, SPARK_GROUP, SPARK_VERSION, SPARK_PLURAL)
            )
    return found


def _may_watch(api: client.ApiClient, group: str, resource: str, namespace: str | None) -> bool:
    reviews = client.AuthorizationV1Api(api)
    for verb in ("list", "watch"):
        attributes = client.V1ResourceAttributes(group=group, resource=resource, namespace=namespace or "", verb=verb)
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        try:
            review = reviews.create_self_subject_access_review(client.V1SelfSubjectAccessReview(spec=spec))
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            raise NoAccess(f"The cluster at {api.configuration.host} did not respond: {error}") from None
        if review.status is None or not review.status.allowed:
            return False
    return True
