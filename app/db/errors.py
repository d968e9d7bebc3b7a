"""What ends the start of the service, because the record cannot be opened as configured.

DatabaseUnsupported     the URL names a database, or needs a driver, that is not there
"""


class DatabaseUnsupported(ValueError):
    """The URL cannot be used; the sentence says what to change. It never quotes the URL, which may hold a password."""
