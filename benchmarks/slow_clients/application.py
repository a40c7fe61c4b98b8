"""The service's application for other WSGI servers, with settings from the environment."""

from __future__ import annotations

from rates_app.application import create_app
from rates_app.settings import load_settings

app = create_app(load_settings())
