"""What ties a child to its supervisor: run as a program of its own, before the child or beside it.

    python leash.py exec SUPERVISOR -- ARGV...   become ARGV, to be killed by the kernel when SUPERVISOR dies (Linux)
    python leash.py hold -- ARGV...              become ARGV after one byte on stdin; end if stdin ends first
    python leash.py watch GROUP                  kill the process GROUP when stdin ends without a byte

A program and not a `preexec_fn`: forked code between fork and exec may deadlock in a process with threads, and Kafka's
clients start threads. It imports nothing but the standard library, so that it starts in a hundredth of a second.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(supervisor: int) -> None:
    """Ask the kernel to kill this process when the one that started it dies."""
    import ctypes  # noqa: PLC0415  (Linux alone needs it)

    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # It may have died before the kernel was asked: then nobody is left to kill us.
    if os.getppid() != supervisor:
        sys.exit("the supervisor died")


def become(argv: list[str]) -> None:
    """Replace this process by `argv`, with the signals as a fresh process has them: Python ignores two of them."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  (no shell is wanted)
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")


def main(mode: str, *rest: str) -> None:
    """Do what the first argument says."""
    match mode, rest:
        case "exec", (supervisor, "--", *argv):
            die_with(int(supervisor))
            become(argv)
        case "hold", ("--", *argv):
            if not os.read(0, 1):
                sys.exit("the supervisor died")
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            become(argv)
        case "watch", (group,):
            if not os.read(0, 1):
                os.killpg(int(group), signal.SIGKILL)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
