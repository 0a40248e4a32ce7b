"""The one exception that stands for a mistake in what the user gave us."""


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where (file, value), what to do about it.

    The command line tools print it as `error: ...` and leave with exit code 2.
    """
