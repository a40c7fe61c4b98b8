"""Vendored files are exactly as published and include their licence."""

from __future__ import annotations

import hashlib
import json

from rates_app.web.assets import FOLDER

VENDOR = FOLDER / "vendor"


def test_vendored_files_are_as_the_manifest_says() -> None:
    packages = json.loads((VENDOR / "manifest.json").read_text())
    listed = {name: digest for package in packages for name, digest in package["files"].items()}
    present = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert present == listed
    for package in packages:
        assert any(name.endswith("LICENSE") for name in package["files"]), package["package"]
        assert package["version"]
