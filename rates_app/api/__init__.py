"""The HTTP service."""

from rates_app.api.application import create_app

__all__ = ["create_app"]
