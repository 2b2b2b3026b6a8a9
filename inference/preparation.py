"""The work on an image before its first step and after its last (prompt, adapters, VAE), off the loop that steps.

On a GPU it has a thread and a stream of its own, so that no step waits for a decode. On a CPU two threads that compute
slow each other down (by half, measured), so a little of it is done between two steps. Rows that arrived in the meantime
share the work: one encoding for several prompts, one decoding for several pictures of a size.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from inference import metrics
from inference.adapter_linear import RowAdapters
from inference.attribution import BusyTimeMeter, Clock
from inference.model import LoadedModel
from inference.out_of_memory import run_in_halves
from inference.rows import Row

_BATCH_ROWS_MAX = 8  # in one encoding or decoding: with more, the first row would wait too long for the last
_BATCH_PIXELS_MAX = 512 * 512  # in one decoding of several pictures: larger ones gain nothing from a batch
_CAPTIONS_MAX = 256  # cached; a long caption of Z-Image takes 2.6 MB


class Preparation:
    """Rows to prepare and to decode. `on_done` gets each with a picture, an error, or None if it is ready to step."""

    def __init__(
        self, model: LoadedModel, meter: BusyTimeMeter, clock: Clock, on_done: Callable[[Row, Any], None]
    ) -> None:
        self._model = model
        self._meter = meter
        self._clock = clock
        self._on_done = on_done
        self._to_prepare: list[Row] = []
        self._to_decode: list[Row] = []
        self._loaded: dict[int, str] = {}  # the hash of the adapter in each adapter slot
        # A caption is shared within a tenant only: otherwise timing would reveal that another tenant used a prompt.
        self._captions: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._changed = threading.Condition()
        self._yielding_held_back = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="preparation", daemon=True)

    @property
    def has_thread(self) -> bool:
        """True while the thread runs; otherwise the caller has to call `work`."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after its current work."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.has_thread:
            self._thread.join()

    def prepare(self, row: Row) -> None:
        """Queue a row to be made ready for its first step; its adapters are loaded into `row.adapter_slots`."""
        with self._changed:
            self._to_prepare.append(row)
            self._changed.notify()

    def decode(self, row: Row) -> None:
        """Queue a row whose latents are finished."""
        with self._changed:
            self._to_decode.append(row)
            self._changed.notify()

    def hold_back(self, yielding: bool) -> None:
        """Stop work on rows that yield, or go on with it."""
        with self._changed:
            has_changed = yielding != self._yielding_held_back
            self._yielding_held_back = yielding
            # It is called at every step, where waking the thread for nothing would cost the step time.
            if has_changed or any(row.cancel_reason for row in self._queued()):
                self._changed.notify()

    def _run(self) -> None:
        with self._model.stream():
            while not self._closing:
                if not self.work():
                    with self._changed:
                        self._changed.wait_for(
                            lambda: self._closing or any(self._is_due(row) for row in self._queued())
                        )

    def _queued(self) -> list[Row]:
        return [*self._to_prepare, *self._to_decode]

    def _is_due(self, row: Row) -> bool:
        """Return True if there is something to do for a row now. A canceled one is handed back."""
        return bool(row.cancel_reason) or not (row.yields and self._yielding_held_back)

    def work(self) -> bool:
        """Prepare the next rows and decode the next rows, one batch each; return False if there was nothing to do."""
        with self._changed:
            canceled = [row for row in self._queued() if row.cancel_reason]
            preparing = self._next(self._to_prepare)[:_BATCH_ROWS_MAX]
            decoding = self._next(self._to_decode)
            if decoding:
                count = max(1, _BATCH_PIXELS_MAX // math.prod(decoding[0].size))
                decoding = [row for row in decoding if row.size == decoding[0].size][: min(_BATCH_ROWS_MAX, count)]
            self._to_prepare = [row for row in self._to_prepare if row not in (*canceled, *preparing)]
            self._to_decode = [row for row in self._to_decode if row not in (*canceled, *decoding)]
        for row in canceled:
            self._on_done(row, row.cancel_reason)
        self._encode(preparing)
        for row in preparing:
            run_in_halves(self._prepare, [row], self._on_done)
        if decoding:
            run_in_halves(self._decode, decoding, self._on_done)
        return bool(canceled or preparing or decoding)

    def _next(self, queued: Sequence[Row]) -> list[Row]:
        """Return the rows that may be worked on next, of which only the first yields: one that comes waits for it."""
        due = [row for row in queued if self._is_due(row) and not row.cancel_reason]
        return [row for row in due if not row.yields] or due[:1]

    def _encode(self, rows: Sequence[Row]) -> None:
        """Cache the captions of these rows. An error is cached with its prompt, for `_prepare` to raise."""
        for row in rows:
            row.started_at = self._clock() if row.started_at is None else row.started_at
        requested = {row.caption_key: row for row in reversed(rows)}  # the first row of a prompt is charged
        new = [row for key, row in requested.items() if isinstance(self._captions.get(key), Exception | None)]

        def encode(rows: Sequence[Row]) -> None:
            with self._meter.charge([(row, row.prompt_tokens) for row in rows]):
                captions = self._model.encode([row.prompt_ids for row in rows])
            self._captions.update(zip((row.caption_key for row in rows), captions, strict=True))

        if new:
            run_in_halves(encode, new, lambda row, error: self._captions.update({row.caption_key: error}))
        for key in requested:
            self._captions.move_to_end(key)
        while len(self._captions) > _CAPTIONS_MAX:
            self._captions.popitem(last=False)

    def _prepare(self, rows: Sequence[Row]) -> None:
        (row,) = rows
        caption = self._captions[row.caption_key]
        if isinstance(caption, Exception):
            raise caption
        request, scaled_slots = row.request, row.adapter_slots or ()
        with self._meter.charge([(row, 1)]):
            for (table, _), (slot, _) in zip(row.adapters, scaled_slots, strict=True):
                is_loaded = self._loaded.get(slot) == table.sha256
                metrics.ADAPTER_SLOTS.labels("hit" if is_loaded else "miss").inc()
                if not is_loaded:
                    self._loaded.pop(slot, None)
                    started = self._clock()
                    self._model.load(slot, table)
                    self._model.synchronize()
                    metrics.ADAPTER_SLOT_LOAD_SECONDS.observe(self._clock() - started)
                    self._loaded[slot] = table.sha256
            row.sequence = self._model.sequence(caption, request.width, request.height, RowAdapters(scaled_slots))
            if row.latents is None:  # a row that was suspended goes on with its own
                row.latents = self._model.initial_latents(request.seed, request.width, request.height)
                row.sigmas = self._model.sigmas(request.steps, request.width, request.height)
        self._on_done(row, None)

    def _decode(self, rows: Sequence[Row]) -> None:
        with self._meter.charge([(row, 1) for row in rows]):
            pictures = self._model.decode([row.latents for row in rows])
        for row, picture in zip(rows, pictures, strict=True):
            self._on_done(row, picture)
