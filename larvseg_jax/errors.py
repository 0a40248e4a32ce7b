"""The exceptions that stand for a mistake in what the user gave us."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where (file, value), what to do about it.

    The command line tools print it as `error: ...` and leave with exit code 2.
    """


class DataError(UserError):
    """Something wrong with a data set; the parts of the message can be read, so that faults can be sorted and counted.

    Attributes:
      kind: key of data_pipelines.faults.KINDS.
      what: file and value.
      remedy: what to do about it.
    """

    def __init__(self, kind: str, what: str, remedy: str) -> None:
        super().__init__(kind, what, remedy)  # all three, so that the error can be pickled
        self.kind, self.what, self.remedy = kind, what, remedy

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


class Stopped(Exception):
    """The end of a program that was asked to stop: what it has kept, and its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
