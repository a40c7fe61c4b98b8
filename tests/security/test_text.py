"""External text cannot control a terminal, become a formula, or leak a secret into a notification."""

from __future__ import annotations

import pytest

from rates_app.http.arguments import row_number
from rates_app.ops.text import csv_cell, printable
from rates_app.watch.excerpt import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Gda\u0144sk \u4e0a\u6d77", "Gda\u0144sk \u4e0a\u6d77"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("line\r\nfeed", "line\\r\\nfeed"),
    ],
)
def test_terminals_get_no_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\uff1d"])
def test_spreadsheets_get_no_formulas(start: str) -> None:
    assert csv_cell(f'{start}HYPERLINK("https://example.com")').startswith("'")
    assert csv_cell("12.50") == "12.50"
    assert csv_cell(None) == ""


SECRETS = [
    "rates_2mHijpX1Qz3fVpqV7WabTjrEEcWNlS9cCK_0IJ1UA",
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
    "postgresql://rates:hunter2hunter2@db/rates",
    'password = "two words"',
    "DB_PASSWORD=hunter2hunter2",
    "AWS_SECRET_ACCESS_KEY: abcdefgh/ijkl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\nabc\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_excerpts_carry_no_secret(secret: str) -> None:
    excerpt = redact(f"start {secret} end")
    assert "start" in excerpt
    hidden = ("hunter2", "MIIE", "two words", "abcdefgh/ijkl", "T00000000", "rates_2m", "AKIA", "wJal", "eyJ", "ghp_")
    assert not any(part in excerpt for part in hidden)


@pytest.mark.parametrize("line", ["a" * 32_000, "a-" * 16_000, "a." * 16_000, "a@" * 16_000, "token" * 6_000])
def test_excerpts_keep_ordinary_text(line: str) -> None:
    assert redact("batch 12 published") == "batch 12 published"
    assert len(redact(line)) <= 300


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("007", 7), ("2147483647", 2147483647), ("2147483648", None), ("0" * 12 + "9" * 5000, None)]
    + [(text, None) for text in ("", "-1", "1e3", "\u0661", " 1", "1\n")],
)
def test_batch_numbers(text: str, number: int | None) -> None:
    assert row_number(text) == number
