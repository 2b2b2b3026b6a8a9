"""An image on its way: what was asked for, how far it is, and the handle its caller waits on."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from PIL import Image

from inference.adapters import AdapterTable
from inference.errors import Canceled, GenerationError
from inference.slots import RowAdapters, Used

Shown = Callable[["Row", int, Image.Image], None]  # a row, the number of its preview, and the preview


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """One image. With the same model, equal requests give equal images, whatever else is in flight.

    `deadline` is on the engine's clock: from then on the image is not worth a step. `previews` are shown on the way,
    at equal distances, as far as there are steps between them.
    """

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    adapters: tuple[tuple[AdapterTable, float], ...] = ()
    tenant: str = ""
    deadline: float = float("inf")
    previews: int = 0

    @property
    def preview_steps(self) -> list[int]:
        """After which steps a preview is shown: never after the last."""
        parts = self.previews + 1
        return sorted({self.steps * part // parts for part in range(1, parts)} - {0})


class Row:
    """An image in flight. A caller reads, waits and cancels; the engine alone writes."""

    def __init__(
        self,
        request: ImageRequest,
        *,
        prompt_ids: list[int],
        tokens: int,
        work: float,
        now: float,
        shown: Shown | None = None,
    ) -> None:
        """A step has this many `tokens` and costs `work` floating point operations. Times are the engine's clock."""
        self.request = request
        self.shown = shown
        self.prompt_ids = prompt_ids
        self.tokens = tokens
        self.work = work
        # Sorted: the same adapters in another order are the same, and add up in the same order.
        self.adapters = sorted(request.adapters, key=lambda used: (used[0].sha256, used[1]))
        self.composition = tuple((table.sha256, scale) for table, scale in self.adapters)
        self.steps_done = 0
        self.gpu_seconds = 0.0
        self.submitted_at = now
        self.started_at: float | None = None  # the begin of its first work
        self.first_step_at: float | None = None  # the end of its first step
        self.finished_at: float | None = None
        self.canceled: GenerationError | None = None
        self.future: Future[Image.Image] = Future()
        self.slots: Used = ()  # where its adapters lie, once it has them
        self.has_slots = False
        self.weights = RowAdapters()  # what its next step takes
        self.holds_merged = False
        self.sequence: Any = None
        self.latents: Any = None
        self.velocity: Any = None  # of the last step
        self.sigmas: list[float] = []

    @property
    def tenant(self) -> str:
        return self.request.tenant

    @property
    def size(self) -> tuple[int, int]:
        return self.request.width, self.request.height

    @property
    def caption_key(self) -> tuple[str, str]:
        return self.request.tenant, self.request.prompt

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt_ids)

    @property
    def hashes(self) -> list[str]:
        return [sha256 for sha256, _ in self.composition]

    @property
    def steps_left(self) -> int:
        return self.request.steps - self.steps_done

    @property
    def sigma(self) -> float:
        """The noise level that the next step begins at."""
        return self.sigmas[self.steps_done]

    @property
    def denoised(self) -> Any:
        """The latents that the last step was headed for: what the picture will be, as far as is known."""
        return self.latents - self.sigma * self.velocity

    @property
    def done(self) -> bool:
        return self.future.done()

    def cancel(self, why: GenerationError | None = None) -> None:
        """Give the image up at the next step: `result` raises `why`. No effect on one that is finished."""
        self.canceled = why or Canceled("canceled")

    def when_done(self, told: Callable[["Row"], None]) -> None:
        """Call `told` once the image is finished, well or not."""
        self.future.add_done_callback(lambda _: told(self))

    def result(self, timeout: float | None = None) -> Image.Image:
        """Wait for the picture. Raises `GenerationError` (`Canceled` among them), or what broke instead."""
        return self.future.result(timeout)

    def wait(self) -> None:
        """Wait until the image is finished, well or not: from then on `gpu_seconds` is final."""
        self.future.exception()
