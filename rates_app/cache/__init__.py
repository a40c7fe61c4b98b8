"""Answers kept ready to send, for as long as they are true."""
