"""A disk that takes nothing, made by a limit on the size of files: it needs no root and no disk of its own."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(pid: int = 0):
    """While inside, no file can be written by a process (0: this one); what it has written so far stays."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
