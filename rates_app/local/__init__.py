"""The whole system on one machine: PostgreSQL with a streaming replica, Redis and the service, from PyPI alone."""
