"""The commands of a release; the Makefile's targets of the same names call them."""

from __future__ import annotations

import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from release import images as built
from release import proposal, registry, signing
from release.comment import comment as write_comment
from release.programs import ReleaseError, run
from release.signing import Signer
from release.version import current, set_version, tag

ROOT = Path(__file__).resolve().parents[1]

app = typer.Typer(help=__doc__, no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="Folder of the images' layouts.")]
Repository = Annotated[str, typer.Option(help="Repository of the images, with its registry.")]
Key = Annotated[str, typer.Option(help="Private key of cosign; by default the workflow's identity signs.")]


@app.command()
def version(number: Annotated[str, typer.Argument(help="The new version, such as 1.2.0.")]) -> None:
    """Set the version and close the changelog's section, in one commit."""
    set_version(ROOT, number, datetime.now(UTC).date())
    typer.echo(f"Release {number}, committed.")


@app.command(name="tag")
def tag_commit() -> None:
    """Tag the commit with its version."""
    typer.echo(tag(ROOT))


@app.command()
def images(
    folder: Folder,
    *,
    builder: Annotated[str, typer.Option(help="Command that builds with buildah.")] = "buildah build",
    base: Annotated[str, typer.Option(help="Another base image.")] = "",
) -> None:
    """Build both images once, with their bills of materials."""
    source = _source()
    built.build(ROOT, folder, builder=shlex.split(builder), base=base, source=source)
    for image in built.images(folder):
        typer.echo(f"{image.target} {image.digest}")


@app.command()
def publish(
    folder: Folder,
    repository: Repository,
    *,
    key: Key = "",
    label: Annotated[str, typer.Option(help="Tag of the service's image, if not the version.")] = "",
) -> None:
    """Push both images, sign them, attach their attestations, and verify all of it. Print the service's digest."""
    if not repository:
        raise ReleaseError("Which repository gets the images? Set REPOSITORY")
    signer = Signer.of_environment(key)
    service, spark = built.images(folder)
    # Charts derive Spark's tag from the service's digest, so Spark is there before any stack names the digest.
    tags = {f"spark-{service.digest.removeprefix('sha256:')}": spark, label or current(ROOT): service}
    for tag_name, image in tags.items():
        reference = signing.publish(image, repository, tag_name, signer)
        signing.verify(reference, signer)
    typer.echo(service.digest)


@app.command()
def digest(folder: Folder) -> None:
    """Print the digest of the service's image."""
    typer.echo(built.images(folder)[0].digest)


@app.command()
def verify(reference: str, *, key: Key = "") -> None:
    """Verify the signature and the attestations of an image in a registry, named by its digest."""
    signing.verify(reference, Signer.of_environment(key))
    typer.echo(f"{reference}: signature, bill of materials and provenance are valid")


@app.command()
def login(repository: Repository) -> None:
    """Log in to a registry of AWS with the credentials of the environment."""
    typer.echo(f"Logged in to {registry.login(repository)}")


@app.command()
def propose(base: Annotated[str, typer.Option(help="Branch that the request is for.")] = "main") -> None:
    """Open a pull request with the commits that the branch lacks."""
    typer.echo(proposal.propose(ROOT, base) or f"{base} has every commit; nothing to propose")


@app.command()
def comment(
    file: Annotated[Path, typer.Argument(help="What `pulumi preview` printed.")],
    *,
    title: Annotated[str, typer.Option(help="Heading of the comment.")],
    pull_request: Annotated[str, typer.Option(help="Number of the pull request.")],
) -> None:
    """Write a preview of the infrastructure into a comment on a pull request."""
    write_comment(file, title, pull_request)
    typer.echo(f"Commented on pull request {pull_request}")


def _source() -> str:
    """Address of the repository for people, if there is a remote."""
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    if server and repository:
        return f"{server}/{repository}"
    remotes = run(["git", "remote", "get-url", "origin"], cwd=ROOT) if run(["git", "remote"], cwd=ROOT) else ""
    return remotes.removesuffix(".git") if remotes.startswith("https://") else ""


if __name__ == "__main__":
    try:
        app()
    except ReleaseError as error:
        sys.exit(str(error))
