"""The layout of a packed sequence: the tokens of every row end to end, without padding between rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby, pairwise

import torch
from torch import Tensor

from inference.adapter_linear import Layout, RowAdapters

_TOKENS_MULTIPLE = 32
# Rows of 512 x 512 pixels and more: there cuDNN's attention takes 0.6 of the time of the varlen kernel (H200).
_RUN_ATTENTION_TOKENS_MIN = 1024


def padded_tokens(tokens: int) -> int:
    """Round a caption's or an image's tokens up to the multiple of 32 that the model was trained with.

    The padding is part of the row: the model attends to it, as it did in training.
    """
    return -(-tokens // _TOKENS_MULTIPLE) * _TOKENS_MULTIPLE


@dataclass(frozen=True, slots=True)
class ImageSequence:
    """The inputs that all steps of one image share. Its tokens: image, its padding, caption, its padding.

    `height` and `width` are in tokens. `caption` is [caption tokens, dim], refined. `rotation` is
    [tokens, 2, 1, 1, head_dim]: cosines, then sines with the sign that each half of a head takes.
    """

    height: int
    width: int
    caption: Tensor
    rotation: Tensor

    @property
    def image_tokens(self) -> int:
        return padded_tokens(self.height * self.width)


class Packing:
    """Rows end to end: their boundaries, (length, rows) of each run of equal lengths, and each row's adapters."""

    def __init__(self, lengths: Sequence[int], adapters: Sequence[RowAdapters], device: torch.device) -> None:
        self.boundaries, self.row_of = _index_tensors(tuple(lengths), device)
        self.spans = list(pairwise([0, *accumulate(lengths)]))
        self.runs = [(length, len(list(rows))) for length, rows in groupby(lengths)]
        self.layout = Layout(self.spans, adapters, device)
        self.longest = max(lengths)
        # Attention per run of equal lengths is faster for long rows, but compiles for every length and row count.
        self.attends_by_run = device.type != "cuda" or min(lengths) >= _RUN_ATTENTION_TOKENS_MIN


@lru_cache(maxsize=256)
def _index_tensors(lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the boundaries of rows of these lengths [rows + 1] and the row of each token [tokens].

    They are cached because steps repeat and a GPU waits for what they need first. Nobody may write to them.
    """
    boundaries = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    row_of = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    return boundaries.to(device), row_of.to(device)
