"""Run a segmenter over slices, in batches, on one device, with a way out of full memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from IMTCore.errors import ImtError
from IMTCore.inference import BatchRunner
from IMTCore.progress import Say, never, quiet
from IMTCore.slicing import SliceGrid


@dataclass
class SegmentationRunner(BatchRunner):
    """Runs one segmenter; remembers what full memory has taught it.

    Attributes:
        network: (n, channels, h, w) → logits (n, classes, h, w); the runner takes it over.
        device, dtype: where it runs, and in which number type it convolves.
        batch: slices at once; halved when the device's memory is full.
        say: told of every change forced by memory.
    """

    network: nn.Module
    device: torch.device
    dtype: torch.dtype
    batch: int
    say: Say = quiet
    _grid: tuple[SliceGrid | None, torch.device | None, Tensor | None, Tensor | None] = field(
        default=(None, None, None, None), init=False, repr=False
    )

    def __post_init__(self) -> None:
        self._place()

    def _place(self) -> None:
        self.network = self.network.to(self.device, torch.float32, memory_format=torch.channels_last).eval().requires_grad_(False)
        if self.device.type == "cpu":  # once, instead of at every batch; normalisation stays in float32
            for layer in self.network.modules():
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    layer.to(self.dtype)
        if self.device.type == "cuda":  # fp32 is to mean fp32: by default cuDNN rounds to TF32's 10 bits
            torch.backends.cudnn.allow_tf32 = self.dtype != torch.float32

    def run(
        self,
        inputs: Callable[[list[int]], np.ndarray],
        slices: list[int],
        grid: SliceGrid,
        receive: Callable[[list[int], np.ndarray], None],
        progress: Callable[[int], None] = quiet,
        cancelled: Callable[[], bool] = never,
    ) -> None:
        """Segment slices.

        Args:
            inputs: gives the network input [n, channels, h, w] of slices.
            slices: their indices.
            grid: the way back from the network's image to the box of the volume's slices.
            receive: gets the indices of each batch and the probabilities of its structures, without the background:
                [n, classes - 1, box rows, box columns] float32.
            progress: told how many slices are done.
            cancelled: asked between batches.

        Raises:
            Cancelled: if `cancelled` says so. ImtError: if the network gives no numbers, or even one slice on the CPU does
                not fit into memory.
        """

        def compute(chunk: list[int]) -> np.ndarray:
            return self._probabilities(inputs(chunk), grid)

        for chunk, found in self.each_batch(compute, slices, progress, cancelled):
            receive(chunk, found)

    def _probabilities(self, images: np.ndarray, grid: SliceGrid) -> np.ndarray:
        x = torch.from_numpy(images).to(self.device, memory_format=torch.channels_last)
        if self.device.type == "cpu":
            logits = self.network(x.to(self.dtype))
        else:
            half = self.dtype != torch.float32
            with torch.autocast(self.device.type, self.dtype if half else torch.bfloat16, enabled=half):
                logits = self.network(x)
        probabilities = torch.softmax(logits.float(), dim=1)
        if not torch.isfinite(probabilities.sum()):
            raise ImtError(
                "The network gave values that are not numbers, so there is no segmentation. "
                "Try --precision fp32; if that does not help, the model is damaged: get it again."
            )
        rows, columns = self._way_back(grid)
        structures = probabilities[:, 1:].contiguous()
        return _resampled(_resampled(structures, rows, 2), columns, 3).cpu().numpy()

    def _way_back(self, grid: SliceGrid) -> tuple[Tensor, Tensor]:
        """The grid's matrices on the device, kept for the next batch."""
        if self._grid[0] is not grid or self._grid[1] != self.device:
            matrices = (torch.from_numpy(np.ascontiguousarray(m, np.float32)) for m in (grid.from_rows, grid.from_columns))
            self._grid = grid, self.device, *(matrix.to(self.device) for matrix in matrices)
        return self._grid[2], self._grid[3]


def _resampled(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """`matrix` (m, n) applied along an axis of length n; a mere cut-out, as on a grid of the model's own spacing, is cut out."""
    start = int(matrix[0].argmax())
    length = len(matrix)
    if start + length <= x.shape[axis] and torch.equal(matrix, torch.eye(x.shape[axis], device=x.device)[start : start + length]):
        return x.narrow(axis, start, length)
    return matrix @ x if axis == 2 else x @ matrix.T
