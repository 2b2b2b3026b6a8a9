"""The Z-Image transformer over one packed sequence: the tokens of every row end to end, nothing padded between them.

It computes what `diffusers.ZImageTransformer2DModel.forward` computes for each row alone, from the same weights:
a single-stream diffusion transformer with adaptive layer norm (Peebles and Xie 2023), RMS norm on queries and keys,
and rotary positions on three axes (Su et al. 2021). What doesn't depend on the noise level (positions, the refined
caption) is made once per image by `sequence`, not at every step. A row's tokens attend to each other alone, by the
rows' boundaries instead of a mask; rotation is in real numbers, which compilers understand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, groupby, pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.graphs import LayerGraphs
from inference.slots import Layout, RowAdapters, SlotLinear

_FILL = 32  # the model was trained with captions and images each filled up to a multiple of this many tokens
_PATCH = "2-1"  # 2 x 2 latents, one frame
_BY_RUNS_TOKENS = 1024  # of 512 x 512 and larger: cuDNN's attention takes 0.6 of the time of the varlen kernel (H200)


def filled(tokens: int) -> int:
    """Tokens of a caption or an image with the fill that the model was trained with, and attends to."""
    return -(-tokens // _FILL) * _FILL


@dataclass(frozen=True, slots=True)
class ImageSequence:
    """What all the steps of one image share. Its tokens are the image's, their fill, the caption's, their fill.

    `caption` is [caption tokens, dim], refined. `rotation` is [tokens, 2, 1, 1, head_dim]: cosines, and sines with
    the sign that each half of a head takes.
    """

    height: int  # in tokens, as is `width`
    width: int
    caption: Tensor
    rotation: Tensor

    @property
    def image_tokens(self) -> int:
        return filled(self.height * self.width)


class Packing:
    """Rows end to end: where each begins and ends, (length, rows) of each run of equals, what adapters each takes."""

    def __init__(self, lengths: Sequence[int], adapters: Sequence[RowAdapters], device: torch.device) -> None:
        self.stops, self.row_of = _places(tuple(lengths), device)
        stops = [0, *accumulate(lengths)]
        self.spans = list(pairwise(stops))
        self.runs = [(length, len(list(rows))) for length, rows in groupby(lengths)]
        self.layout = Layout(self.spans, adapters, device)
        self.longest = max(lengths)
        # Kernels for long rows are faster than those for rows of any length, but made anew for each length and number.
        self.by_runs = device.type != "cuda" or min(lengths) >= _BY_RUNS_TOKENS


@lru_cache(maxsize=256)
def _places(lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where rows of these lengths begin and end [rows + 1], and which row each token is of [tokens].

    Remembered, as steps repeat: what they need first keeps a GPU waiting. Nobody writes to them.
    """
    stops = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    row_of = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    return stops.to(device), row_of.to(device)


