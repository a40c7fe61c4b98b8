"""What operators look at: logs, metrics, traces and runbooks."""
