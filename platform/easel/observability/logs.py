"""Configures logs: one JSON object per line, or text for people on a terminal."""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog


def configure(*, service: str, out: TextIO | None = None, env: Mapping[str, str] = os.environ) -> None:
    """Configure this process's logs, to stdout by default. `EASEL_LOG_FORMAT` (`json` or `console`) sets the format."""
    out = out or sys.stdout
    readable = env.get("EASEL_LOG_FORMAT", "console" if out.isatty() else "json") == "console"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        lambda logger, method, event: {"service": service, **event},
    ]
    renderer = structlog.dev.ConsoleRenderer(timestamp_key="ts") if readable else structlog.processors.JSONRenderer()
    structlog.configure(processors=[*shared, renderer], logger_factory=structlog.PrintLoggerFactory(out))
    # Libraries that use the standard library's logging get the same format.
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
