"""Persist which incidents were notified, so that a restarted watcher sends no duplicates and still sends the all-clear.

The state is a JSON list in a ConfigMap, because the watcher has no volume and may restart on another node.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from kubernetes.client import ApiException, V1ConfigMap, V1ObjectMeta
from pydantic import TypeAdapter, ValidationError

from rates_app.watch.errors import NoAccess
from rates_app.watch.incidents import NotifiedIncident

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

log = structlog.get_logger()

STATE_KEY = "notifications.json"
_STATE = TypeAdapter(list[NotifiedIncident])


class NotificationStore:
    """Read and write notification state in a ConfigMap.

    Args:
        core: The Kubernetes API.
        namespace: Namespace of the ConfigMap.
        name: Name of the ConfigMap; it is created on the first save.
    """

    def __init__(self, core: CoreV1Api, namespace: str, name: str) -> None:
        self._core = core
        self._namespace = namespace
        self._name = name
        self._saved: bytes | None = None

    def load(self) -> list[NotifiedIncident]:
        """Return the incidents that a previous watcher has notified.

        Returns:
            The incidents; empty if there is no state, or if it cannot be parsed.

        Raises:
            NoAccess: The service account may not read the ConfigMap.
        """
        try:
            found = self._core.read_namespaced_config_map(self._name, self._namespace)
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return []
            raise NoAccess(
                f"Cannot read ConfigMap {self._namespace}/{self._name} ({error.status} {error.reason}). "
                "Grant the service account get and patch on it, and create on ConfigMaps."
            ) from None
        self._saved = (found.data or {}).get(STATE_KEY, "[]").encode()
        try:
            return _STATE.validate_json(self._saved)
        except ValidationError:
            log.exception(
                "notification_state_unreadable", config_map=self._name, effect="incidents may be notified again"
            )
            return []

    def save(self, notified: list[NotifiedIncident]) -> None:
        """Save the state if it has changed.

        Raises:
            ApiException: The API server or the service account's permissions did not allow it.
        """
        text = _STATE.dump_json(notified)
        if text == self._saved:
            return
        body = V1ConfigMap(metadata=V1ObjectMeta(name=self._name), data={STATE_KEY: text.decode()})
        if self._saved is None:
            self._core.create_namespaced_config_map(self._namespace, body)
        else:
            self._core.patch_namespaced_config_map(self._name, self._namespace, body)
        self._saved = text
