"""Read the last lines of a container's log for a notification: few, short, and without secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog
import urllib3
from kubernetes.client import ApiException

from rates_app.ops.text import printable
from rates_app.watch.rules import CONFIG_ERROR, IMAGE_PULL, PENDING

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

    from rates_app.watch.rules import Detection

log = structlog.get_logger()

MAX_LINE_CHARACTERS = 300

#: Rules whose containers never started: there is no log.
NEVER_RAN = (IMAGE_PULL, CONFIG_ERROR, PENDING)

#: Every repetition is bounded, so that no line takes more than linear time.
_SECRETS = (
    (  # a private key, to its end or to the end of the excerpt
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        "…",
    ),
    (re.compile(r"(?i)\b(\w{2,20}://)[^/\s:@]{0,256}:[^/\s@]{1,256}@"), r"\1…@"),  # user and password in an address
    (  # webhooks, whose address is the secret
        re.compile(
            r"(?i)https://(hooks\.slack\.com|[\w.-]{0,80}discord(?:app)?\.com/api/webhooks|events\.pagerduty\.com"
            r"|[\w.-]{0,80}webhook\.office\.com)/[^\s\"'<>]{1,512}"
        ),
        r"https://\1/…",
    ),
    (re.compile(r"\beyJ[\w-]{5,4096}\.[\w-]{2,8192}(?:\.[\w-]{0,4096})?"), "…"),  # JSON web token
    (re.compile(r"\brates_[\w-]{20,128}"), "…"),  # our own tokens
    (re.compile(r"\b(?:gh[pousr]_\w{20,255}|github_pat_\w{20,255}|xox[abprs]-[\w-]{10,255})"), "…"),
    (re.compile(r"(?i)\b(bearer|basic)\s{1,8}[\w.~+/=-]{8,8192}"), r"\1 …"),
    (
        re.compile(
            r"""(?i)((?:password|passwd|secret|token|credential|private[_-]?key|access[_-]?key|api[_-]?key)[\w-]{0,40}"""
            r"""["']?\s{0,8}[=:]\s{0,8})(?:"[^"\n]{0,4096}"?|'[^'\n]{0,4096}'?|[^\s"',;}]{1,4096})"""
        ),
        r"\1…",
    ),
    (re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"), "…"),  # AWS access key
    (
        re.compile(
            r"(?<![\w/+=-])(?=[A-Za-z0-9/+]{0,39}[A-Z])(?=[A-Za-z0-9/+]{0,39}[a-z])(?=[A-Za-z0-9/+]{0,39}[0-9])"
            r"[A-Za-z0-9/+]{40}(?![\w/+=-])"
        ),
        "…",
    ),  # AWS secret key
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,190}"), "…@…"),  # e-mail address
)


def redact(text: str) -> str:
    """Replace anything that looks like a secret or an e-mail address.

    Args:
        text: Lines of a log.

    Returns:
        The lines with ``…`` in place of secrets, control characters escaped, each truncated to
        :data:`MAX_LINE_CHARACTERS`.
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return "\n".join(printable(line[:MAX_LINE_CHARACTERS]) for line in text.splitlines())


def last_lines(core: CoreV1Api, finding: Detection, lines: int) -> str:
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
