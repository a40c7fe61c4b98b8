"""Promote an image from one stack to the next: a commit that changes one line of one file, to be reviewed.

``make promote TO=dev DIGEST=sha256:…`` gives dev a new image, ``make promote TO=staging`` (then ``prod``) takes the
image of the previous stack. Argo CD deploys it when the commit is on the branch that it follows.
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
import yaml

STACKS = Path(__file__).parent / "stacks"
PREDECESSOR = {"staging": "dev", "prod": "staging"}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

# Hours of releases to prod, UTC: by weekday from Monday, first and last hour. None ends shortly before a weekend.
RELEASE_HOURS = {**dict.fromkeys(range(4), (7, 16)), 4: (7, 11)}

app = typer.Typer(help=__doc__, no_args_is_help=True)


class PromotionError(Exception):
    """The promotion is not possible; the message says what to do."""


def image_file(stack: str) -> Path:
    """Return the file that holds a stack's digest.

    Args:
        stack: dev, staging or prod.

    Returns:
        Its path.
    """
    return STACKS / stack / "image.yaml"


def digest_of(stack: str) -> str:
    """Return the digest that a stack runs.

    Args:
        stack: dev, staging or prod.

    Returns:
        The digest; empty before the stack's first release.
    """
    return str(yaml.safe_load(image_file(stack).read_text())["image"]["digest"])


def put(stack: str, digest: str) -> bool:
    """Write a digest into a stack's file and commit it.

    Args:
        stack: dev, staging or prod.
        digest: The image's digest.

    Returns:
        Whether the digest changed.

    Raises:
        PromotionError: The digest is invalid, or the file has uncommitted changes.
    """
    if not DIGEST.fullmatch(digest):
        raise PromotionError(
            f"'{digest}' is not a digest: give sha256: and 64 hexadecimal digits, as the registry shows it"
        )
    path = image_file(stack)
    if _git("status", "--porcelain", "--", str(path)):
        raise PromotionError(f"{path} has uncommitted changes: commit or restore it first")
    if digest_of(stack) == digest:
        return False
    path.write_text(f'image: {{ digest: "{digest}" }}\n')
    _git("commit", "--quiet", "--message", f"Run {digest[:19]} in {stack}", "--", str(path))
    return True


def check_hours(now: datetime) -> None:
    """Refuse a release to prod outside working hours.

    Only promotions are limited. Argo CD syncs at any hour, because repairs and failovers cannot wait.

    Args:
        now: The time, with its zone.

    Raises:
        PromotionError: The time is outside working hours; the message says when they begin.
    """
    utc = now.astimezone(UTC)
    first, last = RELEASE_HOURS.get(utc.weekday(), (0, 0))
    if first <= utc.hour < last:
        return
    later = (utc.replace(minute=0) + timedelta(hours=hour) for hour in range(1, 24 * 7))
    start = next(at for at in later if at.hour == RELEASE_HOURS.get(at.weekday(), (0, 0))[0] and at.weekday() < 5)  # noqa: PLR2004 - Saturday
    raise PromotionError(
        f"{utc:%A %H:%M} UTC is outside the hours of releases to prod: wait until {start:%A %H:%M} UTC, "
        "or add ANYTIME=yes"
    )


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(STACKS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PromotionError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _put_and_report(stack: str, digest: str) -> None:
    if put(stack, digest):
        typer.echo(f"{stack}: {digest}, committed. Push it on a branch for review.")
    else:
        typer.echo(f"{stack} runs {digest} already; nothing changed.")


@app.command()
def release(digest: Annotated[str, typer.Argument(help="Digest of the image that CI has built.")]) -> None:
    """Give dev a new image."""
    _put_and_report("dev", digest)


@app.command()
def promote(
    to: Annotated[str, typer.Argument(help="Stack to promote to: staging or prod.")],
    *,
    source: Annotated[str, typer.Option("--from", help="Stack to promote from; only the previous one is.")] = "",
    anytime: Annotated[bool, typer.Option(help="Promote to prod outside working hours, too.")] = False,
) -> None:
    """Give a stack the image of the previous stack."""
    if to not in PREDECESSOR:
        raise PromotionError(f"'{to}' has no previous stack: promote to {' or '.join(PREDECESSOR)}")
    if source and source != PREDECESSOR[to]:
        raise PromotionError(f"{to} takes the image of {PREDECESSOR[to]}, not of '{source}'")
    if to == "prod" and not anytime:
        check_hours(datetime.now(UTC))
    digest = digest_of(PREDECESSOR[to])
    if not digest:
        raise PromotionError(f"{PREDECESSOR[to]} has no image yet: run that first")
    _put_and_report(to, digest)


if __name__ == "__main__":
    try:
        app()
    except PromotionError as error:
        sys.exit(str(error))
