"""Ends a server that outlived whoever started it."""

import signal
from pathlib import Path

import psutil

_POLITE_SECONDS = 20.0
_KILLED_SECONDS = 5.0


def stop_orphan(pidfile: Path, *, works_in: Path, politely: signal.Signals) -> None:
    """End the process that `pidfile` names, if it is one whose working directory is `works_in`.

    The pid alone proves nothing: it may have gone to another program since. Raises `psutil.TimeoutExpired` when even
    SIGKILL doesn't end it.
    """
    try:
        pid = int(pidfile.read_text().split()[0])
        process = psutil.Process(pid)
        if Path(process.cwd()) != works_in.resolve():
            return
        process.send_signal(politely)
        try:
            process.wait(_POLITE_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(_KILLED_SECONDS)
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess, psutil.AccessDenied):
        return
