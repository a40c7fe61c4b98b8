"""A pod of the service: gunicorn with its workers, in separate processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import httpx

from drills.waiting import wait_until
from rates_app.local.server import free_port
from rates_app.store.roles import ROLES

if TYPE_CHECKING:
    from rates_app.settings import Settings


#: Timeout of a start. Several processes import the service, which is slow on a busy machine.
START_SECONDS = 120


class Pod:
    """A running pod.

    Args:
        environment: The service's settings.
        ports: Its port and that of operations; None for free ones.
    """

    def __init__(self, environment: dict[str, str], ports: tuple[int, int] | None = None) -> None:
        self.port, self.operations_port = ports or (free_port(), free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.operations_url = f"http://127.0.0.1:{self.operations_port}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from rates_app.serve import serve; serve()"],
            env={
                "PATH": os.defpath,
                "RATES_HOST": "127.0.0.1",
                "RATES_PORT": str(self.port),
                "RATES_OPERATIONS_PORT": str(self.operations_port),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.output.extend(self.process.stdout)

    def wait_until_ready(self) -> None:
        """Wait until the pod is ready, for at most :data:`START_SECONDS`.

        Raises:
            TimeoutError: It is not ready; the message is its output.
        """

        def ready() -> bool:
            assert self.process.poll() is None, "".join(self.output)
            return httpx.get(f"{self.operations_url}/readyz").status_code == 200

        wait_until(
            ready,
            seconds=START_SECONDS,
            pause=0.05,
            describe=lambda: "".join(self.output),
            ignore=(httpx.TransportError,),
        )

    def terminate(self) -> int:
        """Send SIGTERM, as Kubernetes does, and wait.

        Returns:
            Its exit status.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self._reader.join()
        return status


def environment_of(settings: Settings) -> dict[str, str]:
    """Return settings as environment variables."""
    assert settings.redis_url is not None
    return {
        "RATES_DATABASE_URL": settings.database_url.get_secret_value(),
        **{f"RATES_{role.upper()}_DATABASE_URL": settings.database_url_of(role) for role in ROLES},
        "RATES_REPLICA_URLS": ",".join(url.get_secret_value() for url in settings.replica_urls),
        "RATES_REPLICA_POOLING": settings.replica_pooling,
        "RATES_REDIS_URL": settings.redis_url.get_secret_value(),
        "RATES_DATA_DIR": str(settings.data_dir),
        "RATES_RATE_LIMIT": settings.rate_limit,
        "RATES_EXPORT_LIMIT": settings.export_limit,
        "RATES_PUBLIC_BATCHES": str(settings.public_batches),
        "RATES_DRAIN_SECONDS": "3",
    }
