"""The worker's cache of adapters: parsed in memory, as files on disk, else downloaded from a signed URL."""

import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import structlog

from inference import metrics
from inference.adapters import AdapterTable
from inference.contract import AdapterRef
from inference.errors import AdapterRejected
from inference.worker.transfer import download

log = structlog.get_logger()


@dataclass(kw_only=True, eq=False)
class AdapterStore:
    """An LRU cache of adapters by content hash. It is thread-safe; concurrent callers share one download of a hash.

    `parse` makes a table of a file and its hash. An evicted table lives on while rows in flight use it. Several
    workers may share the folder.
    """

    folder: Path
    disk_bytes_max: int
    memory_bytes_max: int
    client: httpx.Client
    parse: Callable[[Path, str], AdapterTable]

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._tables: OrderedDict[str, AdapterTable] = OrderedDict()
        self._tables_lock = threading.Lock()
        # Striped by hash: one lock per hash would have to be garbage-collected.
        self._download_locks = [threading.Lock() for _ in range(64)]

    def get(self, ref: AdapterRef) -> AdapterTable:
        """Return the table. Raises `AdapterRejected` if the file does not fit, `TransferError` if there is none."""
        if not re.fullmatch(r"[0-9a-f]{64}", ref.sha256):
            raise AdapterRejected("an adapter must be named by its SHA-256 hash", code="adapter_hash_bad")
        path = self.folder / f"{ref.sha256}.safetensors"
        if table := self._cached(ref.sha256):
            metrics.ADAPTER_LOADS.labels("memory").inc()
            _touch(path)
            return table
        with self._download_locks[int(ref.sha256[:8], 16) % len(self._download_locks)]:
            return self._cached(ref.sha256) or self._load(ref, path)

    def _cached(self, sha256: str) -> AdapterTable | None:
        with self._tables_lock:
            if sha256 in self._tables:
                self._tables.move_to_end(sha256)
            return self._tables.get(sha256)

    def _load(self, ref: AdapterRef, path: Path) -> AdapterTable:
        started = time.monotonic()
        source = "disk" if _touch(path) else "storage"
        if source == "storage":
            download(self.client, ref.url, path, size_bytes=ref.size_bytes, sha256=ref.sha256)
        table = self.parse(path, ref.sha256)
        self._cache(table)
        if source == "storage":
            self._trim_disk(newest=path)
        seconds = time.monotonic() - started
        metrics.ADAPTER_LOADS.labels(source).inc()
        metrics.ADAPTER_FETCH_SECONDS.observe(seconds)
        log.info("adapter_loaded", adapter=ref.name, source=source, duration_seconds=round(seconds, 3))
        return table

    def _cache(self, table: AdapterTable) -> None:
        with self._tables_lock:
            self._tables[table.sha256] = table
            size = sum(table.size_bytes for table in self._tables.values())
            while size > self.memory_bytes_max and len(self._tables) > 1:
                _, evicted = self._tables.popitem(last=False)
                size -= evicted.size_bytes

    def _trim_disk(self, *, newest: Path) -> None:
        """Delete the least recently used files beyond the limit, but never the newest."""
        files = [(entry.stat(), entry) for entry in self.folder.glob("*.safetensors") if entry != newest]
        size = newest.stat().st_size + sum(stat.st_size for stat, _ in files)
        for stat, file in sorted(files, key=lambda pair: pair[0].st_mtime):
            if size <= self.disk_bytes_max:
                return
            file.unlink(missing_ok=True)
            size -= stat.st_size


def _touch(path: Path) -> bool:
    """Set the file's times to now; return False if it is missing, as after an eviction by another worker."""
    try:
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
    except FileNotFoundError:
        return False
    return True
