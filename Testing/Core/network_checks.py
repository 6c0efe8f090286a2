"""What the tests of networks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost these small networks more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parameters(network: nn.Module) -> int:
    """The number of weights."""
    return sum(p.numel() for p in network.parameters())


def on_paper(make: Callable[..., nn.Module], *arguments: object, **options: object) -> nn.Module:
    """A full-size network without numbers in it: shapes only."""
    with torch.device("meta"):
        return make(*arguments, **options)
