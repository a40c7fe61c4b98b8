"""The role ``watch-pods``: the watcher with its targets, its memory, and its health."""

from __future__ import annotations

import signal

import structlog
from kubernetes.client import CoreV1Api

from rates_app.notify.courier import Courier
from rates_app.notify.settings import NotifySettings
from rates_app.notify.targets import configured
from rates_app.ops.exporter import start_exporter
from rates_app.ops.logs import configure_logs
from rates_app.settings import ProcessSettings, read_settings
from rates_app.watch.access import connect, own_namespace
from rates_app.watch.incidents import Incidents
from rates_app.watch.memory import Memory
from rates_app.watch.settings import WatchSettings
from rates_app.watch.watcher import Watcher

log = structlog.get_logger()


def run() -> None:
    """Watch the cluster until SIGTERM, then deliver what is left.

    Raises:
        NoAccess: There is no cluster, or the account may not see pods.
        SettingsError: A setting does not fit.
    """
    process = read_settings(ProcessSettings)
    configure_logs(process)
    settings, notify = read_settings(WatchSettings), read_settings(NotifySettings)
    targets = configured(notify)
    if not targets:
        log.warning("no target of notices is set up: they are logged and go nowhere else")
    api = connect()
    watcher = Watcher(
        api,
        settings,
        Incidents(process.environment, settings, notify.runbook),
        Memory(CoreV1Api(api), own_namespace(), settings.config_map),
        Courier(targets, notify),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watcher.stop())
    exporter = start_exporter("0.0.0.0", settings.port, lambda: watcher.ready)  # noqa: S104 - a container's own
    log.info("health and metrics", port=exporter.server_port)
    watcher.run()
    exporter.shutdown()
