"""State of a home's stack, as another process sees it."""

import os
from dataclasses import dataclass
from pathlib import Path

from easel_local.stack import is_ready, recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """State of a stack; `processes` has the pid of each process and server, or None for one that doesn't run."""

    url: str
    ready: bool
    processes: dict[str, int | None]

    @property
    def up(self) -> bool:
        return self.ready and all(self.processes.values())

    def as_json(self) -> dict[str, object]:
        return {"up": self.up, "url": self.url, "ready": self.ready, "processes": self.processes}

    def as_text(self) -> str:
        if not self.url:
            return "easel is not running here (`easel up` starts it)"
        width = max(map(len, self.processes), default=0)
        rows = [f"  {name:<{width}}  {pid or 'not running'}" for name, pid in self.processes.items()]
        return "\n".join([f"{self.url} is {'ready' if self.ready else 'not ready'}", *rows])


def stack_status(home: Path) -> StackStatus:
    """Read the state file of the stack, and checks which of its processes are alive."""
    state = recorded(home)
    pids = state and state["processes"]
    if state is None or not isinstance(pids, dict) or not _is_alive(state["pid"]):
        return StackStatus(url="", ready=False, processes={})
    processes = {str(name): int(pid) if _is_alive(pid) else None for name, pid in pids.items()}
    url = str(state["url"])
    return StackStatus(url=url, ready=is_ready(url), processes=processes | _servers(home))


def _servers(home: Path) -> dict[str, int | None]:
    pidfiles = {"postgres": home / "postgres" / "postmaster.pid", "redis": home / "run" / "redis.pid"}
    return {
        name: (pid if _is_alive(pid := int(pidfile.read_text().split()[0])) else None)
        for name, pidfile in pidfiles.items()
        if pidfile.exists()
    }


def _is_alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs as another user
    return True
