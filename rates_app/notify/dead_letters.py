"""Notices whose target could not be reached, kept in files until it can."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from rates_app.notify.notice import Notice

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger()


class DeadLetter(BaseModel):
    """A notice that a target has not taken.

    Attributes:
        target: Name of the target.
        notice: The notice.
        reason: Why the target did not take it.
        refused: Whether the target said that it never will; such a letter waits for a person.
    """

    model_config = ConfigDict(frozen=True)

    target: str
    notice: Notice
    reason: str
    refused: bool


class DeadLetters:
    """A folder of dead letters, oldest first.

    Args:
        folder: Where they are; made when the first one comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, letter: DeadLetter) -> None:
        """Keep a letter. It is logged whole as well, so that it outlives this machine's disk."""
        log.error("notice not delivered", target=letter.target, reason=letter.reason, notice=letter.notice.model_dump())
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.replace(self._folder / f"{time.time_ns():020d}-{letter.target}-{letter.notice.label}.json", letter)

    def replace(self, path: Path, letter: DeadLetter) -> None:
        """Write a letter's file, whole or not at all."""
        partial = path.with_suffix(".partial")
        partial.write_text(letter.model_dump_json())
        partial.rename(path)

    def waiting(self, target: str | None = None) -> list[tuple[Path, DeadLetter]]:
        """List the letters that can be read.

        Args:
            target: Only those for this target.

        Returns:
            Each letter with its file, oldest first.
        """
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                letter = DeadLetter.model_validate_json(path.read_bytes())
            except ValidationError as error:
                log.error("dead letter unreadable", path=str(path), error=str(error))  # noqa: TRY400 - no traceback needed
                continue
            if target in {None, letter.target}:
                found.append((path, letter))
        return found
