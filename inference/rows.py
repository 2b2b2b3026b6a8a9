"""An image in flight: its request, its progress, and the handle on which its caller waits."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from inference.adapter_linear import RowAdapters, ScaledSlots
from inference.adapters import AdapterTable
from inference.errors import Canceled, GenerationError

OnPreview = Callable[["Row", int, Image.Image], None]  # a row, the number of its preview from 0, and the preview


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """One image. With the same model, equal requests give equal images, whatever else is in flight.

    `width` and `height` are in pixels, `adapters` are (table, scale). After `deadline_at`, on the engine's clock in
    seconds, the image is given up. `previews` are made at equal distances, as far as there are steps between them.
    An image that `yields` makes progress only while no other is in flight.
    """

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    adapters: tuple[tuple[AdapterTable, float], ...] = ()
    tenant: str = ""
    deadline_at: float = float("inf")
    previews: int = 0
    yields: bool = False

    @property
    def preview_steps(self) -> list[int]:
        """The numbers of steps after which a preview is made; the last step is never among them."""
        parts = self.previews + 1
        return sorted({self.steps * part // parts for part in range(1, parts)} - {0})


@dataclass(eq=False, repr=False, kw_only=True)
class Row:
    """An image in flight. A caller reads, waits and cancels; only the engine writes.

    A step of the row has `tokens` tokens and takes `work` floating point operations. Instants (`..._at`) are seconds on
    the engine's clock.
    """

    request: ImageRequest
    prompt_ids: list[int]
    tokens: int
    work: float
    submitted_at: float
    on_preview: OnPreview | None = None
    steps_done: int = 0
    gpu_seconds: float = 0.0
    started_at: float | None = None  # when its first work began
    prepared_at: float | None = None  # when it was ready for its first step
    first_step_at: float | None = None  # when its first step ended
    last_step_at: float | None = None  # when its last step ended
    finished_at: float | None = None
    cancel_reason: GenerationError | None = None
    future: Future[Image.Image] = field(default_factory=Future)
    adapter_slots: ScaledSlots | None = None  # None until it is admitted
    weights: RowAdapters = field(default_factory=RowAdapters)  # the weights of its next step
    holds_merged: bool = False
    sequence: Any = None
    latents: Any = None
    velocity: Any = None  # of the last step
    sigmas: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Sorted, so that the same adapters in another order compare equal and are added in the same order.
        self.adapters = sorted(self.request.adapters, key=lambda adapter: (adapter[0].sha256, adapter[1]))
        self.composition = tuple((table.sha256, scale) for table, scale in self.adapters)

    @property
    def tenant(self) -> str:
        return self.request.tenant

    @property
    def yields(self) -> bool:
        return self.request.yields

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.request.width, self.request.height

    @property
    def caption_key(self) -> tuple[str, str]:
        return self.request.tenant, self.request.prompt

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt_ids)

    @property
    def adapter_hashes(self) -> list[str]:
        return [sha256 for sha256, _ in self.composition]

    @property
    def steps_left(self) -> int:
        return self.request.steps - self.steps_done

    @property
    def sigma(self) -> float:
        """The noise level at which the next step begins."""
        return self.sigmas[self.steps_done]

    @property
    def denoised(self) -> Any:
        """The latents of the finished image as the last step predicted them."""
        return self.latents - self.sigma * self.velocity

    @property
    def done(self) -> bool:
        return self.future.done()

    def cancel(self, reason: GenerationError | None = None) -> None:
        """Give the image up at the next step: `result` then raises `reason`. A finished image stays as it is."""
        self.cancel_reason = reason or Canceled("canceled")

    def on_done(self, callback: Callable[["Row"], None]) -> None:
        """Call `callback` with this row once it has succeeded or failed."""
        self.future.add_done_callback(lambda _: callback(self))

    def result(self, timeout: float | None = None) -> Image.Image:
        """Wait up to `timeout` seconds for the picture. Raises `GenerationError`, `TimeoutError` or an engine fault."""
        return self.future.result(timeout)

    def wait(self) -> None:
        """Wait until the image has succeeded or failed; from then on `gpu_seconds` is final."""
        self.future.exception()
