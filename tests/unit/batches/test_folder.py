"""A folder hands out regular files, each to one dispatcher, and detects changes of their content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from rates_app.batches.content import ContentChanged, open_content
from rates_app.batches.sources.folder import FileDelivery, FolderSource
from rates_app.batches.sources.leftovers import remove_leftover_files
from rates_app.batches.sources.names import IGNORED, MAX_NAME_BYTES, archive_name, folder_of, supplier_of
from rates_app.local.account import account
from rates_app.settings import Settings
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

OLD, NEW = b"the old content", b"the new content!"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"database_url": "postgresql://nowhere/rates", "data_dir": tmp_path / "data"})


@pytest.fixture
def source(settings: Settings) -> FolderSource:
    return FolderSource(settings, settle_seconds=0)


@pytest.fixture
def claim(source: FolderSource) -> Callable[[], FileDelivery]:
    def claimed() -> FileDelivery:
        delivery = source.claim(0)
        assert delivery is not None
        return delivery

    return claimed


def put(source: FolderSource, name: str, content: bytes = OLD) -> Path:
    path = source.incoming / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def content(delivery: FileDelivery) -> bytes:
    with open_content(delivery.address) as file:
        return bytes(file.read())


def archived(settings: Settings) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (settings.data_dir / "processed").iterdir()}


@pytest.mark.parametrize("how", ["written", "renamed"])
def test_a_file_that_takes_the_name_of_a_claimed_one_is_a_separate_delivery(
    settings: Settings, source: FolderSource, claim: Callable[[], FileDelivery], how: str
) -> None:
    path = put(source, "acme/a.csv")
    first = claim()
    if how == "written":
        path.write_bytes(NEW)
    else:
        put(source, "acme/.a", NEW).replace(path)
    assert content(first) == OLD
    first.archive("processed", "1-a.csv", [])
    assert archived(settings) == {"1-a.csv": OLD}
    second = claim()
    assert (content(second), second.name, second.supplier) == (NEW, "a.csv", "acme")
    second.archive("processed", "2-a.csv", [])
    assert source.claim(0) is None
    assert list((source.incoming / ".work").iterdir()) == []


@pytest.mark.parametrize("change", ["rewritten", "truncated", "appended"])
def test_content_that_changes_in_place_is_neither_read_nor_archived(
    source: FolderSource, claim: Callable[[], FileDelivery], tmp_path: Path, change: str
) -> None:
    put(source, "a.csv")
    first = claim()
    other = tmp_path / "other-name.csv"
    other.hardlink_to(first._path)
    os.utime(other, ns=(0, 0)) if change == "rewritten" else None
    with other.open("r+b" if change != "appended" else "ab") as file:
        file.truncate(3) if change == "truncated" else file.write(NEW[: len(OLD)])
    with pytest.raises(ContentChanged):
        content(first)
    with pytest.raises(ContentChanged):
        first.archive("processed", "1-a.csv", [])
    first.defer(0)
    assert content(claim()) == other.read_bytes()


def test_what_a_killed_dispatcher_had_claimed_is_claimed_again(
    settings: Settings, source: FolderSource, claim: Callable[[], FileDelivery]
) -> None:
    put(source, "acme/a.csv")
    put(source, "acme/a.csv.manifest.json", b'{"rows": 1}')
    killed = claim()
    os.close(killed._descriptor)  # as the system does at the end of a process
    again = FolderSource(settings, settle_seconds=0).claim(0)
    assert again is not None
    assert (again.address, again.supplier, again.manifest) == (killed.address, "acme", b'{"rows": 1}')
    again.archive("processed", "1-a.csv", [])
    assert set(archived(settings)) == {"1-a.csv", "1-a.csv.manifest.json"}
    assert [path for path in source.incoming.rglob("*") if path.is_file()] == []


TEMPORARY = [
    "a.csv.filepart",
    "a.csv.part",
    "a.csv.crdownload",
    "a.csv.tmp",
    "a.csv~",
    "~$a.xlsx",
    ".a.csv.Xy12",
    "A.TMP",
]
MARKERS = [
    "a.csv.done",
    "_temporary",
    "_SUCCESS",
    "_committed_123",
    "a.csv.sha256",
    "a.csv.md5",
    "Thumbs.db",
    "a.csv.asc",
]
#: Their suffix is not the one that is looked for next to a file.
ODD_MANIFESTS = ["a.csv.MANIFEST.JSON", "A.CSV.Manifest.json"]


def test_other_entries_are_left_alone_and_warned_about_once(source: FolderSource, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_bytes(OLD)
    for name in TEMPORARY + MARKERS + ODD_MANIFESTS:
        os.utime(put(source, f"acme/{name}"), (0, 0))
    (source.incoming / "link.csv").symlink_to(secret)
    (source.incoming / "linked-folder").symlink_to(tmp_path)
    (source.incoming / "hard-link.csv").hardlink_to(secret)
    os.utime(put(source, "acme/a.csv.manifest.json"), (0, 0))
    os.mkfifo(source.incoming / "pipe.csv")
    put(source, "acme/2021/deeper.csv")
    before = {
        reason: IGNORED.labels(reason)._value.get()
        for reason in ("temporary", "marker", "link", "special", "folder", "manifest")
    }
    with structlog.testing.capture_logs() as logs:
        assert source.claim(0) is None
        assert source.claim(0) is None
    counted = {reason: IGNORED.labels(reason)._value.get() - count for reason, count in before.items()}
    named = {"temporary": len(TEMPORARY), "marker": len(MARKERS)}
    assert counted == named | {"link": 3, "special": 1, "folder": 1, "manifest": 1 + len(ODD_MANIFESTS)}
    assert len(logs) == sum(counted.values())
    assert {log["event"] for log in logs} == {"incoming_entry_ignored"}
    for name in TEMPORARY + MARKERS:
        assert (source.incoming / "acme" / name).exists()


def test_a_temporary_name_is_no_warning_while_its_program_may_still_write(source: FolderSource) -> None:
    put(source, "a.csv.filepart")
    with structlog.testing.capture_logs() as logs:
        assert source.claim(0) is None
    assert logs == []


def test_a_file_waits_for_a_manifest_that_cannot_be_read(source: FolderSource, tmp_path: Path) -> None:
    manifest = put(source, "acme/a.csv.manifest.json", b'{"rows": 2}')
    target = manifest.rename(tmp_path / "manifest")
    manifest.symlink_to(target)
    put(source, "acme/a.csv")
    with structlog.testing.capture_logs() as logs:
        assert source.claim(0) is None
    assert {(log["path"], log["reason"]) for log in logs} == {
        ("incoming/acme/a.csv", "unreadable"),
        ("incoming/acme/a.csv.manifest.json", "link"),
    }
    target.replace(manifest)
    delivery = source.claim(0)
    assert delivery is not None
    assert delivery.manifest == b'{"rows": 2}'


def test_what_killed_processes_have_left_is_removed(settings: Settings, source: FolderSource) -> None:
    stale = [
        put(source, "acme/.1a2b3c4d5e6f-a.csv.partial"),
        put(source, "acme/1a2b3c4d5e6f-a.csv.manifest.json"),
        put(source, ".work/1/.manifest.json").parent,
        source.folder("processed") / ".1a2b.partial",
    ]
    stale[-1].touch()
    kept = [
        put(source, "acme/1a2b3c4d5e6f-b.csv.manifest.json"),
        put(source, "acme/1a2b3c4d5e6f-b.csv"),
        put(source, "acme/a.csv.manifest.json"),
        put(source, ".work/2/acme/a.csv"),
    ]
    assert remove_leftover_files(settings.data_dir) == 0
    for path in (*stale, *kept, kept[-1].parents[1]):
        os.utime(path, (0, 0))
    assert remove_leftover_files(settings.data_dir) == len(stale)
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in kept)


def test_a_file_that_may_not_be_read_stops_no_other(folder: Path) -> None:
    if owner := account():  # root may read everything
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        os.seteuid(owner.pw_uid)
    try:
        source = FolderSource(
            Settings.model_validate({"database_url": "postgresql://nowhere/rates", "data_dir": folder / "data"}),
            settle_seconds=0,
        )
        put(source, "a.csv").chmod(0)
        put(source, "b.csv")
        delivery = source.claim(0)
    finally:
        os.seteuid(os.getuid())
    assert delivery is not None
    assert delivery.name == "b.csv"


def test_an_entry_that_fails_stops_no_other(
    source: FolderSource, claim: Callable[[], FileDelivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(source, "a.csv")
    put(source, "b.csv")
    opened = os.open

    def failing(path: str, *args: object, **more: object) -> int:
        if path == "a.csv":
            raise OSError(5, "Input/output error")
        return opened(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", failing)
    with structlog.testing.capture_logs() as logs:
        assert claim().name == "b.csv"
    assert [log["error"] for log in logs] == ["Input/output error"]


@pytest.mark.parametrize(
    "name",
    [
        b"\xff\xfe.csv",
        b"line\nbreak.csv",
        b"-rf",
        b"a\x1b[31m.csv",
        "ü".encode() * 127,
        b"x" * 255,
    ],
)
def test_any_name_of_a_file_is_claimed_and_archived(
    settings: Settings, source: FolderSource, claim: Callable[[], FileDelivery], name: bytes
) -> None:
    put(source, os.fsdecode(b"acme/" + name))
    delivery = claim()
    assert delivery.name.isprintable()
    delivery.name.encode()
    target = archive_name(delivery.name)
    assert len(target.encode()) <= MAX_NAME_BYTES
    report = settings.data_dir / "report.json"
    report.write_text("{}")
    delivery.archive("processed", f"12345678-{target}", [report])
    assert len(archived(settings)) == 2


@pytest.mark.parametrize("supplier", ["acme", "a/b", "..", ".hidden", "ü b", "a%2Fb", "supplier-1-None", "x\n"])
def test_no_two_suppliers_share_a_folder(
    source: FolderSource, claim: Callable[[], FileDelivery], supplier: str
) -> None:
    folder = folder_of(supplier)
    assert "/" not in folder
    assert not folder.startswith(".")
    assert supplier_of(folder) == supplier.replace("\n", "\\n")
    upload = source.upload(supplier, "a.csv")
    upload.write(OLD)
    assert source.claim(0) is None
    upload.commit()
    upload.abort()
    assert claim().supplier == supplier_of(folder)


def test_a_full_disk_makes_an_upload_unavailable_and_leaves_nothing(source: FolderSource) -> None:
    upload = source.upload("acme", "a.csv")
    upload._file.close()
    upload._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed by abort
    with pytest.raises(Unavailable, match="No space left on device"):
        upload.write(OLD)
    upload.abort()
    assert [path for path in source.incoming.rglob("*") if path.is_file()] == []


def test_suppliers_take_turns(source: FolderSource, claim: Callable[[], FileDelivery]) -> None:
    for number in range(5):
        os.utime(put(source, f"flood/{number}.csv"), (number, number))
    os.utime(put(source, "late/a.csv"), (1000, 1000))
    os.utime(put(source, "late/b.csv"), (1001, 1001))
    assert [claim().supplier for _ in range(5)] == ["flood", "late", "flood", "late", "flood"]
