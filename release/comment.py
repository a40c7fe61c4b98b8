"""Show a preview of the infrastructure as a comment on a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from release.programs import ReleaseError, run

if TYPE_CHECKING:
    from pathlib import Path

#: Characters of a preview in a comment. GitHub refuses a comment of more than 65,536.
MAX_CHARACTERS = 60_000


def body(preview: str, title: str) -> str:
    """Return the text of the comment.

    Of a preview that is too long, the comment has the start and the end, because Pulumi's summary is at the end.

    Args:
        preview: What Pulumi printed.
        title: What the preview is of, as a heading.

    Returns:
        Markdown, of at most ``MAX_CHARACTERS`` and the heading.
    """
    text = preview.strip()
    # The content may contain backticks, so the fence is longer than each of its runs.
    fence = "`" * max(3, *(len(found) + 1 for found in re.findall("`*", text)))
    if len(text) > MAX_CHARACTERS:
        left_out = len(text) - MAX_CHARACTERS
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]}\n[… {left_out:,} characters left out; the job's log has all …]\n{text[-half:]}"
    return f"### {title}\n{fence}diff\n{text}\n{fence}\n"


def comment(file: Path, title: str, pull_request: str) -> None:
    """Write a preview into a comment. A repetition replaces it.

    Args:
        file: What Pulumi printed.
        title: The comment's heading.
        pull_request: Number of the pull request.

    Raises:
        ReleaseError: The number is not one, the file does not exist, or gh fails.
    """
    if not pull_request.isdecimal():
        raise ReleaseError(f"'{pull_request}' is not the number of a pull request: set PULL_REQUEST")
    if not file.is_file():
        raise ReleaseError(f"{file} does not exist: run 'make preview' first")
    command = ["gh", "pr", "comment", pull_request, "--edit-last", "--create-if-none", "--body-file", "-"]
    run(command, cwd=file.parent, stdin=body(file.read_text(errors="replace"), title))
