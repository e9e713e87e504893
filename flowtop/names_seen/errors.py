"""What is wrong with a message."""


class MalformedError(ValueError):
    """Not a message of the kind that it begins like."""


class IncompleteError(Exception):
    """The message goes on, and what is looked for was not in what is there."""
