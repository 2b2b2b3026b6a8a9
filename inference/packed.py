"""The Z-Image transformer over one packed sequence of many images.

It computes what `diffusers.ZImageTransformer2DModel.forward` computes for each row alone, from the same weights:
a single-stream diffusion transformer with adaptive layer norm (Peebles and Xie 2023), RMS norm on queries and keys,
and rotary positions on three axes (Su et al. 2021). Everything that does not depend on the noise level (positions, the
refined caption) is computed once per image by `sequence`, not at every step. Row boundaries, instead of a mask, limit
attention to a row's own tokens. Rotation uses real numbers, because compilers do not understand complex ones.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.adapter_linear import AdapterLinear, Layout, RowAdapters
from inference.graphs import LayerGraphs
from inference.kernels import BlockKernels, attention, half_split_order
from inference.packing import ImageSequence, Packing, padded_tokens

_PATCH = "2-1"  # 2 x 2 latents, one frame


class Block(nn.Module):
    """A transformer block over packed tokens; a block that refines captions is called without `time`."""

    def __init__(self, block: Any, path: str, kernels: BlockKernels, **capacity: int) -> None:
        """`block` is the diffusers `ZImageTransformerBlock` at `path`; `capacity` goes to each `AdapterLinear`."""
        super().__init__()
        self.kernels = kernels

        attn, norms = block.attention, (block.attention_norm1, block.attention_norm2)
        halves = half_split_order(attn.norm_q.weight)
        heads = (torch.arange(attn.heads, device=halves.device)[:, None] * len(halves) + halves).flatten()
        orders = {f"{path}.attention.to_q": heads, f"{path}.attention.to_k": heads}

        def linear(*names: str) -> AdapterLinear:
            layers = {f"{path}.{name}": block.get_submodule(name) for name in names}
            return AdapterLinear(layers, output_orders=orders, **capacity)

        self.qkv = linear("attention.to_q", "attention.to_k", "attention.to_v")
        self.out = linear("attention.to_out.0")
        self.gate_up = linear("feed_forward.w1", "feed_forward.w3")
        self.down = linear("feed_forward.w2")
        self.modulation = linear("adaLN_modulation.0") if block.modulation else None
        products = (self.qkv, self.out, self.gate_up, self.down)
        self.weights_per_token = sum(product.in_features * product.out_features for product in products)
        self.norms = torch.stack([norm.weight.detach() for norm in (*norms, block.ffn_norm1, block.ffn_norm2)])
        self.norm_qk = torch.stack([attn.norm_q.weight[halves], attn.norm_k.weight[halves]]).detach()[:, None]
        self.heads: int = attn.heads
        self.eps: float = norms[0].eps
        self.eps_qk: float = attn.norm_q.eps

    def forward(self, x: Tensor, packing: Packing, rotation: Tensor, time: Tensor | None, rows: Layout) -> Tensor:
        """Return [tokens, dim] for `x` [tokens, dim] and `time` [rows, width of the embedding], laid out by `rows`."""
        layout, row_of = packing.layout, packing.row_of
        scale_1, gate_1, scale_2, gate_2 = self._modulated_norms(time, rows)
        attended = self._attend(self.kernels.norm(x, scale_1, row_of, self.eps), packing, rotation)
        x, normed = self.kernels.add_norm(x, self.out(attended, layout), gate_1, scale_2, row_of, self.eps)
        up = self.gate_up(normed, layout)
        return self.kernels.add(x, self.down(self.kernels.swiglu(up), layout), gate_2, row_of, self.eps)

    def _modulated_norms(self, time: Tensor | None, rows: Layout) -> Tensor:
        """Return the four norms' weights times each row's modulation, [4, rows, dim]; without `time` one row."""
        if self.modulation is None or time is None:
            return self.norms[:, None]
        return self.kernels.modulate(self.modulation(time, rows), self.norms)

    def _attend(self, x: Tensor, packing: Packing, rotation: Tensor) -> Tensor:
        qkv = self.qkv(x, packing.layout).unflatten(-1, (3, self.heads, -1))  # [tokens, 3, heads, head_dim]
        qk = self.kernels.rotate(qkv[:, :2], self.norm_qk, rotation, self.eps_qk)
        return attention(qk[:, 0], qk[:, 1], qkv[:, 2], packing).flatten(1)


class PackedTransformer(nn.Module):
    """The weights of a loaded `ZImageTransformer2DModel`, stepped for many images at once."""

    def __init__(self, transformer: Any, *, kernels: BlockKernels | None = None, **capacity: int) -> None:
        """`capacity` goes to each `AdapterLinear`."""
        super().__init__()
        kernels = kernels or BlockKernels()

        def linear(path: str) -> AdapterLinear:
            return AdapterLinear({path: transformer.get_submodule(path)}, output_orders={}, **capacity)

        def blocks(name: str) -> nn.ModuleList:
            originals = enumerate(transformer.get_submodule(name))
            return nn.ModuleList(Block(block, f"{name}.{i}", kernels, **capacity) for i, block in originals)

        self.device: torch.device = transformer.device
        self.dtype: torch.dtype = transformer.dtype
        self._embed_time = transformer.t_embedder.timestep_embedding
        self._time_frequencies: int = transformer.t_embedder.frequency_embedding_size
        self._time_scale: float = transformer.t_scale
        self.time_in, self.time_out = linear("t_embedder.mlp.0"), linear("t_embedder.mlp.2")
        self.caption_norm = transformer.cap_embedder[0]
        self.caption_in = linear("cap_embedder.1")
        self.caption_padding = transformer.cap_pad_token.detach()
        self.context_refiner = blocks("context_refiner")
        self.image_in = linear(f"all_x_embedder.{_PATCH}")
        self.image_padding = transformer.x_pad_token.detach()
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

    def _run_layers(self, x: Tensor, packing: Packing, rotation: Tensor, time: Tensor, rows: Layout) -> Tensor:
        for block in self.layers:
            x = block(x, packing, rotation, time, rows)
        return x

    @torch.inference_mode()
    def record(self, image: ImageSequence) -> None:
        """Record the layers as CUDA graphs for small steps; any image gives the shapes."""
        x = torch.empty(0, self.image_in.out_features, dtype=self.dtype, device=self.device)
        time = x.new_empty(0, self.time_out.out_features)
        self._graphs = LayerGraphs(self._run_layers, x, image.rotation, time)

    def adapter_linears(self) -> list[AdapterLinear]:
        return [module for module in self.modules() if isinstance(module, AdapterLinear)]

    def step_flops(self, image_tokens: int, caption_tokens: int) -> float:
        """Return the floating point operations of one step of one row; a multiply and an add count as two.

        A block takes 2 * weights per token for its linear layers and 4 * tokens * dim per token for attention.
        """

        def cost(blocks: nn.ModuleList, tokens: int) -> float:
            weights = sum(cast(Block, block).weights_per_token for block in blocks)
            return 2.0 * tokens * weights + 4.0 * tokens**2 * len(self.image_padding[0]) * len(blocks)

        return cost(self.noise_refiner, image_tokens) + cost(self.layers, image_tokens + caption_tokens)

    @torch.inference_mode()
    def sequence(self, embedding: Tensor, height: int, width: int, adapters: RowAdapters) -> ImageSequence:
        """Compute the inputs that all steps of an image of `height` x `width` tokens share.

        `embedding` [tokens, dim] is the encoded prompt; `adapters` apply to the caption's layers.
        """
        tokens, device = padded_tokens(len(embedding)), self.device
        positions = torch.zeros(tokens + padded_tokens(height * width), 3, dtype=torch.int64, device=device)
        image, caption = positions[:-tokens], positions[-tokens:]
        caption[:, 0] = torch.arange(1, tokens + 1, device=device)
        cell = torch.arange(height * width, device=device)
        # The padding of an image stays at position 0, as in training.
        image[: len(cell)] = torch.stack([torch.full_like(cell, tokens + 1), cell // width, cell % width], dim=1)
        cosines, sines = torch.cat([axis[:, positions[:, i]] for i, axis in enumerate(self._axes)], dim=-1)
        turns = torch.cat([cosines, cosines], dim=-1), torch.cat([-sines, sines], dim=-1)
        rotation = torch.stack(turns, dim=1)[:, :, None, None]

        layout = Layout([(0, len(embedding))], [adapters], device)
        x = self.caption_padding.repeat(tokens, 1)
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
        """Return the transformer's output for each row, in the shape of its latents [channels, height, width].

        `times` run from 0 (noise) to 1. Adjacent rows on the same merged weights share their products.
        """
        device = self.device
        rows = Layout([(row, row + 1) for row in range(len(images))], adapters, device)
        # Copies to the device come first: each one waits for all work launched before it.
        image_packing = Packing([image.image_tokens for image in images], adapters, device)
        packing = Packing([len(image.rotation) for image in images], adapters, device)
        frequencies = self._embed_time(torch.tensor(times, device=device) * self._time_scale, self._time_frequencies)
        time = self.time_out(functional.silu(self.time_in(frequencies.to(self.dtype), rows)), rows)

        patches = [_patchify(x.to(self.dtype), image) for x, image in zip(latents, images, strict=True)]
        x = self.image_in(torch.cat(patches), image_packing.layout)
        for (start, stop), image in zip(image_packing.spans, images, strict=True):
            x[start + image.height * image.width : stop] = self.image_padding
        rotation = torch.cat([image.rotation[: image.image_tokens] for image in images])
        for block in self.noise_refiner:
            x = block(x, image_packing, rotation, time, rows)

        spans = zip(image_packing.spans, images, strict=True)
        x = torch.cat([part for span, image in spans for part in (x[slice(*span)], image.caption)])
        rotation = torch.cat([image.rotation for image in images])
        graph = self._graphs.get(len(x), adapters) if self._graphs else None
        x = graph(x, packing, rotation, time) if graph else self._run_layers(x, packing, rotation, time, rows)

        scale = 1 + self.final_modulation(functional.silu(time), rows)
        x = functional.layer_norm(x, x.shape[-1:], eps=self.final_eps) * scale.index_select(0, packing.row_of)
        x = self.final(x, packing.layout)
        return [_unpatchify(x[start:stop], image) for (start, stop), image in zip(packing.spans, images, strict=True)]


def _patchify(latents: Tensor, image: ImageSequence) -> Tensor:
    """Turn latents [channels, 2 * height, 2 * width] into tokens [padded tokens, 4 * channels]."""
    patches = latents.unflatten(2, (image.width, 2)).unflatten(1, (image.height, 2)).permute(1, 3, 2, 4, 0)
    return functional.pad(patches.flatten(2).flatten(0, 1), (0, 0, 0, image.image_tokens - image.height * image.width))


def _unpatchify(tokens: Tensor, image: ImageSequence) -> Tensor:
    """Turn the first tokens of a row, which are the image's, into latents [channels, 2 * height, 2 * width]."""
    cells = tokens[: image.height * image.width]
    patches = cells.view(image.height, image.width, 2, 2, -1).permute(4, 0, 2, 1, 3)
    return patches.reshape(-1, 2 * image.height, 2 * image.width)
