"""The one exception that means "the input is wrong": a message for people, never a traceback."""


class InputError(Exception):
    """What a user gave cannot be used.

    The message says what was given, where (file, line or field), what is allowed and what to do.
    The command line prints it and exits with status 2; library callers may catch it.
    """
