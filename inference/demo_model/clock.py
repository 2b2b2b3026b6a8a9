"""Training by the clock: every part of the training gets minutes and may be interrupted and resumed at any moment."""

import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from inference.demo_model.parallel import first_process_value, rank

SAVE_EVERY_SECONDS = 120.0
_WARM_UP_STEPS = 60


class TrainingClock:
    """The progress of one part of the training, measured in the time spent on it over all runs."""

    def __init__(self, name: str, minutes: float, state_file: Path) -> None:
        self.name, self.budget_seconds, self.state_file = name, minutes * 60.0, state_file
        self.step = 0
        self.spent_seconds = self._spent_before = 0.0  # of the first process, so that all processes end together
        self._started_at = self._saved_at = self._printed_at = time.monotonic()

    @property
    def fraction(self) -> float:
        """0 at the start, 1 at the end."""
        return min(1.0, self.spent_seconds / self.budget_seconds)

    @property
    def finished(self) -> bool:
        return self.fraction >= 1.0

    def learning_rate(self, peak: float) -> float:
        """Return the rate: a warm-up by steps, then a half cosine over elapsed time, close to 0 at the end."""
        warm = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        return peak * warm * max(0.01, 0.5 + 0.5 * math.cos(math.pi * self.fraction))

    def resume(self) -> dict[str, Any] | None:
        """Load the state that an interrupted run saved; None if there was none."""
        if not self.state_file.exists():
            return None
        state: dict[str, Any] = torch.load(self.state_file, weights_only=True)
        self.step, self._spent_before = state["step"], state["spent_seconds"]
        self.spent_seconds = self._spent_before
        self._started_at = time.monotonic()
        print(f"{self.name}: resumed at step {self.step}", flush=True)
        return state

    def tick(self, loss: float, state: Callable[[], dict[str, Any]]) -> None:
        """Count a step; every 15 s print progress, and every two minutes save the state."""
        self.step += 1
        now = time.monotonic()
        self.spent_seconds = first_process_value(self._spent_before + now - self._started_at)
        if rank() != 0:
            return
        if now - self._printed_at > 15:
            self._printed_at = now
            spent = f"{self.spent_seconds / 60:.1f} of {self.budget_seconds / 60:.1f} min"
            print(f"{self.name}: step {self.step}, loss {loss:.4f}, {spent}", flush=True)
        if now - self._saved_at > SAVE_EVERY_SECONDS:
            self._saved_at = now
            self.save(state())

    def save(self, state: dict[str, Any]) -> None:
        """Write the first process's state, which all processes share, atomically: a crash leaves no partial file."""
        if rank() != 0:
            return
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        part = self.state_file.with_suffix(".part")
        torch.save({"step": self.step, "spent_seconds": self.spent_seconds} | state, part)
        os.replace(part, self.state_file)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group, multiplied by the group's own `scale` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


class Average:
    """An exponential moving average of parameters, which gives better pictures than the last step's."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float) -> None:
        self.parameters: list[torch.Tensor] = list(parameters)
        self.decay = decay
        self.values = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the parameters; faster during the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, self.parameters, 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Replace the parameters with their averages."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.copy_(value)
