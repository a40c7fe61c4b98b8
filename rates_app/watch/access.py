"""What the watcher's account may see, asked of the cluster rather than found out by failing."""

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
    """Connect as the pod's service account in a cluster, otherwise by the user's kubeconfig.

    Raises:
        NoAccess: There is neither.
    """
    try:
        config.load_config()  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise NoAccess(
            f"no cluster to watch: {error} Run it in a cluster, or set KUBECONFIG to a file that names one."
        ) from None
    return client.ApiClient()


def own_namespace() -> str:
    """Give the namespace of this pod, or of the kubeconfig's context, or ``default``."""
    if NAMESPACE_FILE.exists():
        return NAMESPACE_FILE.read_text().strip()
    try:
        _, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
    except config.ConfigException:
        return "default"
    return str(active["context"].get("namespace", "default"))


def lists(api: client.ApiClient, settings: WatchSettings) -> dict[str, Callable[..., Any]]:
    """Find out what to watch.

    Args:
        api: The cluster.
        settings: The namespaces asked for; without them every one, or if that is not allowed the own.

    Returns:
        The list function for each resource and namespace, by a name for metrics and logs. SparkApplications are left
        out where the account may not see them.

    Raises:
        NoAccess: The account may not see pods in a namespace.
    """
    core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
    if settings.namespaces:
        namespaces: tuple[str | None, ...] = settings.namespaces
    else:
        namespaces = (None,) if _may_watch(api, "", "pods", None) else (own_namespace(),)
    found: dict[str, Callable[..., Any]] = {}
    for namespace in namespaces:
        place = namespace or "all namespaces"
        if not _may_watch(api, "", "pods", namespace):
            raise NoAccess(
                f"the account may not list and watch pods in {place}; grant it a Role with verbs list, watch"
            )
        found[f"pods in {place}"] = (
            partial(core.list_namespaced_pod, namespace) if namespace else core.list_pod_for_all_namespaces
        )
        if _may_watch(api, SPARK_GROUP, SPARK_PLURAL, namespace):
            found[f"sparkapplications in {place}"] = (
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
            raise NoAccess(f"the cluster at {api.configuration.host} does not answer: {error}") from None
        if review.status is None or not review.status.allowed:
            return False
    return True
