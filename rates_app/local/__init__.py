"""Run the whole system on one machine: PostgreSQL with a streaming replica, Redis and the service, all from PyPI."""
