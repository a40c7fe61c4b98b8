"""Other accounts of the machine cannot read suppliers' prices, whatever umask the service was started with."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

import pytest

from rates_app.batches.formats.compression import expand
from rates_app.batches.pipeline.expanded import expanded_folder
from rates_app.batches.sources.folder import FolderSource
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-01-01,1200\n"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def is_readable_by_others(path: Path, root: Path) -> bool:
    """Return whether another account can open a file: all folders above it are open, and so is the file."""
    folders = [each for each in path.parents if each.is_relative_to(root) and each != root]
    return bool(path.stat().st_mode & 0o004) and all(each.stat().st_mode & 0o001 for each in folders)


@pytest.mark.usefixtures("open_umask")
def test_deliveries_and_their_plain_copies_are_private(tmp_path: Path) -> None:
    settings = Settings.model_validate({"database_url": "postgresql://nowhere/rates", "data_dir": tmp_path})
    source = FolderSource(settings)
    upload = source.upload("acme", "prices.csv.gz")
    upload.write(gzip.compress(CONTENT))
    upload.commit(b"{}")
    source.close()
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    folder = expanded_folder(settings)
    expand(str(packed), "7", compression="gzip", file_format="csv", folder=folder, limit=1_000_000)
    packed.unlink()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} >= {"acme", "expanded"}
    assert [path for path in files if is_readable_by_others(path, tmp_path)] == []
