"""Operations: logs, metrics, traces, and runbooks in the terminal."""
