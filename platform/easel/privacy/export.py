"""Exports all data of a tenant: its rows as JSON Lines, its files, and a manifest of both.

    tenant.jsonl job.jsonl usage_record.jsonl …   one file per table, one line per row, columns as in the database
    files/outputs/…  files/adapters/…             images and adapters, at a row's `storage_key` less the tenant's slug
    files/batches/…                               the uploaded requests of batches
    files.jsonl                                   path, size_bytes and sha256 of each file
    manifest.json                                 rows, bytes and sha256 of each .jsonl, written last

All rows are of one instant (REPEATABLE READ). Files are read later: one that was deleted since has `"missing": true`.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, Protocol

from django.db import connection, transaction

from billing.models import StoredObject
from core.errors import DomainError
from easel.batches.models import File
from easel.privacy.holdings import holdings
from easel.storage import store
from tenants.models import Tenant

FORMAT = 1
_CHUNK_BYTES = 2**20
_CHUNK_ROWS = 2000

Open = Callable[[str], IO[bytes]]


class ExportExists(DomainError, code="export_exists", http_status=409):
    """This path exists already: choose another.

    Name a path that doesn't exist.
    """


class OnProgress(Protocol):
    """A callback that counts: `step` more of `total` rows and files are done."""

    def __call__(self, step: int, *, total: int) -> None: ...


def tenant_export(*, tenant: Tenant, to: Path, now: datetime, progress: OnProgress) -> dict[str, Any]:
    """Write an export to `to`, a zip file if the name ends in `.zip` and else a folder; return the manifest.

    Memory use doesn't grow with the number of rows. An unfinished export has a name that ends in `.part`. Raises
    `ExportExists`.
    """
    if to.exists():
        raise ExportExists(f"{to} exists: choose another name")
    part = to.with_name(f"{to.name}.part")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        with _zip(part, now) if to.suffix == ".zip" else _folder(part) as member:
            manifest = _write(tenant, member, now, progress)
    part.rename(to)
    return manifest


def _write(tenant: Tenant, member: Open, now: datetime, progress: OnProgress) -> dict[str, Any]:
    tables = holdings()
    stored = StoredObject.objects.filter(project__tenant=tenant, deleted_at=None).order_by("pk")
    uploaded = File.objects.filter(tenant=tenant).exclude(storage_key="").order_by("pk")
    files = [found.values_list("storage_key", flat=True) for found in (stored, uploaded)]
    total = sum(table.rows(tenant).count() for table in tables) + sum(found.count() for found in files)
    written: dict[str, Any] = {}
    for table in tables:
        with _Hashed(member(f"{table.name}.jsonl")) as file:
            for row in table.rows(tenant).iterator(chunk_size=_CHUNK_ROWS):
                file.line(row)
                progress(1, total=total)
        written[f"{table.name}.jsonl"] = {"rows": file.lines, **file.summary}
    # A zip takes one member at a time, so the index of the files is written to a temporary file first.
    with tempfile.TemporaryFile() as index_file:
        index, missing = _Hashed(index_file), 0
        for key in chain.from_iterable(found.iterator(chunk_size=_CHUNK_ROWS) for found in files):
            path = f"files/{key.removeprefix(f'{tenant.slug}/')}"
            try:
                source = store().open(key)
            except FileNotFoundError:
                missing += 1
                index.line({"path": path, "missing": True})
            else:
                with source, _Hashed(member(path)) as file:
                    shutil.copyfileobj(source, file, _CHUNK_BYTES)
                index.line({"path": path, **file.summary})
            progress(1, total=total)
        index_file.seek(0)
        with member("files.jsonl") as listing:
            shutil.copyfileobj(index_file, listing, _CHUNK_BYTES)
    written["files.jsonl"] = {"rows": index.lines, "missing": missing, **index.summary}
    manifest = {"format": FORMAT, "tenant": tenant.slug, "exported_at": now.isoformat(), "contents": written}
    with member("manifest.json") as out:
        out.write(json.dumps(manifest, indent=2).encode() + b"\n")
    return manifest


class _Hashed:
    """A file that counts its bytes and lines and computes its SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size_bytes = self.lines = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.size_bytes += len(data)

    def line(self, row: dict[str, Any]) -> None:
        self.write(json.dumps(row, default=_plain, ensure_ascii=False).encode() + b"\n")
        self.lines += 1

    @property
    def summary(self) -> dict[str, Any]:
        return {"size_bytes": self.size_bytes, "sha256": self._sha256.hexdigest()}

    def __enter__(self) -> "_Hashed":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _plain(value: Any) -> str:
    """Write times in ISO 8601, and decimals and ids as text, without loss of precision."""
    return value.isoformat() if isinstance(value, date) else str(value)


# Only the user who runs the command may read either: an export holds prompts and images.
@contextmanager
def _zip(path: Path, now: datetime) -> Iterator[Open]:
    """Open a zip file; compress rows alone, since images and weights don't shrink."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w") as archive:

        def member(name: str) -> IO[bytes]:
            info = zipfile.ZipInfo(name, now.timetuple()[:6])
            info.compress_type = zipfile.ZIP_STORED if name.startswith("files/") else zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            return archive.open(info, "w", force_zip64=True)

        yield member


@contextmanager
def _folder(path: Path) -> Iterator[Open]:
    """Open a folder."""
    path.mkdir(mode=0o700, exist_ok=True)

    def member(name: str) -> IO[bytes]:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("wb")

    yield member
