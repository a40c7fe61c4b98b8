"""Build both images of one commit once, as OCI layouts, with a bill of materials each.

Every registry gets these layouts, so an image has the same digest in each.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from release.programs import ReleaseError, run
from release.version import current, require_clean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Stages of the Dockerfile. The Spark image is named by the service's digest, so the service comes first.
TARGETS = ("service", "spark")
BOM_FORMAT = "cyclonedx-json@1.6"


@dataclass(frozen=True)
class Image:
    """An image in a folder.

    Attributes:
        target: Stage of the Dockerfile.
        folder: The folder with its layout and its bill of materials.
    """

    target: str
    folder: Path

    @property
    def layout(self) -> Path:
        """The OCI layout."""
        return self.folder / self.target

    @property
    def reference(self) -> str:
        """The image by its name in containers/image, which buildah uses."""
        return f"oci:{self.layout}:{self.target}"

    @property
    def bom(self) -> Path:
        """The bill of materials."""
        return self.folder / f"{self.target}.cdx.json"

    @property
    def digest(self) -> str:
        """The digest of the image's manifest, in every registry.

        Raises:
            ReleaseError: The image has not been built.
        """
        index = self.layout / "index.json"
        if not index.is_file():
            raise ReleaseError(f"{self.layout} contains no image: run 'make images' first")
        (manifest,) = json.loads(index.read_text())["manifests"]
        return str(manifest["digest"])

    @property
    def labels(self) -> dict[str, str]:
        """The image's labels."""
        blobs = self.layout / "blobs" / "sha256"
        manifest = json.loads((blobs / self.digest.removeprefix("sha256:")).read_text())
        config = json.loads((blobs / manifest["config"]["digest"].removeprefix("sha256:")).read_text())
        return dict(config["config"]["Labels"])


def images(folder: Path) -> list[Image]:
    """Return the images of a release.

    Args:
        folder: The folder of their layouts.

    Returns:
        The service, then Spark.
    """
    return [Image(target, folder) for target in TARGETS]


def build(root: Path, folder: Path, *, builder: Sequence[str], base: str = "", source: str = "") -> None:
    """Build the images of the checkout's commit.

    Args:
        root: The checkout.
        folder: Folder for the layouts; its earlier content is removed.
        builder: Command that builds with buildah, such as ``buildah build``.
        base: Base image, if not the one that the Dockerfile names.
        source: Address of the repository, for a label.

    Raises:
        ReleaseError: The checkout has uncommitted changes, or a program fails.
    """
    require_clean(root)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    revision = run(["git", "rev-parse", "HEAD"], cwd=root)
    # The commit's time instead of the build's, so that files do not differ by when they were copied.
    seconds = run(["git", "show", "--no-patch", "--format=%ct", "HEAD"], cwd=root)
    labels = {"version": current(root), "revision": revision} | ({"source": source} if source else {})
    for image in images(folder):
        name = f"localhost/freight-rates:{image.target}-{revision[:12]}"
        command = [*builder, "--target", image.target, "--timestamp", seconds, "--tag", name]
        for label, value in labels.items():
            command += ["--label", f"org.opencontainers.image.{label}={value}"]
        run([*command, *(["--build-arg", f"BASE={base}"] if base else []), "."], cwd=root)
        run(["buildah", "push", "--quiet", name, image.reference])
        run(["syft", "scan", f"oci-dir:{image.layout}", "--quiet", "--output", f"{BOM_FORMAT}={image.bom}"])
