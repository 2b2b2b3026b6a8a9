"""Ends an orphan: a server whose owner is gone."""

import signal
from pathlib import Path

import psutil

_GRACE_SECONDS = 20.0
_KILL_SECONDS = 5.0


def stop_orphan(pidfile: Path, *, works_in: Path, stop_signal: signal.Signals) -> None:
    """End the process that `pidfile` names, if its working directory is `works_in`.

    The pid alone doesn't identify it: the system may have given it to another program since. Sends `stop_signal`
    first and SIGKILL after 20 seconds; raises `psutil.TimeoutExpired` if the process survives even that.
    """
    try:
        pid = int(pidfile.read_text().split()[0])
        process = psutil.Process(pid)
        if Path(process.cwd()) != works_in.resolve():
            return
        process.send_signal(stop_signal)
        try:
            process.wait(_GRACE_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(_KILL_SECONDS)
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess, psutil.AccessDenied):
        return
