"""A wrong setting stops the start and is named; the documented table matches the code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from rates_app.cli import app
from rates_app.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _unread() -> Iterator[None]:
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATES_DATABASE_URL", raising=False)
    with pytest.raises(SettingsError, match="RATES_DATABASE_URL"):
        load_settings()


def test_every_wrong_setting_is_named_and_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_DATABASE_URL", "mysql://user:hunter2@host/name")
    monkeypatch.setenv("RATES_PORT", "eighty")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "RATES_DATABASE_URL" in str(caught.value)
    assert "RATES_PORT" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_replicas_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_DATABASE_URL", "postgresql://a/b")
    monkeypatch.setenv("RATES_REPLICA_URLS", "postgresql://c/d, postgresql://e/f")
    urls = [url.get_secret_value() for url in load_settings().replica_urls]
    assert urls == ["postgresql://c/d", "postgresql://e/f"]


def test_of_several_hosts_the_one_that_accepts_writes_is_the_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_DATABASE_URL", "postgresql://u:p@a:1,b:2/rates?connect_timeout=3")
    monkeypatch.setenv(
        "RATES_REPLICA_URLS", "postgresql://u:p@b:2,a:1/rates?target_session_attrs=standby,postgres://c/d"
    )
    settings = load_settings()
    assert settings.database_url.get_secret_value() == (
        "postgresql://u:p@a:1,b:2/rates?connect_timeout=3&target_session_attrs=read-write"
    )
    assert [url.get_secret_value() for url in settings.replica_urls] == [
        "postgresql://u:p@b:2,a:1/rates?target_session_attrs=standby",
        "postgres://c/d",
    ]
    # A single host may be a standby before its promotion, as in a second region, and serve reads.
    alone = Settings.model_validate({"database_url": "postgresql://u:p@a/rates"})
    assert alone.database_url.get_secret_value() == "postgresql://u:p@a/rates"


def test_printed_settings_contain_no_secrets() -> None:
    settings = Settings.model_validate({"database_url": "postgresql://user:hunter2@host/name"})
    assert "hunter2" not in repr(settings)


def test_the_documented_settings_are_those_of_the_code() -> None:
    table = CliRunner().invoke(app, ["settings", "--markdown"], catch_exceptions=False).stdout
    assert table in (ROOT / "docs/settings.md").read_text(), "run 'make docs'"
