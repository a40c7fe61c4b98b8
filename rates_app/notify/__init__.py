"""Notices to people and their tools: one when something is wrong, one when it is over, none lost in between."""
