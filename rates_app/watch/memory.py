"""What has been told, in a ConfigMap: a watcher that moves to another node neither repeats it nor forgets its end."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from kubernetes.client import ApiException, V1ConfigMap, V1ObjectMeta
from pydantic import TypeAdapter, ValidationError

from rates_app.watch.errors import NoAccess
from rates_app.watch.incidents import Told

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

log = structlog.get_logger()

KEY = "told.json"
_TOLD = TypeAdapter(list[Told])


class Memory:
    """The ConfigMap.

    Args:
        core: The Kubernetes API.
        namespace: Where it is.
        name: Its name.
    """

    def __init__(self, core: CoreV1Api, namespace: str, name: str) -> None:
        self._core = core
        self._namespace = namespace
        self._name = name
        self._saved: bytes | None = None

    def load(self) -> list[Told]:
        """Read what an earlier watcher has told.

        Raises:
            NoAccess: The account may not read it.
        """
        try:
            found = self._core.read_namespaced_config_map(self._name, self._namespace)
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return []
            raise NoAccess(
                f"ConfigMap {self._namespace}/{self._name} cannot be read ({error.status} {error.reason}); "
                "grant the account get and patch on it, and create on ConfigMaps"
            ) from None
        self._saved = (found.data or {}).get(KEY, "[]").encode()
        try:
            return _TOLD.validate_json(self._saved)
        except ValidationError:
            log.exception("what was told before cannot be read, so it may be told again", config_map=self._name)
            return []

    def save(self, told: list[Told]) -> None:
        """Keep what was told; does nothing when it is kept already.

        Raises:
            ApiException: The API or the account did not allow it.
        """
        text = _TOLD.dump_json(told)
        if text == self._saved:
            return
        body = V1ConfigMap(metadata=V1ObjectMeta(name=self._name), data={KEY: text.decode()})
        if self._saved is None:
            self._core.create_namespaced_config_map(self._namespace, body)
        else:
            self._core.patch_namespaced_config_map(self._name, self._namespace, body)
        self._saved = text
