"""Works off batches, in a thread of the scheduler: ends what is over, and makes jobs of lines where pools are idle.

It is no periodic task, because its next turn follows at once while pools have room for more lines.
"""

import threading
from datetime import UTC, datetime

import structlog
from django.conf import settings

from easel.batches.feeding import LINES_MAX, lines_feed
from easel.batches.lifecycle import batches_advance
from easel.processes.loop import run_turns

log = structlog.get_logger()
PAUSE_SECONDS = 1.0


def run(stop: threading.Event) -> None:
    """Work off batches until `stop` is set."""
    run_turns(_turn, process="batches", stop=stop, pause_seconds=PAUSE_SECONDS)


def _turn() -> bool:
    """Note what ended and make jobs of the next lines; True if more lines may be ready."""
    now = datetime.now(UTC)
    advanced = batches_advance(now=now)
    fed = lines_feed(config=settings.EASEL, now=now)
    if advanced or fed:
        log.info("batches_advanced", advanced=advanced, fed=fed)
    return fed >= LINES_MAX
