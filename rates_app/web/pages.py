"""All pages on one blueprint: each module adds its own when it is imported."""

from rates_app.web import (
    alerts,
    assets,
    batches,
    blank_files,
    explore,
    guides,
    lane_map,
    quotes,
    rates,
    reference,
    sign_in,
    site,
    status,
    workbook,
)
from rates_app.web.rendering import views

__all__ = [
    "alerts",
    "assets",
    "batches",
    "blank_files",
    "explore",
    "guides",
    "lane_map",
    "quotes",
    "rates",
    "reference",
    "sign_in",
    "site",
    "status",
    "views",
    "workbook",
]
