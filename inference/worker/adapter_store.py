"""Where adapters wait: parsed in memory, as files on disk, else fetched by their signed URL."""

import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import httpx
import structlog

from inference import metrics
from inference.adapters import AdapterTable
from inference.contract import AdapterRef
from inference.errors import AdapterRejected
from inference.worker.transfer import download

log = structlog.get_logger()


class AdapterStore:
    """Adapters by content hash, least recently used first out; safe under threads, one fetch per hash.

    `parse` turns a file and its hash into a table: `load_adapter` with the model's transformer bound.
    A table that falls out of memory lives on while rows in flight hold it. Workers may share the folder.
    """

    def __init__(
        self,
        *,
        folder: Path,
        disk_bytes_max: int,
        memory_bytes_max: int,
        client: httpx.Client,
        parse: Callable[[Path, str], AdapterTable],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._disk_bytes_max = disk_bytes_max
        self._memory_bytes_max = memory_bytes_max
        self._client = client
        self._parse = parse
        self._tables: OrderedDict[str, AdapterTable] = OrderedDict()
        self._tables_lock = threading.Lock()
        # A fixed set of locks shared out by hash: one per hash would need collecting.
        self._fetch_locks = [threading.Lock() for _ in range(64)]

    def get(self, ref: AdapterRef) -> AdapterTable:
        """Raises `AdapterRejected` if the file doesn't fit the model, `TransferError` if it can't be had."""
        if not re.fullmatch(r"[0-9a-f]{64}", ref.sha256):
            raise AdapterRejected("an adapter is named by a hash", code="adapter_hash_bad")
        path = self._folder / f"{ref.sha256}.safetensors"
        if table := self._remembered(ref.sha256):
            metrics.ADAPTER_LOADS.labels("memory").inc()
            _mark_used(path)
            return table
        with self._fetch_locks[int(ref.sha256[:8], 16) % len(self._fetch_locks)]:
            return self._remembered(ref.sha256) or self._load(ref, path)

    def _remembered(self, sha256: str) -> AdapterTable | None:
        with self._tables_lock:
            if sha256 in self._tables:
                self._tables.move_to_end(sha256)
            return self._tables.get(sha256)

    def _load(self, ref: AdapterRef, path: Path) -> AdapterTable:
        begun = time.monotonic()
        source = "disk" if _mark_used(path) else "storage"
        if source == "storage":
            download(self._client, ref.url, path, size_bytes=ref.size_bytes, sha256=ref.sha256)
        table = self._parse(path, ref.sha256)
        self._remember(table)
        if source == "storage":
            self._trim_disk(keep=path)
        seconds = time.monotonic() - begun
        metrics.ADAPTER_LOADS.labels(source).inc()
        metrics.ADAPTER_FETCH_SECONDS.observe(seconds)
        log.info("adapter_loaded", adapter=ref.name, source=source, duration_seconds=round(seconds, 3))
        return table

    def _remember(self, table: AdapterTable) -> None:
        with self._tables_lock:
            self._tables[table.sha256] = table
            size = sum(table.size_bytes for table in self._tables.values())
            while size > self._memory_bytes_max and len(self._tables) > 1:
                _, dropped = self._tables.popitem(last=False)
                size -= dropped.size_bytes

    def _trim_disk(self, *, keep: Path) -> None:
        files = [(entry.stat(), entry) for entry in self._folder.glob("*.safetensors") if entry != keep]
        size = keep.stat().st_size + sum(stat.st_size for stat, _ in files)
        for stat, file in sorted(files, key=lambda found: found[0].st_mtime):
            if size <= self._disk_bytes_max:
                return
            file.unlink(missing_ok=True)
            size -= stat.st_size


def _mark_used(path: Path) -> bool:
    """Date the file now; False if it isn't there (another worker may have made room)."""
    try:
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
    except FileNotFoundError:
        return False
    return True
