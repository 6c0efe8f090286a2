"""Several processes that train one network (`torchrun`): each draws its own batches, gradients are averaged."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        device: its device.
        rank: its number; 0 writes the files.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        """Join the processes that `torchrun` started (a GPU each); on its own without it."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls(device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(device, dist.get_rank(), size)

    @property
    def writes(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def leave(self) -> None:
        """Leave the others."""
        if self.size > 1:
            dist.destroy_process_group()

    def parallel(self, network: nn.Module) -> nn.Module:
        """`network` with gradients averaged over the processes in its backward pass; itself if there is one process."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes, without gradient if there are several."""
        if self.size == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value / self.size

    def gather(self, text: bytes) -> list[bytes]:
        """The texts of all processes, by rank, in each of them."""
        if self.size == 1:
            return [text]
        lengths = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(text)], device=self.device))
        longest = max(int(n) for n in lengths)
        padded = torch.zeros(longest, dtype=torch.uint8, device=self.device)
        padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(self.device)
        parts = [torch.zeros_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return [bytes(part[: int(n)].cpu().numpy()) for part, n in zip(parts, lengths, strict=True)]

    def agree(self, value: float) -> float:
        """Process 0's value, in each of them."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared)
