"""Manifests as other programs write them: read exactly, or refused by the name of the member."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rates_app.batches.model import Terms, Unreadable
from rates_app.batches.sources.manifest import parse_manifest


@pytest.mark.parametrize(
    ("content", "terms"),
    [
        (
            '\ufeff{"rows": 100,\r\n "total": "123450.10"}\r\n',
            Terms(expected_rows=100, expected_total=Decimal("123450.10")),
        ),
        ('{"rows": 1e2, "total": 1e5}', Terms(expected_rows=100, expected_total=Decimal(100_000))),
        ('{"total": 12345678901234.56}', Terms(expected_total=Decimal("12345678901234.56"))),
        (f'{{"sha256": "{"AB" * 32}"}}', Terms()),
    ],
)
def test_a_manifest_is_read(content: str, terms: Terms) -> None:
    assert parse_manifest(content.encode()).terms() == terms


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"rows": 1, "rows": 2}', "it has rows twice"),
        ('{"total": 1, "\\u0074otal": 1}', "it has total twice"),
        ('{"rows": true}', "rows: Value error, is not a number"),
        ('{"max_rejected_rows": true}', "max_rejected_rows: Value error, is not a number"),
        ('{"rows": 1.5}', "rows: Input should be a valid integer"),
        ('{"total": "1,234.50"}', "total: Input should be a valid decimal"),
        ('{"total": NaN}', "total: Input should be a finite number"),
        ('{"replaces": 3.0}', "replaces: Input should be a valid integer"),
        ('{"Rows": 1}', "Rows: Extra inputs are not permitted"),
        ("[]", "Input should be an object"),
        ('{"rows": 1}x', "Invalid JSON: trailing characters"),
    ],
)
def test_a_malformed_manifest_is_refused_by_the_name_of_its_member(content: str, reason: str) -> None:
    with pytest.raises(Unreadable) as error:
        parse_manifest(content.encode())
    assert reason in str(error.value)
