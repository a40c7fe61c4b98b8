"""How fast answers are, compared with what a server can do at all and with what most would write first."""
