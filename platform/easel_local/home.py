"""EASEL_HOME, the folder that holds everything Easel writes, and its private files."""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def home_of(env: Mapping[str, str]) -> Path:
    """Return the absolute path of EASEL_HOME (default ./var); it need not exist."""
    return Path(env.get("EASEL_HOME") or "var").resolve()


def run_dir(home: Path) -> Path:
    """Return the folder of locks, ports and pids."""
    return private_dir(home / "run")


def log_dir(home: Path) -> Path:
    """Return the folder of the embedded servers' logs."""
    return private_dir(home / "log")


def private_dir(path: Path) -> Path:
    """Create the folder if it is missing, and close it to other users."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace the file atomically, with mode 0600: a reader sees the old text or the new one, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def secret_key(home: Path) -> str:
    """Return this installation's EASEL_SECRET_KEY, generated on the first call."""
    path = home / "secret_key"
    home.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = home / f".secret_key.{os.getpid()}"
        write_private(draft, secrets.token_urlsafe(48))
        with suppress(FileExistsError):  # unlike a rename, a link fails if another process was first: its key is used
            os.link(draft, path)
        draft.unlink()
    return path.read_text()
