"""Errors that an operator can fix. Their messages say how."""


class NoAccess(Exception):
    """The cluster cannot be reached, or the service account lacks permissions."""


class SearchError(Exception):
    """A log search has invalid arguments or failed."""
