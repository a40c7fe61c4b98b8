"""What an operator can mend; the messages say how."""


class NoAccess(Exception):
    """The cluster cannot be reached, or the account may see nothing of it."""


class SearchError(Exception):
    """A search of logs cannot be done as asked."""
