"""``rates doctor`` and ``rates probe``."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rates_app.console import AsJson, print_json, print_table
from rates_app.doctor.places import check_address, check_deliveries, check_queue
from rates_app.doctor.stores import check_ledger, check_primary, check_redis, check_replica, server_name
from rates_app.ops.check import run_checks
from rates_app.ops.probe import DELIVERY_SECONDS, QUESTION_SECONDS, KnownAnswer, delivery_checks, question_checks
from rates_app.ops.text import printable
from rates_app.settings import load_settings

if TYPE_CHECKING:
    from rates_app.ops.check import Check, CheckResult
    from rates_app.settings import Settings

#: A rate of the sample data.
SAMPLE = KnownAnswer(origin="HKHKG", destination="SESTO", day="2021-01-31", average=1171.33)


def _checks(settings: Settings, url: str | None) -> dict[str, tuple[Check, str]]:
    """Return every check of a stack with the runbook that applies if it fails."""
    operator = settings.database_url_of("operator")
    checks: dict[str, tuple[Check, str]] = {
        f"primary {server_name(operator)}": (partial(check_primary, operator), "database-errors"),
        "ledger": (partial(check_ledger, operator), "database-errors"),
    }
    for replica in (each.get_secret_value() for each in settings.replica_urls):
        checks[f"replica {server_name(replica)}"] = (
            partial(check_replica, replica, settings.replica_pooling),
            "database-errors",
        )
    if settings.redis_url is not None:
        redis_url = settings.redis_url.get_secret_value()
        checks[f"Redis {server_name(redis_url)}"] = (partial(check_redis, redis_url), "cache-down")
    if settings.incoming_bucket is None and settings.data_dir.exists():
        checks["deliveries"] = (partial(check_deliveries, settings.data_dir), "disk-full")
    if settings.incoming_queue_url is not None:
        checks["queue"] = (partial(check_queue, settings.incoming_queue_url), "dispatcher-down")
    if url is not None:
        checks[url] = (partial(check_address, url), "service-down")
    return checks


def doctor(
    url: Annotated[str | None, typer.Option(help="Public address to check, such as https://rates.example.com.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Check the stores, the ledger, the deliveries and the public address, and name the runbook of each problem.

    Every check has a deadline, so a store that hangs is reported within seconds. The exit status is 1 if there is a
    problem.

    Example: `rates doctor --url https://rates.example.com`
    """
    _report(run_checks(_checks(load_settings(), url)), as_json=as_json)


def probe(  # noqa: PLR0917 - typer passes options by name
    url: Annotated[str, typer.Argument(help="Public address, such as https://rates.example.com.")],
    origin: Annotated[str, typer.Option(help="Port of origin.")] = SAMPLE.origin,
    destination: Annotated[str, typer.Option(help="Port of destination.")] = SAMPLE.destination,
    day: Annotated[str, typer.Option(help="Day with at least three prices.")] = SAMPLE.day,
    average: Annotated[float, typer.Option(help="Known average of the day in USD.")] = SAMPLE.average,
    token: Annotated[
        str | None,
        typer.Option(envvar="RATES_PROBE_TOKEN", help="Token of the test supplier. With it, a test batch is checked."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask page and API for a rate that is known, and compare the value. The known rate is one of the sample data.

    With a token, also deliver a test batch with `check=true` and compare its effect; nothing is published. The exit
    status is 1 if an answer is wrong or missing.

    Example: `rates probe https://rates.example.com`
    """
    known = KnownAnswer(origin=origin, destination=destination, day=day, average=average)
    try:
        results = run_checks(question_checks(url, known), QUESTION_SECONDS)
        if token is not None:
            results |= run_checks(delivery_checks(url, known, token), DELIVERY_SECONDS)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="URL") from None
    _report(results, as_json=as_json)


def _report(results: dict[str, CheckResult], *, as_json: bool) -> None:
    """Print the results, and exit with 1 if there is a problem."""
    if as_json:
        print_json({name: asdict(result) for name, result in results.items()})
    else:
        _print(results)
    if any(result.problems for result in results.values()):
        raise typer.Exit(1)


def _print(results: dict[str, CheckResult]) -> None:
    table = Table("Check", "State", "Finding", "Next", box=None)
    for name, result in results.items():
        for problem in result.problems:
            table.add_row(escape(name), "PROBLEM", escape(printable(problem.text)), f"rates runbook {problem.runbook}")
        if not result.problems:
            table.add_row(escape(name), "ok", escape(result.text), "")
    print_table(table)
