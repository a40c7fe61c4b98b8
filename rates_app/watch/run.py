"""Compose and run the role ``watch-pods``: the watcher, its notification state, its targets and its health endpoint."""

from __future__ import annotations

import signal

import structlog
from kubernetes.client import CoreV1Api

from rates_app.notify.sender import NotificationSender
from rates_app.notify.settings import NotifySettings
from rates_app.notify.targets import configured
from rates_app.ops.exporter import start_exporter
from rates_app.ops.logs import configure_logs
from rates_app.settings import ProcessSettings, read_settings
from rates_app.watch.access import connect, own_namespace
from rates_app.watch.incidents import Incidents
from rates_app.watch.notification_state import NotificationStore
from rates_app.watch.settings import WatchSettings
from rates_app.watch.watcher import Watcher

log = structlog.get_logger()


def run() -> None:
    """Watch the cluster until SIGTERM, then send the remaining notifications.

    Raises:
        NoAccess: There is no cluster, or the service account may not watch pods.
        SettingsError: A setting is missing or invalid.
    """
    process = read_settings(ProcessSettings)
    configure_logs(process)
    settings, notify = read_settings(WatchSettings), read_settings(NotifySettings)
    targets = configured(notify)
    if not targets:
        log.warning("notification_targets_missing")
    api = connect()
    watcher = Watcher(
        api,
        settings,
        Incidents(process.environment, settings, notify.runbook),
        NotificationStore(CoreV1Api(api), own_namespace(), settings.config_map),
        NotificationSender(targets, notify),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watcher.stop())
    exporter = start_exporter("0.0.0.0", settings.port, lambda: watcher.ready)  # noqa: S104 - probes and Prometheus connect from outside the pod
    log.info("exporter_started", port=exporter.server_port)
    watcher.run()
    exporter.shutdown()
