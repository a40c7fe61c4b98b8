"""HTTP without any endpoint: server, middleware, responses, problems, limits, health."""
