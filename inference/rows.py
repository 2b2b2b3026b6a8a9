"""An image on its way: what was asked for, how far it is, and the handle its caller waits on."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from inference.errors import Canceled, GenerationError


class Adapter(Protocol):
    """The engine knows an adapter by its content's hash; what it holds is the model's affair."""

    sha256: str


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """One image. With the same model, equal requests give equal images, whatever else is in flight."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    adapters: tuple[tuple[Adapter, float], ...] = ()
    tenant: str = ""


class Row:
    """An image in flight. A caller reads, waits and cancels; the engine alone writes."""

    def __init__(self, request: ImageRequest, latent_tokens: int) -> None:
        self.request = request
        self.latent_tokens = latent_tokens
        # Sorted: the same adapters in another order are the same group, and add up in the same order.
        self.adapters = sorted(request.adapters, key=lambda used: (used[0].sha256, used[1]))
        self.group = tuple((adapter.sha256, scale) for adapter, scale in self.adapters)
        self.steps_done = 0
        self.prompt_tokens = 0
        self.gpu_seconds = 0.0
        self.started_at: float | None = None  # by the engine's clock
        self.canceled: GenerationError | None = None
        self.future: Future[Image.Image] = Future()
        self.caption: Any = None
        self.latents: Any = None
        self.sigmas: list[float] = []

    @property
    def tenant(self) -> str:
        return self.request.tenant

    @property
    def work(self) -> int:
        """Tokens a step handles for this image: what shared device time is split by."""
        return self.latent_tokens + self.prompt_tokens

    @property
    def done(self) -> bool:
        return self.future.done()

    def cancel(self, why: GenerationError | None = None) -> None:
        """Give the image up at the next step: `result` raises `why`. No effect on one that is finished."""
        self.canceled = why or Canceled("canceled")

    def result(self, timeout: float | None = None) -> Image.Image:
        """Wait for the picture. Raises `GenerationError` (`Canceled` among them), or what broke instead."""
        return self.future.result(timeout)

    def wait(self) -> None:
        """Wait until the image is finished, well or not: from then on `gpu_seconds` is final."""
        self.future.exception()
