"""Push the images of a release, sign them, and verify what was signed as a cluster does.

Signatures and attestations are stored with the image as OCI referrers, so repositories with immutable tags take them.
Without a key, cosign signs with the identity of the workflow (keyless), which Fulcio certifies and Rekor logs.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release.programs import ReleaseError, run

if TYPE_CHECKING:
    from release.images import Image

# Predicate types of the attestations, by the names that cosign has for them.
BOM, PROVENANCE = "cyclonedx", "slsaprovenance1"


@dataclass(frozen=True)
class Signer:
    """Who signs, and how a verifier recognises the signature.

    Attributes:
        key: Private key of cosign, whose password is in COSIGN_PASSWORD; None for the workflow's identity.
        identity: The workflow with its ref, as the certificate names it.
        issuer: Address of the service that issued the workflow's token.
    """

    key: Path | None = None
    identity: str = ""
    issuer: str = ""

    @classmethod
    def of_environment(cls, key: str) -> Signer:
        """Return the signer of this process.

        Args:
            key: Path of a private key; empty in a workflow.

        Returns:
            The signer.

        Raises:
            ReleaseError: There is neither a key nor a workflow.
        """
        if key:
            return cls(key=Path(key))
        server, workflow = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_WORKFLOW_REF")
        if not server or not workflow:
            raise ReleaseError("There is no identity to sign with outside a workflow: set KEY=cosign.key")
        return cls(identity=f"{server}/{workflow}", issuer="https://token.actions.githubusercontent.com")

    @property
    def signs(self) -> list[str]:
        """Options of cosign's commands that sign. A signature by a key is in no public log."""
        if not self.key:
            return ["--yes"]
        return ["--yes", f"--key={self.key}", "--use-signing-config=false", "--tlog-upload=false"]

    @property
    def verifies(self) -> list[str]:
        """Options of cosign's commands that verify."""
        if not self.key:
            return [f"--certificate-identity={self.identity}", f"--certificate-oidc-issuer={self.issuer}"]
        return [f"--key={self.key.with_suffix('.pub')}", "--insecure-ignore-tlog", "--private-infrastructure"]


def publish(image: Image, repository: str, tag: str, signer: Signer) -> str:
    """Push an image, sign it and attach its attestations.

    Args:
        image: The image.
        repository: The repository with its registry.
        tag: Tag of the image.
        signer: Who signs.

    Returns:
        The image by its digest.

    Raises:
        ReleaseError: The tag belongs to another image, or a program fails.
    """
    existing = _digest(f"{repository}:{tag}")
    if existing and existing != image.digest:
        raise ReleaseError(f"{repository}:{tag} is {existing}, another image: give the release the next number")
    if not existing:
        run(["crane", "push", str(image.layout), f"{repository}:{tag}"])
    reference = f"{repository}@{image.digest}"
    run(["cosign", "sign", *signer.signs, reference])
    with tempfile.TemporaryDirectory() as folder:
        statement = Path(folder) / "provenance.json"
        statement.write_text(json.dumps(provenance(image)))
        for kind, predicate in ((BOM, image.bom), (PROVENANCE, statement)):
            options = [f"--type={kind}", f"--predicate={predicate}"]
            run(["cosign", "attest", *signer.signs, *options, reference])
    return reference


def verify(reference: str, signer: Signer) -> None:
    """Verify the signature and both attestations of an image.

    Args:
        reference: The image by its digest.
        signer: Who must have signed.

    Raises:
        ReleaseError: One is missing, or someone else signed.
    """
    run(["cosign", "verify", *signer.verifies, reference])
    for kind in (BOM, PROVENANCE):
        run(["cosign", "verify-attestation", *signer.verifies, f"--type={kind}", reference])


def provenance(image: Image) -> dict[str, Any]:
    """State how an image was built, as a predicate of SLSA's provenance 1.0.

    Args:
        image: The image, whose labels name its source.

    Returns:
        The predicate.
    """
    labels = image.labels
    source = labels.get("org.opencontainers.image.source", "")
    revision = labels["org.opencontainers.image.revision"]
    server, repository = os.environ.get("GITHUB_SERVER_URL", ""), os.environ.get("GITHUB_REPOSITORY", "")
    run_id = os.environ.get("GITHUB_RUN_ID")
    workflow = os.environ.get("GITHUB_WORKFLOW_REF")
    return {
        "buildDefinition": {
            "buildType": f"{source}/blob/{revision}/Dockerfile",
            "externalParameters": {
                "target": image.target,
                "version": labels["org.opencontainers.image.version"],
            },
            "resolvedDependencies": [{"uri": f"git+{source}", "digest": {"gitCommit": revision}}],
        },
        "runDetails": {
            "builder": {"id": f"{server}/{workflow}" if workflow else "a machine outside the pipeline"},
            "metadata": {"invocationId": f"{server}/{repository}/actions/runs/{run_id}"} if run_id else {},
        },
    }


def _digest(reference: str) -> str:
    """The digest of a tag in a registry, or empty if the registry does not have the tag."""
    try:
        return run(["crane", "digest", reference])
    except ReleaseError as error:
        # What registries answer about a tag, and about a repository, that they do not have.
        if any(answer in str(error) for answer in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "404 Not Found")):
            return ""
        raise
