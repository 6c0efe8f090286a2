"""Run a network over the slices of a prepared volume, in batches, on one device, with a way out of full memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .cpu_network import CpuGenerator
from .devices import is_out_of_memory, precision_name
from .errors import Cancelled, ImtError
from .networks import UNetGenerator, dropout_masks
from .progress import Say, never, quiet

DEFAULT_BATCH = {"cpu": 8, "cuda": 32, "mps": 8}
Result = TypeVar("Result")


class BatchRunner:
    """What all runners of slices share: batches, and smaller ones, or the CPU, when memory is full.

    Attributes:
        network: the network, in evaluation mode.
        device, dtype: where and in which number type it runs.
        batch: slices at once; halved when the device's memory is full.
        say: told of every change forced by memory.
    """

    network: nn.Module
    device: torch.device
    dtype: torch.dtype
    batch: int
    say: Say

    def _place(self) -> None:
        """Bring the network to the device and its number type; each runner in its own way."""

    def each_batch(
        self,
        compute: Callable[[list[int]], Result],
        slices: list[int],
        progress: Callable[[int], None] = quiet,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[tuple[list[int], Result]]:
        """Compute batch by batch, without gradients.

        Args:
            compute: from the indices of a batch's slices to its result.
            slices: the indices of all.
            progress: told how many slices are done.
            cancelled: asked between batches.

        Yields:
            The indices of a batch, and its result.

        Raises:
            Cancelled: if `cancelled` says so. ImtError: if even one slice on the CPU does not fit into memory.
        """
        done = 0
        while done < len(slices):
            if cancelled():
                raise Cancelled("Cancelled: nothing was written.")
            chunk = slices[done : done + self.batch]
            computed: list[Result] = []
            try:
                with torch.inference_mode():
                    computed.append(compute(chunk))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if not computed:  # here, since within `except` the error's traceback still holds the tensors
                self._make_room(len(chunk))
                continue
            done += len(chunk)
            yield chunk, computed.pop()
            progress(done)

    def _make_room(self, tried: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tried > 1:
            self.batch = tried // 2
            self.say(f"The memory of {self.device} is full: the batch is now {self.batch} slices.")
        elif self.device.type != "cpu":
            self.say(f"The memory of {self.device} is full even for one slice: the CPU takes over, in fp32 and slower.")
            self.device, self.dtype, self.batch = torch.device("cpu"), torch.float32, DEFAULT_BATCH["cpu"]
            self._place()
        else:
            raise ImtError("There is not enough memory for a single slice. Close other programs and try again.")

    @property
    def where(self) -> dict[str, str]:
        """The device and precision in use, for the sidecar."""
        return {"device": str(self.device), "precision": precision_name(self.dtype)}


@dataclass
class SliceRunner(BatchRunner):
    """Runs one generator; remembers what full memory has taught it.

    Attributes:
        network: the generator, its weights as stored; the runner takes it over, and rearranges a U-Net for a CPU.
        device, dtype: where and in which number type it runs.
        batch: slices at once; halved when the device's memory is full.
        seed: of the noise z.
        say: told of every change forced by memory.
    """

    network: nn.Module
    device: torch.device
    dtype: torch.dtype
    batch: int
    seed: int = 0
    say: Say = quiet

    def __post_init__(self) -> None:
        self._place()

    def _place(self) -> None:
        if self.device.type == "cpu" and type(self.network) is UNetGenerator:
            self.network = CpuGenerator(self.network.cpu(), self.dtype)
        else:
            self.network = self.network.to(device=self.device, dtype=torch.float32)
        self.network.eval()
        if self.device.type == "cuda":  # fp32 is to mean fp32: by default cuDNN rounds to TF32's 10 bits
            torch.backends.cudnn.allow_tf32 = self.dtype != torch.float32

    def run(
        self,
        inputs: Callable[[list[int]], np.ndarray],
        slices: list[int],
        samples: int = 0,
        dropout: bool = False,
        progress: Callable[[int], None] = quiet,
        cancelled: Callable[[], bool] = never,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Translate slices.

        Args:
            inputs: gives the network input [n, channels, h, w] of slices.
            slices: their indices.
            samples: number of dropout samples for the uncertainty; 0 for none.
            dropout: translate with the noise z on (sample 0) instead of off.
            progress: told how many slices are done.
            cancelled: asked between batches.

        Returns:
            The translation [n, h, w] in [−1, 1], and the standard deviation over the samples [n, h, w], or None.

        Raises:
            Cancelled: if `cancelled` says so. ImtError: if even one slice on the CPU does not fit into memory.
        """
        means: list[np.ndarray] = []
        deviations: list[np.ndarray] = []

        def compute(chunk: list[int]) -> tuple[np.ndarray, np.ndarray]:
            return self._translate(inputs(chunk), chunk, samples, dropout)

        for _, (mean, deviation) in self.each_batch(compute, slices, progress, cancelled):
            means.append(mean)
            deviations.append(deviation)
        return np.concatenate(means), np.concatenate(deviations) if samples else None

    def _translate(self, images: np.ndarray, slices: list[int], samples: int, dropout: bool) -> tuple[np.ndarray, np.ndarray]:
        x = torch.from_numpy(images).to(self.device)
        network = self.network
        features = self._autocast(network.encode, x)
        plain = self._autocast(network.decode, features, self._masks(images, slices, 0) if dropout else None)
        mean = plain[:, 0].float().cpu().numpy()
        if not samples:
            return mean, mean[:0]
        total = torch.zeros_like(plain[:, 0], dtype=torch.float32)
        squares = torch.zeros_like(total)
        reference = plain[:, 0].float()  # deviations from a value near the mean keep float32 exact enough
        for sample in range(samples):
            drawn = self._autocast(network.decode, features, self._masks(images, slices, sample))[:, 0].float() - reference
            total += drawn
            squares += drawn**2
        variance = (squares - total**2 / samples) / max(samples - 1, 1)
        return mean, variance.clamp(min=0).sqrt().cpu().numpy()

    def _masks(self, images: np.ndarray, slices: list[int], sample: int) -> list[Tensor]:
        masks = dropout_masks(self.network, images.shape[2], images.shape[3], self.seed, sample, slices)
        return [mask.to(self.device) for mask in masks]

    def _autocast(self, function: Callable[..., Tensor], *arguments: object) -> Tensor:
        half = self.dtype != torch.float32 and not isinstance(self.network, CpuGenerator)
        with torch.autocast(self.device.type, self.dtype if half else torch.bfloat16, enabled=half):
            return function(*arguments)


