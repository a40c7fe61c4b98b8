"""Settings and logs of a command that prints a result."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console

from rates_app.ops.logs import configure_logs
from rates_app.settings import load_settings

if TYPE_CHECKING:
    from rates_app.settings import Settings


def command_settings() -> Settings:
    """Load the settings, and log to standard error: standard output is for the command's result only.

    Logs on a terminal are readable text unless ``RATES_LOG_FORMAT`` is set.

    Raises:
        SettingsError: As for :func:`~rates_app.settings.load_settings`.
    """
    settings = load_settings()
    if Console(stderr=True).is_terminal and "log_format" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_format": "console"})
    configure_logs(settings, sys.stderr)
    return settings
