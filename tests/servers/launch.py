"""Become a program that ends when the process that started it does, even if that was killed.

    python launch.py PARENT_PID PROGRAM [ARGUMENT ...]

Only Linux can promise it; elsewhere the program is just started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent ended first")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
