"""Store undelivered notifications in files until their target accepts them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from rates_app.notify.notification import Notification

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger()


class DeadLetter(BaseModel):
    """An undelivered notification.

    Attributes:
        target: Name of the target.
        notification: The notification.
        reason: Error of the last attempt.
        refused: Whether the target refused it permanently. It is not retried until an operator resends it.
    """

    model_config = ConfigDict(frozen=True)

    target: str
    notification: Notification
    reason: str
    refused: bool


class DeadLetters:
    """A folder of dead letters, oldest first.

    Args:
        folder: The folder; created with the first letter.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, letter: DeadLetter) -> None:
        """Store a letter, and log it completely, so that it survives the loss of the disk."""
        log.error(
            "notification_not_delivered",
            target=letter.target,
            reason=letter.reason,
            notification=letter.notification.model_dump(),
        )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.replace(self._folder / f"{time.time_ns():020d}-{letter.target}-{letter.notification.label}.json", letter)

    def replace(self, path: Path, letter: DeadLetter) -> None:
        """Write a letter's file atomically."""
        partial = path.with_suffix(".partial")
        partial.write_text(letter.model_dump_json())
        partial.rename(path)

    def waiting(self, target: str | None = None) -> list[tuple[Path, DeadLetter]]:
        """List the letters, and log those that cannot be parsed.

        Args:
            target: Name of a target; None for all targets.

        Returns:
            Pairs of file and letter, oldest first.
        """
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                letter = DeadLetter.model_validate_json(path.read_bytes())
            except ValidationError as error:
                log.error("dead_letter_unreadable", path=str(path), error=str(error))  # noqa: TRY400 - the error has all details
                continue
            if target in {None, letter.target}:
                found.append((path, letter))
        return found
