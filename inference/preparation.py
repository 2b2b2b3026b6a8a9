"""What an image needs before its first step and after its last: text, adapters, VAE. Off the loop that steps.

On a GPU the stage has a thread and a stream of its own, so that no step waits for a decode. On a CPU two threads that
compute only slow each other down (by half, measured), so a little of it is done between two steps. What came in
meanwhile is done together: prompts in one encoding, pictures of a size in one decoding.
"""

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from inference import metrics
from inference.attribution import Clock, Meter
from inference.errors import OutOfMemory
from inference.residency import AdapterCosts
from inference.rows import Row
from inference.slots import RowAdapters, Used

_TOGETHER_MAX = 8  # rows in one encoding or decoding: with more, the first would wait for the last
_PIXELS_TOGETHER_MAX = 512 * 512  # in one decoding of several: what is larger gains nothing from company
_CAPTIONS_MAX = 256  # remembered; a long one of Z-Image takes 2.6 MB

T = TypeVar("T")


def in_parts(work: Callable[[Sequence[T]], None], items: Sequence[T], failed: Callable[[T, Exception], None]) -> None:
    """Do `work` on all items at once, or on halves of them where memory is short. `failed` gets what can't be done."""
    try:
        work(items)
    except OutOfMemory as error:
        if len(items) == 1:
            failed(items[0], error)
        else:
            in_parts(work, items[: len(items) // 2], failed)
            in_parts(work, items[len(items) // 2 :], failed)
    except Exception as error:
        for item in items:
            failed(item, error)


class Model(Protocol):
    """What the engine asks of a model; `inference.model.LoadedModel` says what each means."""

    concurrent: bool
    slots: int
    merged_max: int
    costs: AdapterCosts
    work_per_second: float

    def prompt_ids(self, prompt: str) -> list[int]: ...
    def step_tokens(self, width: int, height: int, prompt_tokens: int) -> int: ...
    def step_work(self, width: int, height: int, prompt_tokens: int) -> float: ...
    def encode(self, prompts: Sequence[list[int]]) -> list[Any]: ...
    def load(self, slot: int, adapter: Any) -> None: ...
    def merge(self, place: int, used: Used) -> None: ...
    def sequence(self, caption: Any, width: int, height: int, adapters: RowAdapters) -> Any: ...
    def initial_latents(self, seed: int, width: int, height: int) -> Any: ...
    def sigmas(self, steps: int, width: int, height: int) -> list[float]: ...
    def velocity(
        self,
        latents: Sequence[Any],
        sigmas: Sequence[float],
        sequences: Sequence[Any],
        adapters: Sequence[RowAdapters],
    ) -> list[Any]: ...
    def decode(self, latents: Sequence[Any]) -> list[Any]: ...
    def preview(self, latents: Any) -> Any: ...
    def stream(self) -> AbstractContextManager[Any]: ...
    def synchronize(self) -> None: ...


class Stage:
    """Rows come by `prepare` and `decode`; `ended` gets each of them with a picture, an error, or None if prepared."""

    def __init__(self, model: Model, meter: Meter, clock: Clock, ended: Callable[[Row, Any], None]) -> None:
        self._model = model
        self._meter = meter
        self._clock = clock
        self._ended = ended
        self._to_prepare: deque[Row] = deque()
        self._to_decode: deque[Row] = deque()
        self._slots: dict[int, str] = {}  # which adapter each slot holds
        # A caption is shared inside a tenant only: another's timing must not tell what was asked here.
        self._captions: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)

    @property
    def threaded(self) -> bool:
        """Whether the stage works by itself; until it is started, `work` is the caller's to call."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after what it is at."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.threaded:
            self._thread.join()

    def prepare(self, row: Row) -> None:
        """Make a row ready for its first step; its adapters go into the slots that it was given."""
        with self._changed:
            self._to_prepare.append(row)
            self._changed.notify()

    def decode(self, row: Row) -> None:
        with self._changed:
            self._to_decode.append(row)
            self._changed.notify()

    def _run(self) -> None:
        with self._model.stream():
            while not self._closing:
                if not self.work():
                    with self._changed:
                        self._changed.wait_for(lambda: self._to_prepare or self._to_decode or self._closing)

    def work(self) -> bool:
        """Prepare the next rows, if any wait, and decode the next; False if there was nothing to do."""
        with self._changed:
            preparing = [self._to_prepare.popleft() for _ in range(min(_TOGETHER_MAX, len(self._to_prepare)))]
            size = self._to_decode[0].size if self._to_decode else None
            together = min(_TOGETHER_MAX, max(1, _PIXELS_TOGETHER_MAX // math.prod(size))) if size else 0
            decoding = [row for row in self._to_decode if row.size == size][:together]
            for row in decoding:
                self._to_decode.remove(row)
        self._encode(preparing)
        for row in preparing:
            in_parts(self._begin, [row], self._ended)
        if decoding:
            in_parts(self._decode, decoding, self._ended)
        return bool(preparing or decoding)

    def _encode(self, rows: Sequence[Row]) -> None:
        """Remember the captions of these rows. An error stays with the prompt, for `_begin` to raise."""
        for row in rows:
            row.started_at = self._clock() if row.started_at is None else row.started_at
        asked = {row.caption_key: row for row in reversed(rows)}  # the first to ask pays
        new = [row for key, row in asked.items() if isinstance(self._captions.get(key), Exception | None)]

        def encode(rows: Sequence[Row]) -> None:
            with self._meter.charge([(row, row.prompt_tokens) for row in rows]):
                captions = self._model.encode([row.prompt_ids for row in rows])
            self._captions.update(zip((row.caption_key for row in rows), captions, strict=True))

        if new:
            in_parts(encode, new, lambda row, error: self._captions.update({row.caption_key: error}))
        for key in asked:
            self._captions.move_to_end(key)
        while len(self._captions) > _CAPTIONS_MAX:
            self._captions.popitem(last=False)

    def _begin(self, rows: Sequence[Row]) -> None:
        (row,) = rows
        caption = self._captions[row.caption_key]
        if isinstance(caption, Exception):
            raise caption
        request, used = row.request, row.slots
        with self._meter.charge([(row, 1)]):
            for (table, _), (slot, _) in zip(row.adapters, used, strict=True):
                known = self._slots.get(slot) == table.sha256
                metrics.SLOTS.labels("hit" if known else "miss").inc()
                if not known:
                    self._slots.pop(slot, None)
                    begun = self._clock()
                    self._model.load(slot, table)
                    self._model.synchronize()
                    metrics.SLOT_LOAD_SECONDS.observe(self._clock() - begun)
                    self._slots[slot] = table.sha256
            row.sequence = self._model.sequence(caption, request.width, request.height, RowAdapters(used))
            row.latents = self._model.initial_latents(request.seed, request.width, request.height)
            row.sigmas = self._model.sigmas(request.steps, request.width, request.height)
        self._ended(row, None)

    def _decode(self, rows: Sequence[Row]) -> None:
        with self._meter.charge([(row, 1) for row in rows]):
            pictures = self._model.decode([row.latents for row in rows])
        for row, picture in zip(rows, pictures, strict=True):
            self._ended(row, picture)