class Block(nn.Module):
    """A transformer block over packed tokens; without `time` it is one of those that refine captions."""

    def __init__(self, block: Any, path: str, parts: "Parts", **room: int) -> None:
        """`block` is a diffusers `ZImageTransformerBlock` found at `path`."""
        super().__init__()
        self.parts = parts

        attention, norms = block.attention, (block.attention_norm1, block.attention_norm2)
        halves = _halves(attention.norm_q.weight)
        heads = (torch.arange(attention.heads, device=halves.device)[:, None] * len(halves) + halves).flatten()
        orders = {f"{path}.attention.to_q": heads, f"{path}.attention.to_k": heads}

        def linear(*names: str) -> SlotLinear:
            return SlotLinear({f"{path}.{name}": block.get_submodule(name) for name in names}, orders=orders, **room)

        self.qkv = linear("attention.to_q", "attention.to_k", "attention.to_v")
        self.out = linear("attention.to_out.0")
        self.gate_up = linear("feed_forward.w1", "feed_forward.w3")
        self.down = linear("feed_forward.w2")
        self.modulation = linear("adaLN_modulation.0") if block.modulation else None
        products = (self.qkv, self.out, self.gate_up, self.down)
        self.weights_per_token = sum(product.in_features * product.out_features for product in products)
        self.norms = torch.stack([norm.weight.detach() for norm in (*norms, block.ffn_norm1, block.ffn_norm2)])
        self.norm_qk = torch.stack([attention.norm_q.weight[halves], attention.norm_k.weight[halves]]).detach()[:, None]
        self.heads: int = attention.heads
        self.eps: float = norms[0].eps
        self.eps_qk: float = attention.norm_q.eps

    def forward(self, x: Tensor, packing: Packing, rotation: Tensor, time: Tensor | None, times: Layout) -> Tensor:
        """`x` is [tokens, dim]; `time` is [rows, width of the embedding], laid out as `times` says."""
        layout, row_of = packing.layout, packing.row_of
        scale_1, gate_1, scale_2, gate_2 = self._modulated_norms(time, times)
        attended = self._attended(self.parts.normed(x, scale_1, row_of, self.eps), packing, rotation)
        x, normed = self.parts.added_normed(x, self.out(attended, layout), gate_1, scale_2, row_of, self.eps)
        up = self.gate_up(normed, layout)
        return self.parts.added(x, self.down(self.parts.gated(up), layout), gate_2, row_of, self.eps)

    def _modulated_norms(self, time: Tensor | None, times: Layout) -> Tensor:
        """The weights of the four norms for each row, times its modulation: [4, rows, dim]; one row without `time`."""
        if self.modulation is None or time is None:
            return self.norms[:, None]
        return self.parts.modulated(self.modulation(time, times), self.norms)

    def _attended(self, x: Tensor, packing: Packing, rotation: Tensor) -> Tensor:
        qkv = self.qkv(x, packing.layout).unflatten(-1, (3, self.heads, -1))  # [tokens, 3, heads, head_dim]
        qk = self.parts.rotated(qkv[:, :2], self.norm_qk, rotation, self.eps_qk)
        return _attention(qk[:, 0], qk[:, 1], qkv[:, 2], packing).flatten(1)


