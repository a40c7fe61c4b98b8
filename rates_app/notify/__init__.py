"""Hand alerts to Alertmanager, to an e-mail server where there is none, and to GitHub's issues."""
