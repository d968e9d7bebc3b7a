"""Convolutions of maps of a few pixels, as they are trained on a processor.

A 3 x 3 convolution of a 2 x 2 map multiplies mostly by padding: of its 36 pairs of output and tap, 16 meet a
pixel. The library's kernels work all of them, and in strips made for wide maps. A matrix product for each tap, over
only the pixels that it meets, is quicker where maps are small and channels many; with wide maps or few channels it is
slower, so those are left to the library. `benchmarks/training_step.py` measures what it is worth.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

_KERNEL = 3
# Of a map that comes out. Beyond them it was slower or hardly quicker, layer by layer.
_MOST_PIXELS, _LEAST_CHANNELS = 16, 256


class SmallMapConv2d(torch.nn.Conv2d):
    """A 3 x 3 convolution, padded by one, without a bias: torch's own but for small maps in float32 on a processor.

    The same numbers but for rounding; the weight has the same name and shape.

    Shapes: (B, C, H, W) -> (B, D, ceil(H / stride), ceil(W / stride)).
    """

    def forward(self, input: Tensor) -> Tensor:
        if self._is_small(input):
            mapped: Tensor = _ByTaps.apply(input, self.weight, self.stride[0])  # type: ignore[no-untyped-call]
            return mapped
        return super().forward(input)

    def _is_small(self, maps: Tensor) -> bool:
        height, width = (_out(size, self.stride[0]) for size in maps.shape[2:])
        return (
            height * width <= _MOST_PIXELS
            and self.out_channels >= _LEAST_CHANNELS
            and maps.device.type == "cpu"
            and maps.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
        )


def with_small_maps(body: torch.nn.Module) -> torch.nn.Module:
    """The same network with its parameters, its 3 x 3 convolutions quick on small maps."""
    for parent in list(body.modules()):
        for name, child in parent.named_children():
            if type(child) is torch.nn.Conv2d and _is_replaceable(child):
                setattr(parent, name, _replaced(child))
    return body


def _is_replaceable(layer: torch.nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (_KERNEL, _KERNEL)
        and layer.padding == (1, 1)
        and layer.dilation == (1, 1)
        and layer.stride[0] == layer.stride[1]
        and layer.groups == 1
        and layer.bias is None
        and layer.padding_mode == "zeros"
    )


def _replaced(layer: torch.nn.Conv2d) -> SmallMapConv2d:
    stride = layer.stride[0]
    # Made without memory: drawing first weights would move the random numbers that follow.
    made = SmallMapConv2d(layer.in_channels, layer.out_channels, _KERNEL, stride, padding=1, bias=False, device="meta")
    made.weight = layer.weight
    return made


class _Tap(NamedTuple):
    """One of the nine weights' matrices, with the pixels it takes from and those it adds to."""

    row: int
    column: int
    read: tuple[slice, slice]
    written: tuple[slice, slice]


class _ByTaps(torch.autograd.Function):
    """Pixels lead in memory here, (H, W, B, C): a rectangle of them is a matrix as it lies or nearly so."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: int) -> Tensor:
        pixels = _pixels_first(maps)
        height, width, count, _ = pixels.shape
        out = pixels.new_zeros(_out(height, stride), _out(width, stride), count, len(weight))
        for tap in _taps(height, width, stride):
            out[tap.written] += pixels[tap.read] @ weight[:, :, tap.row, tap.column].t()
        ctx.save_for_backward(pixels, weight)
        ctx.stride = stride
        return _channels_last(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        pixels, weight = ctx.saved_tensors
        gradient = _pixels_first(gradients[0])
        of_maps = torch.zeros_like(pixels) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        height, width = pixels.shape[:2]
        for tap in _taps(height, width, ctx.stride):
            of_tap = gradient[tap.written]
            if of_maps is not None:
                of_maps[tap.read] += of_tap @ weight[:, :, tap.row, tap.column]
            if of_weight is not None:
                read = pixels[tap.read].flatten(0, 2)
                torch.mm(of_tap.flatten(0, 2).t(), read, out=of_weight[:, :, tap.row, tap.column])
        return None if of_maps is None else _channels_last(of_maps), of_weight, None


def _out(size: int, stride: int) -> int:
    return (size - 1) // stride + 1


def _pixels_first(maps: Tensor) -> Tensor:
    return maps.permute(2, 3, 0, 1).contiguous()


def _channels_last(pixels: Tensor) -> Tensor:
    return pixels.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _taps(height: int, width: int, stride: int) -> Iterator[_Tap]:
    """The taps that meet any pixel of such a map."""
    for row in range(_KERNEL):
        for column in range(_KERNEL):
            rows, columns = _met(height, stride, row), _met(width, stride, column)
            if rows is not None and columns is not None:
                yield _Tap(row, column, (rows[0], columns[0]), (rows[1], columns[1]))


def _met(size: int, stride: int, tap: int) -> tuple[slice, slice] | None:
    """Along one side: what a tap takes from, and what that is added to."""
    first = 1 if tap == 0 else 0  # the first output's first tap lies in the padding
    last = min(_out(size, stride) - 1, (size - tap) // stride)
    if last < first:
        return None
    return slice(first * stride + tap - 1, last * stride + tap, stride), slice(first, last + 1)
