"""Start the HTTP service."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from rates_app.application import create_app
from rates_app.http.server import HttpServer
from rates_app.ops.logs import configure_logs
from rates_app.ops.metrics import FOLDER_VARIABLE
from rates_app.settings import load_settings


def serve() -> NoReturn:
    """Replace this process by the server.

    prometheus_client decides when it is imported whether its metrics are shared between processes, so the server
    begins in a fresh interpreter that has the folder for them in its environment.
    """
    folder = tempfile.mkdtemp(prefix="rates-metrics-")
    environment = {**os.environ, FOLDER_VARIABLE: folder}
    os.execve(sys.executable, [sys.executable, "-m", "rates_app.serve"], environment)  # noqa: S606 - our own program


def main() -> None:
    """Serve, in a process that :func:`serve` has prepared."""
    settings = load_settings()
    configure_logs(settings)
    folder = Path(os.environ[FOLDER_VARIABLE])
    master = os.getpid()
    try:
        HttpServer(settings, folder, create_app).run()
    finally:
        if os.getpid() == master:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
