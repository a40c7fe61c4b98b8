"""Stage a big batch with Spark in the cluster: submit a SparkApplication to the spark-operator.

An application that has failed keeps its name until it is removed. So every attempt at a batch has another name.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from http import HTTPStatus
from string import Template
from typing import TYPE_CHECKING, Any

import urllib3
import yaml
from kubernetes import client

from rates_app.batches.model import BatchError
from rates_app.batches.pipeline.engine import OUTAGE_EXIT_STATUS
from rates_app.settings import SettingsError
from rates_app.store.databases import Unavailable
from rates_app.watch.access import SPARK_GROUP as GROUP
from rates_app.watch.access import SPARK_PLURAL as PLURAL
from rates_app.watch.access import SPARK_VERSION as VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Label of the applications of one batch.
BATCH_LABEL = "rates.io/batch"

#: States that the operator does not leave any more. After SUBMISSION_FAILED and FAILING it tries again.
ENDED = {"FAILED", "COMPLETED"}

#: Characters of the operator's reason: it may be all that spark-submit printed, with every line of Java's stack.
MAX_REASON_CHARACTERS = 1000


class SparkFailed(BatchError):
    """The operator gave up a batch's SparkApplication."""


class SparkOutage(SparkFailed):
    """The driver stated by its exit status that a service failed which it needs, and not the file."""


def render(template: Path, batch_id: int, source: str, attempt: int = 1) -> dict[str, Any]:
    """Fill in a SparkApplication.

    Args:
        template: A YAML file; ``$batch_id``, ``$attempt`` and ``$source`` stand for the arguments wherever a text holds
            them. Of the first attempt ``$attempt`` is empty, of the second ``-2``.
        batch_id: The batch.
        source: Pinned address of its file.
        attempt: The number of the attempt, counted from 1.

    Raises:
        SettingsError: The file is missing, or is no such template.
    """
    names = {"batch_id": str(batch_id), "source": source, "attempt": f"-{attempt}" if attempt > 1 else ""}

    def filled(node: Any) -> Any:
        # The file is read before it is filled in: so any content of an address remains one value.
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


@contextmanager
def _translating(subject: str, *, exists_ok: bool = False, missing_ok: bool = False) -> Iterator[None]:
    """Translate the cluster's refusals and network errors into Unavailable."""
    try:
        yield
    except client.ApiException as error:
        if exists_ok and error.status == HTTPStatus.CONFLICT:
            return
        if missing_ok and error.status == HTTPStatus.NOT_FOUND:
            return
        raise Unavailable(f"the cluster refuses {subject}: {error.status} {error.body}") from error
    except urllib3.exceptions.HTTPError as error:
        raise Unavailable(f"the cluster does not answer: {error}") from error


class Applications:
    """The SparkApplications of a cluster."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = client.CustomObjectsApi(api)

    def ensure(self, template: Path, batch_id: int, source: str) -> dict[str, Any]:
        """Return the application that works on a batch; create one if there is none, and remove those that failed.

        Args:
            template: As for :func:`render`.
            batch_id: The batch.
            source: Pinned address of its file.

        Raises:
            Unavailable: The cluster does not answer, or refuses.
        """
        first = render(template, batch_id, source)
        name, namespace = first["metadata"]["name"], first["metadata"]["namespace"]
        latest = 0
        for found in self._of_batch(first):
            match = re.fullmatch(rf"{re.escape(name)}(?:-(\d+))?", found["metadata"]["name"])
            if match is None:
                continue
            latest = max(latest, int(match[1] or 1))
            if found.get("status", {}).get("applicationState", {}).get("state") not in ENDED:
                return found
            with _translating(f"the removal of SparkApplication {found['metadata']['name']}", missing_ok=True):
                self._api.delete_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, found["metadata"]["name"])
        body = render(template, batch_id, source, latest + 1)
        with _translating(f"SparkApplication {body['metadata']['name']}", exists_ok=True):
            self._api.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, body)
        return body

    def _of_batch(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        label = body["metadata"].get("labels", {}).get(BATCH_LABEL)
        selector: dict[str, Any] = {"label_selector": f"{BATCH_LABEL}={label}"} if label else {}
        with _translating("the list of SparkApplications"):
            found: Any = self._api.list_namespaced_custom_object(
                GROUP, VERSION, body["metadata"]["namespace"], PLURAL, **selector
            )
            return list(found.get("items", []))
        return []

    def check(self, body: dict[str, Any]) -> None:
        """Check an application.

        Raises:
            SparkOutage: It has ended because a service failed that it needs.
            SparkFailed: It has ended without success, or is gone.
            Unavailable: The cluster does not answer.
        """
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        try:
            found: Any = self._api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name)
        except client.ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise SparkFailed(f"SparkApplication {name} was deleted") from error
            raise Unavailable(f"the cluster refuses SparkApplication {name}: {error.status}") from error
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"the cluster does not answer: {error}") from error
        state = found.get("status", {}).get("applicationState", {})
        if state.get("state") == "FAILED":
            reason = str(state.get("errorMessage") or "see its driver")[:MAX_REASON_CHARACTERS]
            if re.search(rf"\bExitCode: {OUTAGE_EXIT_STATUS}\b", reason):
                raise SparkOutage(f"SparkApplication {name} could not use the database or S3, see its driver: {reason}")
            raise SparkFailed(f"SparkApplication {name} failed: {reason}")
