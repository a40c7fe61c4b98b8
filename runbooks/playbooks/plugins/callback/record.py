"""Records every run: the stack, the tasks, the time, the user and the result.

The record is JSON lines in ``records/STACK/TIME-PLAYBOOK.jsonl``, written during the run, so that an interrupted run is
recorded up to the interruption. Results marked as secret (``no_log``) are not recorded.
"""

from __future__ import annotations

import getpass
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.plugins.callback import CallbackBase

if TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook import Playbook

DOCUMENTATION = """
    name: record
    type: notification
    short_description: Keeps a record of every run
    description: Writes the result of each task as JSON lines, one file per run.
    requirements: [enable it in the configuration]
    options:
      folder:
        description: Where the records are kept; a folder a stack.
        type: path
        default: "{{ CWD }}/records"
        env: [{name: RATES_RECORDS}]
        ini: [{section: callback_record, key: folder}]
"""

#: Variables whose values are not recorded: secrets, and values given as JSON or a file.
SECRET = re.compile("password|secret|token|^[{@]")
#: Fields of a result that are recorded. Others may be large or confidential.
KEPT = ("msg", "cmd", "rc", "reason", "url", "status", "statusmessage")


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible's classes come without types
    """Writes the record."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    _path: Path

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        """Begin the file."""
        now = datetime.now(UTC)
        folder = Path(self.get_option("folder")) / (os.environ.get("RATES_STACK") or "unknown")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = Path(playbook._file_name).stem
        self._path = folder / f"{now:%Y%m%dT%H%M%S}-{os.getpid()}-{name}.jsonl"
        self._write("started", playbook=name, operator=getpass.getuser(), arguments=self._arguments())

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Record a completed task."""
        self._task("changed" if result.result.get("changed") else "ok", result)

    def v2_runner_on_skipped(self, result: CallbackTaskResult) -> None:
        """Record a skipped task."""
        self._task("skipped", result)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Record why a task failed."""
        self._task("failed", result, ignored=ignore_errors)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Record an unreachable host."""
        self._task("unreachable", result)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """Record the end of the run, and print the path of the record."""
        summary = {host: stats.summarize(host) for host in sorted(stats.processed)}
        self._write("ended", summary=summary)
        self._display.display(f"Record: {self._path}")

    def _arguments(self) -> dict[str, Any]:
        from ansible import context  # noqa: PLC0415 - filled once the command line is read

        given = context.CLIARGS
        variables = [
            f"{name}=…" if SECRET.search(name) else f"{name}{equals}{value}"
            for name, equals, value in (text.partition("=") for text in given.get("extra_vars", ()))
        ]
        return {"check": bool(given.get("check")), "variables": variables}

    def _task(self, outcome: str, result: CallbackTaskResult, **more: Any) -> None:
        kept = {key: value for key, value in result.result.items() if key in KEPT and value not in ("", None)}
        self._write(outcome, host=result.host.name, task=result.task.name, **kept, **more)

    def _write(self, event: str, **fields: Any) -> None:
        line = {"timestamp": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **fields}
        with self._path.open("a") as file:
            file.write(json.dumps(line, default=str) + "\n")
