"""Compose and run the role ``watch-pods``: the watcher, the target of its alerts, and its HTTP endpoints."""

from __future__ import annotations

import signal

import structlog

from rates_app.notify.settings import NotifySettings
from rates_app.ops.exporter import start_exporter
from rates_app.ops.logs import configure_logs
from rates_app.settings import ProcessSettings, read_settings
from rates_app.watch.access import connect
from rates_app.watch.incidents import Incidents
from rates_app.watch.settings import WatchSettings
from rates_app.watch.watcher import Watcher

log = structlog.get_logger()


def run() -> None:
    """Watch the cluster until SIGTERM.

    Raises:
        NoAccess: There is no cluster, or the service account may not watch pods.
        SettingsError: A setting is missing or invalid.
    """
    process = read_settings(ProcessSettings)
    configure_logs(process)
    settings, notify = read_settings(WatchSettings), read_settings(NotifySettings)
    target = notify.target()
    if target is None:
        log.warning("notification_target_missing")
    watcher = Watcher(connect(), settings, Incidents(process.environment, settings, notify.runbook), target)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watcher.stop())
    webhook = None
    if notify.github_token is not None:
        from rates_app.notify.github import GitHub  # noqa: PLC0415 - slow to import

        webhook = GitHub(notify).take
    # Probes, Prometheus and Alertmanager connect from outside the pod.
    exporter = start_exporter("0.0.0.0", settings.port, lambda: watcher.ready, webhook)  # noqa: S104
    log.info("exporter_started", port=exporter.server_port)
    watcher.run()
    exporter.shutdown()
