"""Have a big batch staged by Spark in the cluster: a SparkApplication for the spark-operator."""

from __future__ import annotations

from http import HTTPStatus
from string import Template
from typing import TYPE_CHECKING, Any

import urllib3
import yaml
from kubernetes import client, config

from rates_app.batches.model import BatchError
from rates_app.settings import SettingsError
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

GROUP, VERSION, PLURAL = "sparkoperator.k8s.io", "v1beta2", "sparkapplications"

#: The operator's reason may be all that spark-submit printed, with every line of Java's stack.
LONGEST_REASON = 1000


class SparkFailed(BatchError):
    """The operator has given a batch's SparkApplication up."""


def render(template: Path, batch_id: int, source: str) -> dict[str, Any]:
    """Fill in a SparkApplication.

    Args:
        template: A YAML file; ``$batch_id`` and ``$source`` stand for the arguments wherever a text holds them.
        batch_id: The batch.
        source: Address of its file.

    Raises:
        SettingsError: The file is missing, or is no such template.
    """
    names = {"batch_id": str(batch_id), "source": source}

    def filled(node: Any) -> Any:
        # The file is read before it is filled in: whatever an address holds, it stays one value.
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(value) for value in node]
        return Template(node).substitute(names) if isinstance(node, str) else node

    try:
        body = filled(yaml.safe_load(template.read_text()))
    except (OSError, yaml.YAMLError, ValueError, KeyError) as error:
        raise SettingsError(f"RATES_SPARK_TEMPLATE: {template}: {error}") from error
    if not isinstance(body, dict) or body.get("kind") != "SparkApplication":
        raise SettingsError(f"RATES_SPARK_TEMPLATE: {template} describes no SparkApplication")
    return body


def connect() -> client.ApiClient:
    """Connect to the cluster that this process runs in, or that the user's kubeconfig names.

    Raises:
        SettingsError: There is neither.
    """
    try:
        config.load_config()  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise SettingsError(f"RATES_SPARK_TEMPLATE is given, but there is no cluster: {error}") from error
    return client.ApiClient()


class Applications:
    """The SparkApplications of a cluster."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = client.CustomObjectsApi(api)

    def submit(self, body: dict[str, Any]) -> None:
        """Create an application; one that is there already is left alone.

        Raises:
            Unavailable: The cluster does not answer, or refuses.
        """
        namespace = body["metadata"]["namespace"]
        try:
            self._api.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, body)
        except client.ApiException as error:
            if error.status != HTTPStatus.CONFLICT:
                raise Unavailable(f"the cluster refuses the SparkApplication: {error.status} {error.body}") from error
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"the cluster does not answer: {error}") from error

    def check(self, body: dict[str, Any]) -> None:
        """Look how an application is.

        Raises:
            SparkFailed: It has ended without success, or is gone.
            Unavailable: The cluster does not answer.
        """
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        try:
            found: Any = self._api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
        except client.ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise SparkFailed(f"SparkApplication {name} was deleted") from error
            raise Unavailable(f"the cluster refuses to show SparkApplication {name}: {error.status}") from error
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"the cluster does not answer: {error}") from error
        state = found.get("status", {}).get("applicationState", {})
        # After SUBMISSION_FAILED and FAILING the operator tries again; what it gives up is FAILED.
        if state.get("state") == "FAILED":
            reason = str(state.get("errorMessage") or "see its driver")[:LONGEST_REASON]
            raise SparkFailed(f"SparkApplication {name} failed: {reason}")
