"""Structured logs on stdout: one JSON object per line, or readable lines at a terminal.

Every line has `ts`, `level`, `service` and `event`; work on an attempt adds `request_id`, `tenant` and `job` (see
`bound_to`). Durations end in `_seconds`. Prompts and signed URLs are never logged.
"""

import logging
import sys
from contextlib import AbstractContextManager
from typing import Any

import structlog

from inference.contract import GenerationTask
from inference.worker.config import LogFormat

# Chatty libraries, logged from warnings upward. Below that, httpx would log signed URLs.
_QUIET = ["celery", "kombu", "amqp", "httpx", "httpcore", "diffusers", "transformers", "huggingface_hub", "PIL"]


def configure_logs(log_format: LogFormat) -> None:
    """Route structlog and the standard library's logging through one handler on stdout."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        lambda _logger, _method, event: {"service": "worker", **event},
    ]
    if log_format == "json":
        last: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        last = [structlog.dev.ConsoleRenderer(timestamp_key="ts", colors=sys.stdout.isatty())]

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.INFO)
    logging.captureWarnings(True)  # otherwise Python's own warnings would be plain text among the JSON
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def bound_to(task: GenerationTask) -> AbstractContextManager[None]:
    """Add the task's request, tenant and job to every line that this thread logs inside the block."""
    return structlog.contextvars.bound_contextvars(request_id=task.request_id, tenant=task.tenant, job=task.job_id)
