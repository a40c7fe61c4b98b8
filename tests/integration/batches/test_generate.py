"""Generated batches resemble the sample and have exactly the requested defects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from rates_app.batches import ledger
from rates_app.batches.generate import DEFECTS, NoSuchDefect, generate, parse_defects, read_sample, sample_file
from rates_app.batches.pipeline.engine import ingest

if TYPE_CHECKING:
    from pathlib import Path

    from rates_app.batches.generate import Defect
    from rates_app.settings import Settings

SAMPLE = read_sample(sample_file())
SPOILT_FIELDS = {
    "unknown-port": "orig_code",
    "region": "dest_code",
    "no-such-day": "day",
    "day-form": "day",
    "zero-price": "price",
    "text-price": "price",
    "missing": "row",
    "extra": "row",
}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst"])
def test_a_batch_without_defects_is_published(settings: Settings, tmp_path: Path, name: str) -> None:
    assert generate(tmp_path / name, 30_000, sample=SAMPLE, days=10) == {}
    batch, _ = ingest(settings, str(tmp_path / name))
    assert (batch.state, batch.rows, batch.compression == "none") == ("published", 30_000, name == "a.csv")
    assert batch.last_day is not None
    assert batch.first_day is not None
    assert (batch.last_day - batch.first_day).days == 9
    assert batch.lanes is not None
    assert 600 < batch.lanes <= 725, "the sample's lanes, except for some that are rare"
    assert batch.total_cents is not None
    average = float(batch.total_cents) / 30_000 / 100
    assert average == pytest.approx(SAMPLE.prices.mean(), rel=0.05)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_in_as_many_rows_as_were_spoilt(settings: Settings, tmp_path: Path, defect: Defect) -> None:
    done = generate(tmp_path / "a.csv", 20_000, sample=SAMPLE, defects={defect: 0.001})
    assert 5 <= done[defect] <= 50
    batch, _ = ingest(settings, str(tmp_path / "a.csv"))
    assert (batch.state, batch.rejected) == ("refused", done[defect])
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        assert {reject.field for reject in ledger.iter_rejects(connection, batch.id)} == {SPOILT_FIELDS[defect]}


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(tmp_path / name, 1000, sample=SAMPLE, defects={"missing": 0.1}, seed=seed)
    first, second, third = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == second != third


@pytest.mark.parametrize(
    "texts", [["nope=0.1"], ["missing"], ["missing=2"], ["missing=-1"], ["missing=1", "extra=0.1"]]
)
def test_impossible_defects_are_reported(texts: list[str]) -> None:
    with pytest.raises(NoSuchDefect):
        parse_defects(texts)
