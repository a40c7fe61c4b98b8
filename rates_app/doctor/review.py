"""``rates review``: the batches, alerts and objectives of a week, as a Markdown page for the handover."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import requests
import typer

from rates_app.console import AsJson, print_json
from rates_app.ops.command import command_settings
from rates_app.store.connections import connect_operator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rates_app.store.databases import Connection

#: An alert whose episodes are shorter on average, in minutes, ended before a person could act.
NOISE_MINUTES = 10

#: Shares over 30 days, and the budget of each, as in docs/observability.md.
OBJECTIVES = (
    ("requests without a server error", "rates:error_ratio:rate30d", 0.001),
    ("reads within 250 ms", "rates:slow_ratio:rate30d", 0.01),
)

_FIRING = 'max by (alertname, severity) (ALERTS{alertstate="firing", alertname!="Watchdog"})'
#: Minutes during which each alert fired, and how often it began, over ``DAYS`` days.
MINUTES = f"count_over_time({_FIRING}[DAYSd:1m])"
BEGINNINGS = f"count_over_time(({_FIRING} unless {_FIRING.replace('})', '} offset 1m)')})[DAYSd:1m])"

_TIMEOUT_SECONDS = 60


class SupplierReview(NamedTuple):
    """The batches of one supplier that arrived in the period.

    Attributes:
        supplier: The supplier.
        published: Published batches.
        refused: Refused ones.
        failed: Failed ones.
        late: Batches that were published after their deadline, or not at all although it has passed.
        seconds: Median time from the arrival to the publication; None without a published batch.
    """

    supplier: str
    published: int
    refused: int
    failed: int
    late: int
    seconds: float | None


class AlertReview(NamedTuple):
    """How often one alert fired in the period, and for how many minutes in total."""

    name: str
    severity: str
    times: int
    minutes: int

    @property
    def noise(self) -> bool:
        """Whether its episodes were too short for a person to act."""
        return self.minutes < NOISE_MINUTES * self.times


def review_batches(connection: Connection, days: int) -> list[SupplierReview]:
    """Count the batches of each supplier.

    Args:
        connection: The ledger.
        days: Days until now.
    """
    rows = connection.execute(
        """
        SELECT supplier, count(*) FILTER (WHERE published_at IS NOT NULL), count(*) FILTER (WHERE state = 'refused'),
            count(*) FILTER (WHERE state = 'failed'),
            count(*) FILTER (WHERE deadline < coalesce(published_at, clock_timestamp())
                             AND state NOT IN ('refused', 'checked')),
            percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM published_at - received_at)::float8)
        FROM batches WHERE received_at > clock_timestamp() - make_interval(days => %s) AND NOT check_only
        GROUP BY supplier ORDER BY supplier
        """,
        (days,),
    ).fetchall()
    return [SupplierReview(*row) for row in rows]


def review_alerts(prometheus: str, days: int) -> list[AlertReview]:
    """Count how often each alert fired, the most frequent first.

    Args:
        prometheus: Address of Prometheus.
        days: Days until now.

    Raises:
        requests.RequestException: Prometheus is unreachable or refuses a query.
    """
    times = {_alert(each): _value(each) for each in _query(prometheus, BEGINNINGS.replace("DAYS", str(days)))}
    minutes = {_alert(each): _value(each) for each in _query(prometheus, MINUTES.replace("DAYS", str(days)))}
    # An alert that fired before the period has no beginning in it.
    found = [AlertReview(*alert, max(1, int(times.get(alert, 1))), int(minutes[alert])) for alert in minutes]
    return sorted(found, key=lambda each: (-each.times, -each.minutes, each.name))


def review_objectives(prometheus: str) -> dict[str, float]:
    """Return the share of each error budget that is used, by the objective.

    Args:
        prometheus: Address of Prometheus.

    Raises:
        requests.RequestException: Prometheus is unreachable or refuses a query.
    """
    return {
        objective: _value(each) / budget
        for objective, metric, budget in OBJECTIVES
        for each in _query(prometheus, f"max({metric})")
    }


def review(
    days: Annotated[int, typer.Option(min=1, max=35, help="Days until now.")] = 7,
    prometheus: Annotated[
        str | None, typer.Option(help="Address of Prometheus: review its alerts and objectives instead of the batches.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Print a week's batches, or its alerts and objectives, as a Markdown page.

    The ledger is reachable from the dispatcher's pod, Prometheus through a forwarded port.

    Example: `rates review`, then `rates review --prometheus http://127.0.0.1:9090`
    """
    if prometheus is None:
        with connect_operator(command_settings()) as connection:
            found = review_batches(connection, days)
        if as_json:
            print_json({"days": days, "suppliers": [each._asdict() for each in found]})
            return
        cells = [
            (each.supplier, each.published, each.refused, each.failed, each.late, _seconds(each.seconds))
            for each in found
        ]
        columns = ("supplier", "published", "refused", "failed", "late", "median time to publication")
        _print(f"Batches of the last {days} days", columns, cells)
        return
    firing, shares = _ask(prometheus, days)
    if as_json:
        listed = [each._asdict() | {"noise": each.noise} for each in firing]
        print_json({"days": days, "alerts": listed, "error_budgets_used": shares})
        return
    alerts = [(each.name, each.severity, each.times, each.minutes, _verdict(each)) for each in firing]
    _print(f"Alerts of the last {days} days", ("alert", "severity", "times", "minutes", ""), alerts)
    used = [(objective, f"{share:.0%}") for objective, share in shares.items()]
    _print("Error budgets of the last 30 days", ("objective", "used"), used)


def _ask(prometheus: str, days: int) -> tuple[list[AlertReview], dict[str, float]]:
    try:
        return review_alerts(prometheus, days), review_objectives(prometheus)
    except requests.RequestException as error:
        raise typer.BadParameter(f"Prometheus does not respond: {error}", param_hint="--prometheus") from error


def _query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """Evaluate an expression now."""
    url = f"{prometheus.rstrip('/')}/api/v1/query"
    response = requests.get(url, {"query": expression}, timeout=_TIMEOUT_SECONDS)
    response.raise_for_status()
    return list(response.json()["data"]["result"])


def _alert(sample: dict[str, Any]) -> tuple[str, str]:
    labels = sample["metric"]
    return labels["alertname"], labels.get("severity", "")


def _value(sample: dict[str, Any]) -> float:
    return float(sample["value"][1])


def _verdict(alert: AlertReview) -> str:
    return f"noise: under {NOISE_MINUTES} minutes each" if alert.noise else ""


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s"


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a heading and a table in Markdown."""
    lines = [f"## {title}", "", _line(columns), _line(["---"] * len(columns)), *map(_line, rows), "", ""]
    sys.stdout.write("\n".join(lines))


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
