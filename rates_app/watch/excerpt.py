"""Read the last lines of a container's log for a notification: few, short, and without secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog
import urllib3
from kubernetes.client import ApiException

from rates_app.watch.rules import CONFIG_ERROR, IMAGE_PULL, PENDING, STORM

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

    from rates_app.watch.rules import Finding

log = structlog.get_logger()

MAX_LINE_CHARACTERS = 300

#: Rules whose containers never started, or that have no container: there is no log.
NEVER_RAN = (IMAGE_PULL, CONFIG_ERROR, PENDING, STORM)

_SECRETS = (
    (re.compile(r"(?i)(\w+://)[^/\s:@]*:[^/\s@]+@"), r"\1…@"),  # user and password in an address
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 …"),
    (
        re.compile(
            r"""(?i)(["']?[\w-]*(?:password|passwd|secret|token|api[_-]?key)["']?\s*[=:]\s*)["']?[^\s"',;}]+["']?"""
        ),
        r"\1…",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), "…"),  # AWS access key
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b"), "…@…"),  # e-mail address
)


def redact(text: str) -> str:
    """Replace anything that looks like a secret or an e-mail address.

    Args:
        text: Lines of a log.

    Returns:
        The lines with ``…`` in place of secrets, each truncated to :data:`MAX_LINE_CHARACTERS`.
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return "\n".join(line[:MAX_LINE_CHARACTERS] for line in text.splitlines())


def last_lines(core: CoreV1Api, finding: Finding, lines: int) -> str:
    """Read the last log lines of a finding's container.

    Args:
        core: The Kubernetes API.
        finding: The finding. If the container restarted, the log of its previous run is read.
        lines: Number of lines.

    Returns:
        The lines without secrets; empty if there is no log.
    """
    if finding.rule in NEVER_RAN:
        return ""
    for previous in (True, False):
        try:
            text = core.read_namespaced_pod_log(
                finding.name,
                finding.namespace,
                container=finding.container or None,
                previous=previous,
                tail_lines=lines,
                limit_bytes=32_768,
                _request_timeout=(5, 10),
            )
        except ApiException as error:
            log.info(
                "container_log_missing",
                pod=finding.name,
                container=finding.container,
                previous=previous,
                status=error.status,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            log.warning("container_log_unreadable", pod=finding.name, error=str(error))
            return ""
        else:
            return redact(str(text))
    return ""
