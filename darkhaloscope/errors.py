"""The kind of error that explains itself: one rule by which every command tells a user's mistake from our own."""


class Explained(Exception):
    """Something a person can put right: the message says what was found, what was expected and what to do.

    Commands print it as one line and end with status 1; any other exception is a fault of the code, with its traceback.
    """