class PackedTransformer(nn.Module):
    """The weights of a loaded `ZImageTransformer2DModel`, stepped for many images at once."""

    def __init__(
        self, transformer: Any, *, slots: int, rank_max: int, merged_max: int, parts: "Parts | None" = None
    ) -> None:
        super().__init__()
        parts = parts or Parts()
        room = {"slots": slots, "rank_max": rank_max, "merged_max": merged_max}

        def linear(path: str) -> SlotLinear:
            return SlotLinear({path: transformer.get_submodule(path)}, orders={}, **room)

        def blocks(name: str) -> nn.ModuleList:
            found = enumerate(transformer.get_submodule(name))
            return nn.ModuleList(Block(block, f"{name}.{i}", parts, **room) for i, block in found)

        self.device: torch.device = transformer.device
        self.dtype: torch.dtype = transformer.dtype
        self._embed_time = transformer.t_embedder.timestep_embedding
        self._time_frequencies: int = transformer.t_embedder.frequency_embedding_size
        self._time_scale: float = transformer.t_scale
        self.time_in, self.time_out = linear("t_embedder.mlp.0"), linear("t_embedder.mlp.2")
        self.caption_norm = transformer.cap_embedder[0]
        self.caption_in = linear("cap_embedder.1")
        self.caption_fill = transformer.cap_pad_token.detach()
        self.context_refiner = blocks("context_refiner")
        self.image_in = linear(f"all_x_embedder.{_PATCH}")
        self.image_fill = transformer.x_pad_token.detach()
        self.noise_refiner = blocks("noise_refiner")
        self.layers = blocks("layers")
        self.final_modulation = linear(f"all_final_layer.{_PATCH}.adaLN_modulation.1")
        self.final_eps: float = transformer.get_submodule(f"all_final_layer.{_PATCH}.norm_final").eps
        self.final = linear(f"all_final_layer.{_PATCH}.linear")
        axes = transformer.rope_embedder.precompute_freqs_cis(
            transformer.axes_dims, transformer.axes_lens, theta=transformer.rope_theta
        )
        self._graphs: LayerGraphs | None = None
        self._axes = [torch.view_as_real(axis).movedim(-1, 0).to(self.device) for axis in axes]

    def _through_layers(self, x: Tensor, packing: Packing, rotation: Tensor, time: Tensor, rows: Layout) -> Tensor:
        for block in self.layers:
            x = block(x, packing, rotation, time, rows)
        return x

    @torch.inference_mode()
    def record(self, image: ImageSequence) -> None:
        """Record the layers for small steps, on a CUDA device; any image tells the shapes."""
        x = torch.empty(0, self.image_in.out_features, dtype=self.dtype, device=self.device)
        time = x.new_empty(0, self.time_out.out_features)
        make = partial(Packing, device=self.device)
        self._graphs = LayerGraphs(self._through_layers, make, x, image.rotation, time)

    def slot_linears(self) -> list[SlotLinear]:
        return [module for module in self.modules() if isinstance(module, SlotLinear)]

    def step_flops(self, image_tokens: int, caption_tokens: int) -> float:
        """Floating point operations of one step of one row, a multiply and an add being two.

        Per token of a block 2 * weights for its linear layers and 4 * tokens * dim for attention.
        """

        def cost(blocks: nn.ModuleList, tokens: int) -> float:
            weights = sum(cast(Block, block).weights_per_token for block in blocks)
            return 2.0 * tokens * weights + 4.0 * tokens**2 * len(self.image_fill[0]) * len(blocks)

        return cost(self.noise_refiner, image_tokens) + cost(self.layers, image_tokens + caption_tokens)

    @torch.inference_mode()
    def sequence(self, embedding: Tensor, height: int, width: int, adapters: RowAdapters) -> ImageSequence:
        """What the steps of an image of `height` x `width` tokens share, for a prompt's `embedding` [tokens, dim]."""
        tokens, device = filled(len(embedding)), self.device
        positions = torch.zeros(tokens + filled(height * width), 3, dtype=torch.int64, device=device)
        image, caption = positions[:-tokens], positions[-tokens:]
        caption[:, 0] = torch.arange(1, tokens + 1, device=device)
        cell = torch.arange(height * width, device=device)
        # The fill of an image stays at position 0, as the model was trained.
        image[: len(cell)] = torch.stack([torch.full_like(cell, tokens + 1), cell // width, cell % width], dim=1)
        cosines, sines = torch.cat([axis[:, positions[:, i]] for i, axis in enumerate(self._axes)], dim=-1)
        turns = torch.cat([cosines, cosines], dim=-1), torch.cat([-sines, sines], dim=-1)
        rotation = torch.stack(turns, dim=1)[:, :, None, None]

        layout = Layout([(0, len(embedding))], [adapters], device)
        x = self.caption_fill.repeat(tokens, 1)
        x[: len(embedding)] = self.caption_in(self.caption_norm(embedding), layout)
        packing = Packing([tokens], [adapters], device)
        for block in self.context_refiner:
            x = block(x, packing, rotation[-tokens:], None, packing.layout)
        return ImageSequence(height, width, x, rotation)

    @torch.inference_mode()
    def forward(
        self,
        latents: Sequence[Tensor],
        times: Sequence[float],
        images: Sequence[ImageSequence],
        adapters: Sequence[RowAdapters],
    ) -> list[Tensor]:
        """The transformer's output for each row, in the shape of its latents [channels, height, width].

        `times` run from 0 (noise) to 1. Rows that take the same merged weights are best side by side.
        """
        device = self.device
        rows = Layout([(row, row + 1) for row in range(len(images))], adapters, device)
        # What is copied to a device comes first: each copy waits for all that the device was given before.
        of_images = Packing([image.image_tokens for image in images], adapters, device)
        of_all = Packing([len(image.rotation) for image in images], adapters, device)
        frequencies = self._embed_time(torch.tensor(times, device=device) * self._time_scale, self._time_frequencies)
        time = self.time_out(functional.silu(self.time_in(frequencies.to(self.dtype), rows)), rows)

        patches = [_patches(x.to(self.dtype), image) for x, image in zip(latents, images, strict=True)]
        x = self.image_in(torch.cat(patches), of_images.layout)
        for (start, stop), image in zip(of_images.spans, images, strict=True):
            x[start + image.height * image.width : stop] = self.image_fill
        rotation = torch.cat([image.rotation[: image.image_tokens] for image in images])
        for block in self.noise_refiner:
            x = block(x, of_images, rotation, time, rows)

        spans = zip(of_images.spans, images, strict=True)
        x = torch.cat([part for span, image in spans for part in (x[slice(*span)], image.caption)])
        rotation = torch.cat([image.rotation for image in images])
        graph = self._graphs.get(len(x), adapters) if self._graphs else None
        x = graph(x, of_all, rotation, time) if graph else self._through_layers(x, of_all, rotation, time, rows)

        scale = 1 + self.final_modulation(functional.silu(time), rows)
        x = functional.layer_norm(x, x.shape[-1:], eps=self.final_eps) * scale.index_select(0, of_all.row_of)
        x = self.final(x, of_all.layout)
        return [_unpatched(x[start:stop], image) for (start, stop), image in zip(of_all.spans, images, strict=True)]


def _attention(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """Attention of each row's tokens to that row alone; all are [tokens, heads, head_dim]."""
    if not packing.by_runs:
        from torch.nn.attention.varlen import varlen_attn

        stops, longest = packing.stops, packing.longest
        return cast(Tensor, varlen_attn(q, k, v, stops, stops, longest, longest))
    sizes = [length * rows for length, rows in packing.runs]
    parts = zip(packing.runs, *(x.split(sizes) for x in (q, k, v)), strict=True)
    attended = [
        functional.scaled_dot_product_attention(*(x.unflatten(0, (rows, length)).transpose(1, 2) for x in qkv))
        for (length, rows), *qkv in parts
    ]
    flat = [x.transpose(1, 2).flatten(0, 1) for x in attended]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def _halves(x: Tensor) -> Tensor:
    """The order of a head's values in which the two of each pair are half a head apart."""
    return torch.arange(len(x), device=x.device).view(-1, 2).T.flatten()


def _rms(x: Tensor, eps: float) -> Tensor:
    """`x` over the root mean square of its last dimension; the weight of the norm is the caller's to apply."""
    return functional.rms_norm(x, x.shape[-1:], eps=eps)


def _modulated(modulation: Tensor, norms: Tensor) -> Tensor:
    """Scale, gate, scale and gate of each row [rows, 4 * dim] as factors of the four norms' weights: [4, rows, dim]."""
    scale_1, gate_1, scale_2, gate_2 = modulation.chunk(4, dim=-1)
    return torch.stack([1 + scale_1, gate_1.tanh(), 1 + scale_2, gate_2.tanh()]).mul_(norms[:, None])


def _normed(x: Tensor, weights: Tensor, row_of: Tensor, eps: float) -> Tensor:
    # Ten times faster on a CPU than indexing.
    return _rms(x, eps).mul_(weights.index_select(0, row_of))


def _added(x: Tensor, branch: Tensor, gates: Tensor, row_of: Tensor, eps: float) -> Tensor:
    """The residual `x` plus a branch's normed output times its row's gate, which has the norm's weight within."""
    return torch.addcmul(x, _rms(branch, eps), gates.index_select(0, row_of))


def _added_normed(
    x: Tensor, branch: Tensor, gates: Tensor, weights: Tensor, row_of: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    x = _added(x, branch, gates, row_of, eps)
    return x, _normed(x, weights, row_of, eps)


def _gated(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)


def _rotated(x: Tensor, weight: Tensor, rotation: Tensor, eps: float) -> Tensor:
    """Normed queries and keys [tokens, 2, heads, head_dim], each pair of values turned by its token's angle in float32.

    The two of a pair are half a head apart (queries and keys are made so): on neighbours this took seven times longer.
    """
    normed = _rms(x, eps).mul_(weight).float()
    cosines, sines = rotation.unbind(1)
    first, second = normed.chunk(2, dim=-1)
    # In place: each new tensor of this size costs a CPU more than the arithmetic.
    return torch.cat((second, first), dim=-1).mul_(sines).addcmul_(normed, cosines).type_as(x)


class Parts(NamedTuple):
    """What lies between the products of a block. `fused` has each in one kernel, for any number of tokens and rows."""

    modulated: Callable[[Tensor, Tensor], Tensor] = _modulated
    normed: Callable[[Tensor, Tensor, Tensor, float], Tensor] = _normed
    added: Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor] = _added
    added_normed: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = _added_normed
    gated: Callable[[Tensor], Tensor] = _gated
    rotated: Callable[[Tensor, Tensor, Tensor, float], Tensor] = _rotated

    @classmethod
    def fused(cls) -> "Parts":
        """Compiled at their first use: `warm_up` is that use."""
        tokens = [(argument, 0) for argument in range(5)]
        return cls(
            modulated=compiled(_modulated, sizes=[], counts=[0]),
            normed=compiled(_normed, sizes=[tokens[0], tokens[2]], counts=[1]),
            added=compiled(_added, sizes=[tokens[0], tokens[1], tokens[3]], counts=[2]),
            added_normed=compiled(_added_normed, sizes=[tokens[0], tokens[1], tokens[4]], counts=[2, 3]),
            gated=compiled(_gated, sizes=tokens[:1]),
            rotated=compiled(_rotated, sizes=[tokens[0], tokens[2]]),
        )


def compiled(
    part: Callable[..., Any], *, sizes: Sequence[tuple[int, int]], counts: Sequence[int] = ()
) -> Callable[..., Any]:
    """`part` by a compiler, once for all `sizes`: (argument, dimension) of what varies, and is never 1.

    `counts` are arguments with any number of rows, one too. A compiler that takes every size for one that varies makes
    kernels that are three to six times slower (H200).
    """
    kernel = torch.compile(part)
    told: set[int] = set()

    def tell_first(*arguments: Any) -> Any:
        if (width := arguments[0].shape[-1]) not in told:
            told.add(width)
            for argument, dimension in sizes:
                torch._dynamo.mark_dynamic(arguments[argument], dimension)
            for argument in counts:
                torch._dynamo.decorators.mark_unbacked(arguments[argument], 0)
        return kernel(*arguments)

    return tell_first


def _patches(latents: Tensor, image: ImageSequence) -> Tensor:
    """Latents [channels, 2 * height, 2 * width] as tokens [filled, 4 * channels]."""
    patches = latents.unflatten(2, (image.width, 2)).unflatten(1, (image.height, 2)).permute(1, 3, 2, 4, 0)
    return functional.pad(patches.flatten(2).flatten(0, 1), (0, 0, 0, image.image_tokens - image.height * image.width))


def _unpatched(tokens: Tensor, image: ImageSequence) -> Tensor:
    """The first tokens, which are the image's, as latents."""
    cells = tokens[: image.height * image.width]
    patches = cells.view(image.height, image.width, 2, 2, -1).permute(4, 0, 2, 1, 3)
    return patches.reshape(-1, 2 * image.height, 2 * image.width)