@dataclass
class VolumeRunner:
    """Runs a network that translates all slices at once (a 3D network, a forest), in fp32.

    Attributes:
        network: the network; the runner takes it over.
        device: where it runs.
        batch: not used; there for what asks any runner.
        say: told when full memory moves it to the CPU.
    """

    network: nn.Module
    device: torch.device
    batch: int
    say: Say = quiet
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self._place()

    def _place(self) -> None:
        for tensors in (self.network.parameters(), self.network.buffers()):
            for tensor in tensors:
                tensor.data = tensor.data.to(self.device, torch.float32 if tensor.is_floating_point() else tensor.dtype)
        self.network.eval()
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False

    def run(
        self,
        images: np.ndarray,
        spacing_kji: tuple[float, float, float],
        slices: list[int],
        progress: Callable[[int], None] = quiet,
        cancelled: Callable[[], bool] = never,
    ) -> np.ndarray:
        """Translate the prepared images [k, rows, columns] in [−1, 1], `spacing_kji` mm apart.

        Returns:
            The translation of `slices` [n, rows, columns] in [−1, 1].

        Raises:
            Cancelled: if `cancelled` says so. ImtError: if it does not fit into memory on the CPU either.
        """
        if cancelled():
            raise Cancelled("Cancelled: nothing was written.")
        result = None

        def count(done: int) -> None:  # the network counts all slices, the caller those with something in them
            progress(done * len(slices) // len(images))

        try:
            with torch.inference_mode():
                given = torch.from_numpy(images).to(self.device)
                result = self.network.translate_volume(given, spacing_kji, count, cancelled)[slices].cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if result is not None:
            return result
        if self.device.type == "cpu":
            raise ImtError("There is not enough memory for this volume. Close other programs and try again.")
        self.say(f"The memory of {self.device} is full: the CPU takes over, slower.")
        self.device = torch.device("cpu")
        self._place()
        return self.run(images, spacing_kji, slices, progress, cancelled)

    @property
    def where(self) -> dict[str, str]:
        """The device and precision in use, for the sidecar."""
        return {"device": str(self.device), "precision": precision_name(self.dtype)}
