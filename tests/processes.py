"""What tests ask of processes that they did not start themselves."""

import psutil


def is_alive(pid: int) -> bool:
    """Return true unless the process has ended, even if nobody has taken its exit status yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
