"""The loop of optimizer steps that all parts of the training share."""

import math
import time
from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor
from torch.optim import Optimizer

_WARM_UP_STEPS = 60
_PRINT_SECONDS = 15


def train_for(
    minutes: float, name: str, optimizers: Sequence[Optimizer], *, rate_max: float, loss_of: Callable[[float], Tensor]
) -> None:
    """Make optimizer steps until the minutes are over. `loss_of` gets the share of them that has passed, 0 to 1.

    The learning rate warms up by steps, then follows a half cosine over the time. It is multiplied by the `scale` of
    each parameter group that has one.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [parameter for group in groups for parameter in group["params"]]
    started_at = printed_at = time.monotonic()
    for step in count(1):
        now = time.monotonic()
        fraction = (now - started_at) / (60 * minutes)
        if fraction >= 1:
            return
        rate = rate_max * min(1.0, step / _WARM_UP_STEPS) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * fraction))
        for group in groups:
            group["lr"] = rate * group.get("scale", 1.0)
        loss = loss_of(fraction)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if now - printed_at > _PRINT_SECONDS:
            printed_at = now
            print(f"{name}: step {step}, loss {loss.item():.4f}, {fraction:.0%} of {minutes:.1f} min", flush=True)
