"""The check of wheels for the platforms of developers, against an index in a folder."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import pytest

from requirements import platforms

ROOT = Path(__file__).parents[2]


def wheel(folder: Path, name: str, tags: str) -> None:
    """Write the smallest wheel."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tags}.whl", "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tags}\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock of four packages, each with other wheels."""
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("PATH", f"{ROOT / '.tools/bin'}{os.pathsep}{os.environ['PATH']}")
    wheel(tmp_path, "everywhere", "py3-none-any")
    wheel(tmp_path, "compiled", "cp313-abi3-macosx_14_0_arm64")
    wheel(tmp_path, "intel", "py3-none-manylinux_2_28_x86_64")
    wheel(tmp_path, "aged", "cp311-cp311-manylinux_2_28_x86_64")
    path = tmp_path / "lock.txt"
    path.write_text("everywhere==1.0\ncompiled==1.0\n")
    return path


def listed(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^lock\.txt, (.+), Python (\S+):$", text, re.MULTILINE))


def test_packages_with_a_wheel_everywhere_pass(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock.write_text("everywhere==1.0\n")
    assert platforms.main(lock) == 0
    assert capsys.readouterr().err == ""


def test_each_platform_without_a_wheel_is_listed(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock.write_text("everywhere==1.0\nintel==1.0\n")
    assert platforms.main(lock) == 1
    said = capsys.readouterr().err
    others = [name for name in platforms.PLATFORMS if name != "Linux on x86-64"]
    assert listed(said) == {(name, version) for name in others for version in ("3.11", "3.12", "3.13", "3.14")}
    assert "intel==1.0 has no" in said


def test_each_version_of_python_without_a_wheel_is_listed(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock.write_text(
        "aged==1.0 ; sys_platform == 'linux' and platform_machine == 'x86_64'\n"
        "compiled==1.0 ; sys_platform == 'darwin'\n"
    )
    assert platforms.main(lock) == 1
    said = capsys.readouterr().err
    linux = {("Linux on x86-64", version) for version in ("3.12", "3.13", "3.14")}
    # The wheel for macOS is one for 3.13 and later.
    assert listed(said) == linux | {("macOS 14 on Apple silicon", version) for version in ("3.11", "3.12")}


def test_a_source_is_accepted_of_named_packages_only(lock: Path) -> None:
    locked = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE))
    assert set(platforms.PURE_SOURCES) <= locked


@pytest.mark.parametrize("other", [">=3.11", ">=3.11,<4", "==3.11.*"])
def test_a_specifier_of_another_form_is_refused(other: str) -> None:
    assert platforms.versions(">=3.11,<3.13") == ["3.11", "3.12"]
    with pytest.raises(ValueError, match=re.escape(f"requires-python is {other!r}")):
        platforms.versions(other)


def test_the_check_of_the_locks_includes_the_platforms() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.findall(r"^lock-check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[0]
    assert "python3 requirements/platforms.py" in recipe
