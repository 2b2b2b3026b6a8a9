"""Notifications of PostgreSQL are hints to look, and nothing more.

Any role that can log in may notify any channel, with any text, as often as it likes. So whoever listens reads the rows
and believes no payload, and stops to listen for a while when there are too many.
"""

import time

BYTES_PER_SECOND_MAX = 2_000_000  # 20,000 of ours; a busy process hears a quarter of that
_NOTICE_BYTES = 100  # of a notification without its payload, about


class Flooded(Exception):
    """More notifications came than a busy platform sends. Close the connection and look at intervals instead."""


class NoticeMeter:
    """Counts what a connection hears, second by second."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._bytes = 0

    def count(self, payload: str) -> None:
        """Count a notification. Raises `Flooded`."""
        self._bytes += _NOTICE_BYTES + len(payload)
        if self._bytes <= BYTES_PER_SECOND_MAX:
            return
        if time.monotonic() - self._began < 1:
            raise Flooded
        self._began, self._bytes = time.monotonic(), 0
