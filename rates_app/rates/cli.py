"""The command `rates rate`: print the rates of a lane as a table with bars, or as JSON."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer
from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from rates_app.console import AsJson, print_json, print_table
from rates_app.ops.logs import configure_logs
from rates_app.rates.answers import OpenRatesQuestion, UnknownLocation
from rates_app.rates.model import Interval, RangeError
from rates_app.settings import load_settings
from rates_app.store.connections import connect_operator

#: Characters of the bar of the highest average.
BAR_WIDTH = 24


def rate(
    origin: Annotated[str, typer.Argument(help="UN/LOCODE of a port or slug of a region.")],
    destination: Annotated[str, typer.Argument(help="UN/LOCODE of a port or slug of a region.")],
    last: Annotated[str, typer.Option(help="Range up to the last day with prices: 30d, or ytd.")] = "30d",
    interval: Annotated[Interval, typer.Option(help="Length of an interval.")] = "day",
    *,
    as_json: AsJson = False,
) -> None:
    """Print the rates of a lane, with a bar for each average.

    Example: `rates rate CNGGZ EETLL --last 30d`
    """
    settings = load_settings()
    configure_logs(settings, typer.get_text_stream("stderr"))
    period = last.strip().lower()
    if period != "ytd" and not (period.endswith("d") and period[:-1].isdecimal() and int(period[:-1]) > 0):
        raise typer.BadParameter(f"{last!r} is not a range. Write a number of days such as 30d, or ytd.")
    question = OpenRatesQuestion(
        origin, destination, None, None, period, interval, "application/json", settings.max_range_days
    )
    try:
        with connect_operator(settings) as connection:
            body = question.render(connection)
    except UnknownLocation as error:
        unknown = [
            f"{code!r} is not a known port or region." + (f" Did you mean {', '.join(near)}?" if near else "")
            for code, near in error.unknown.values()
        ]
        raise typer.BadParameter(" ".join(unknown)) from None
    except RangeError as error:
        raise typer.BadParameter(f"The range {error}.") from None
    answer = orjson.loads(body)
    if as_json:
        print_json(answer)
    else:
        _show(answer)


def _show(answer: dict[str, Any]) -> None:
    out = Console()
    name = f"{answer['origin']['name']} → {answer['destination']['name']}"
    rates = answer["rates"]
    if not rates:
        out.print(f"No prices have been published for {name}.")
        return
    table = Table(title=f"{name}, {answer['currency']} for one container", title_justify="left")
    for title in (answer["interval"].capitalize(), "Average", "Low", "Median", "High", "Prices"):
        table.add_column(title, justify="left" if title == answer["interval"].capitalize() else "right")
    table.add_column("Average from 0")
    highest = max((each["average"] or 0 for each in rates), default=0)
    for each in reversed(rates):
        days = (
            each["date_from"] if each["date_from"] == each["date_to"] else f"{each['date_from']} to {each['date_to']}"
        )
        money = ("-" if each[key] is None else f"{each[key]:,.2f}" for key in ("average", "low", "median", "high"))
        bar = Bar(highest, 0, each["average"], width=BAR_WIDTH) if each["average"] else ""
        table.add_row(days, *money, f"{each['count']:,}", bar)
    print_table(table)
