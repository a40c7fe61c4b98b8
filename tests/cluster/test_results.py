"""A run's measurements replace those of earlier runs. These tests need no cluster."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.cluster.load import LoadResult
from tests.cluster.results import PAGE, TABLES, Measurements, Row, record

TALLY = LoadResult(12_345, 1, 0, 2, 1.0, 2.0, 30.4, 40.0, 107.4, ["/rates: 503"], 60.0)
FIRST, SECOND = datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 25, tzinfo=UTC)
EMPTY = "Before.\n" + "".join(f"<!-- {table} -->\n<!-- /{table} -->\nBetween.\n" for table in TABLES)


def measured(what: str) -> list[Row]:
    rows: list[Row] = []
    report = Measurements("test_faults.py::test_it", rows)
    report.load(what, TALLY)
    report.fault(what, "Pod", TALLY, began=100.0, lost=0)
    report.seen(what, "all of it")
    return rows


def test_every_kind_of_result_gets_a_row() -> None:
    page = record(EMPTY, measured("a pod is killed"), [], FIRST)
    begins, ends = "| a pod is killed | 2026-11-24 | 12,345 | 1 | 0 | 2 | 30 ms |", "| test_faults.py::test_it |"
    for line in (
        f"{begins} test_faults.py::test_it |",
        f"{begins} 7 s | 0, seconds for its open requests | 0 | none {ends}",
        "| a pod is killed | 2026-11-24 | all of it | test_faults.py::test_it |",
    ):
        assert line in page.splitlines()
    assert page.startswith("Before.\n<!-- load -->\n| action under load |")
    assert page.endswith("<!-- /runs -->\nBetween.\n")


def test_a_later_run_replaces_rows_of_the_same_name_and_keeps_the_others() -> None:
    page = record(EMPTY, [*measured("one"), *measured("other")], [], FIRST)
    page = record(page, measured("one"), ["test_faults.py::test_it"], SECOND)
    (line,) = (line for line in page.splitlines() if line.startswith("| one |") and "all of it" in line)
    assert line == "| one | 2026-11-25 | all of it | test_faults.py::test_it, **failed** |"
    assert "| other | 2026-11-24 | all of it | test_faults.py::test_it |" in page
    assert record(page, [], [], SECOND) == page


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="has no table 'load'"):
        record("Nothing.", [], [], FIRST)


def test_the_page_has_the_format_that_a_run_writes() -> None:
    page = PAGE.read_text()
    assert record(page, [], [], FIRST) == page
