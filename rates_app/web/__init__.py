"""The pages: rendered on the server, complete without JavaScript, answered from the caches like the API."""

from rates_app.web import assets, batches, explore, guides, rates, status
from rates_app.web.rendering import views

__all__ = ["assets", "batches", "explore", "guides", "rates", "status", "views"]
