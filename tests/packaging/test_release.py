"""A release against a registry of this machine: what is pushed, signed and attested, and what verification refuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from release import signing
from release.images import TARGETS, Image, build, images
from release.programs import ReleaseError
from release.registry import login
from release.signing import Signer
from tests.charts.tools import program

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("release")

ROOT = Path(__file__).parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"


def image_in(folder: Path, target: str, content: str) -> Image:
    """Write the smallest OCI layout: an image without layers."""
    image = Image(target, folder)
    blobs = image.layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(value: object, media_type: str) -> dict[str, Any]:
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    labels = {
        f"org.opencontainers.image.{key}": value
        for key, value in (("version", "1.2.0"), ("revision", REVISION), ("source", "https://example.com/rates"))
    }
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {**labels, "content": content}},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    described = blob(config, "application/vnd.oci.image.config.v1+json")
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = blob({"schemaVersion": 2, "mediaType": kind, "config": described, "layers": []}, kind)
    manifest["annotations"] = {"org.opencontainers.image.ref.name": target}
    (image.layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (image.layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    image.bom.write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}))
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("release")
    for target in ("service", "spark"):
        image_in(root, target, target)
    return root


@pytest.fixture(scope="module", autouse=True)
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Put cosign on the PATH, and an empty home: neither credentials nor trusted roots of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.path.dirname(program('cosign'))}:{os.environ['PATH']}")  # noqa: PTH120
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("COSIGN_PASSWORD", "secret")
        yield


@pytest.fixture(scope="module")
def repository() -> Iterator[str]:
    """A repository in an empty registry."""
    command = [program("crane"), "registry", "serve", "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        found = re.search(r"port (\d+)", server.stderr.readline())
        assert found
        yield f"127.0.0.1:{found[1]}/rates"
        server.terminate()


def key_in(folder: Path) -> Signer:
    subprocess.run(["cosign", "generate-key-pair"], cwd=folder, check=True, capture_output=True)
    return Signer(key=folder / "cosign.key")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return key_in(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def published(folder: Path, repository: str, signer: Signer) -> str:
    return signing.publish(images(folder)[0], repository, "1.2.0", signer)


def test_the_registry_has_the_image_of_the_folder(published: str, folder: Path, repository: str) -> None:
    assert published == f"{repository}@{images(folder)[0].digest}"
    given = [program("crane"), "digest", f"{repository}:1.2.0"]
    assert subprocess.run(given, capture_output=True, text=True, check=True).stdout.strip() in published


def test_the_signature_and_both_attestations_are_valid(published: str, signer: Signer) -> None:
    signing.verify(published, signer)


def test_another_signer_is_refused(published: str, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="cosign verify failed"):
        signing.verify(published, key_in(tmp_path))


def test_an_unsigned_image_is_refused(repository: str, signer: Signer, tmp_path: Path) -> None:
    image = image_in(tmp_path, "service", "unsigned")
    subprocess.run([program("crane"), "push", image.layout, f"{repository}:unsigned"], check=True)
    with pytest.raises(ReleaseError, match="cosign verify failed"):
        signing.verify(f"{repository}@{image.digest}", signer)


def test_a_repetition_pushes_nothing_and_another_image_is_refused(
    published: str, folder: Path, repository: str, signer: Signer, tmp_path: Path
) -> None:
    assert signing.publish(images(folder)[0], repository, "1.2.0", signer) == published
    with pytest.raises(ReleaseError, match="another image: give the release the next number"):
        signing.publish(image_in(tmp_path, "service", "other"), repository, "1.2.0", signer)


def test_the_provenance_names_source_and_builder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("SERVER_URL", "https://git.example.com"),
        ("REPOSITORY", "team/rates"),
        ("WORKFLOW_REF", "team/rates/.github/workflows/release.yaml@refs/tags/v1.2.0"),
        ("RUN_ID", "7"),
    ):
        monkeypatch.setenv(f"GITHUB_{name}", value)
    predicate = signing.provenance(images(folder)[1])
    assert predicate["buildDefinition"]["externalParameters"] == {"target": "spark", "version": "1.2.0"}
    assert predicate["buildDefinition"]["resolvedDependencies"] == [
        {"uri": "git+https://example.com/rates", "digest": {"gitCommit": REVISION}}
    ]
    workflow = "https://git.example.com/team/rates/.github/workflows/release.yaml@refs/tags/v1.2.0"
    assert predicate["runDetails"] == {
        "builder": {"id": workflow},
        "metadata": {"invocationId": "https://git.example.com/team/rates/actions/runs/7"},
    }
    assert Signer.of_environment("").verifies == [
        f"--certificate-identity={workflow}",
        "--certificate-oidc-issuer=https://token.actions.githubusercontent.com",
    ]


def test_outside_a_workflow_a_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_WORKFLOW_REF", raising=False)
    with pytest.raises(ReleaseError, match=r"set KEY=cosign\.key"):
        Signer.of_environment("")


def test_both_images_are_built_from_the_commit_with_their_bills_of_materials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    for name in ("buildah", "syft"):
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "{name} $@" >>{calls}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "Start"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    head = subprocess.run(
        ["git", "show", "--no-patch", "--format=%H %ct"], cwd=root, capture_output=True, text=True, check=True
    )
    revision, seconds = head.stdout.split()
    built = tmp_path / "built"
    build(root, built, builder=["buildah", "build", "--layers"], base="python:3.12", source="https://example.com/rates")
    labels = " ".join(
        f"--label org.opencontainers.image.{label}"
        for label in ("version=1.2.0", f"revision={revision}", "source=https://example.com/rates")
    )
    expected = []
    for target in ("service", "spark"):
        name = f"localhost/freight-rates:{target}-{revision[:12]}"
        options = f"--target {target} --timestamp {seconds} --tag {name} {labels} --build-arg BASE=python:3.12"
        expected += [
            f"buildah build --layers {options} .",
            f"buildah push --quiet {name} oci:{built}/{target}:{target}",
            f"syft scan oci-dir:{built}/{target} --quiet --output cyclonedx-json@1.6={built}/{target}.cdx.json",
        ]
    assert calls.read_text().splitlines() == expected
    (root / "new.py").touch()
    with pytest.raises(ReleaseError, match="has uncommitted changes"):
        build(root, built, builder=["buildah", "build"])


def test_the_dockerfile_has_the_targets_of_a_release() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(TARGETS) <= set(stages)


def test_images_that_were_not_built_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="contains no image: run 'make images' first"):
        _ = images(tmp_path)[0].digest


def test_a_login_takes_a_credential_of_the_registry_s_account_and_region(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from moto import mock_aws  # noqa: PLC0415 - slow

    given = tmp_path / "given"
    cosign = tmp_path / "cosign"
    cosign.write_text(f'#!/bin/sh\necho "$@" >{given}\ncat >>{given}\n')
    cosign.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        registry = login("123456789012.dkr.ecr.eu-west-1.amazonaws.com/rates-dev")
    arguments, password = given.read_text().split("\n", 1)
    assert arguments == f"login {registry} --username AWS --password-stdin"
    assert password
    with pytest.raises(ReleaseError, match=r"'127\.0\.0\.1:5000' is not a registry of AWS"):
        login("127.0.0.1:5000/rates")
