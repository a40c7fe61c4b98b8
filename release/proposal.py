"""Propose the commits of a checkout as a pull request: a release for dev, or a promotion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from release.programs import ReleaseError, run

if TYPE_CHECKING:
    from pathlib import Path

# git asks gh for its credential, because a workflow's checkout keeps none.
CREDENTIAL = ("-c", "credential.helper=", "-c", "credential.helper=!gh auth git-credential")


def propose(root: Path, base: str) -> str:
    """Push the commits that a branch of the remote lacks, and open a pull request for them.

    The branch is named by the last commit's subject, so a repetition updates the same request.

    Args:
        root: The checkout.
        base: Branch that the request is for.

    Returns:
        Address of the request; empty if there is nothing to propose.

    Raises:
        ReleaseError: git or gh fails, or the subject is the name of the branch itself.
    """
    subjects = run(["git", "log", "--format=%s", f"origin/{base}..HEAD"], cwd=root).splitlines()
    if not subjects:
        return ""
    branch = "-".join("".join(letter if letter.isalnum() else " " for letter in subjects[0].lower()).split())
    if branch == base:
        raise ReleaseError(f"'{subjects[0]}' would be pushed to {base}: give the commit another subject")
    run(["git", *CREDENTIAL, "push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}"], cwd=root)
    if existing := run(["gh", "pr", "list", "--head", branch, "--json", "url", "--jq", ".[].url"], cwd=root):
        return existing.splitlines()[0]
    body = run(["git", "diff", f"origin/{base}..HEAD"], cwd=root)
    request = ["gh", "pr", "create", "--base", base, "--head", branch, "--title", subjects[0], "--body-file", "-"]
    return run(request, cwd=root, stdin=f"```diff\n{body}\n```\n").splitlines()[-1]
