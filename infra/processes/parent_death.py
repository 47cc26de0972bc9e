"""End a child process with the one that started it, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "RATCHET_PARENT_PID"
"""Environment variable by which a launcher tells its child whom to die with."""


def die_with_parent() -> None:
    """If a launcher named itself in `PARENT`, end this process as soon as that one has ended.

    The kernel does it on Linux (PR_SET_PDEATHSIG); elsewhere a thread looks twice a second.
    """
    named = os.environ.get(PARENT)
    if not named:
        return
    parent = int(named)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun stands between: whoever of the two ends, this process ends
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        parent = os.getppid()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)
    if sys.platform != "linux":
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(pid: int) -> None:
    """End this process when the other has ended."""
    import psutil

    while psutil.pid_exists(pid):
        time.sleep(0.5)
    os._exit(1)
