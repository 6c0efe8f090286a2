"""Claims on the segmentation U-Net, and on what cards may say of segmenters."""

from __future__ import annotations

import inspect

import pytest
import torch
from network_checks import on_paper, one_thread, parameters  # noqa: F401
from torch.nn import functional as F

from IMTCore.fcn import FCN
from IMTCore.segmentation_unet import SegmentationUNet
from IMTSegmentLib.architectures import SEGMENTERS
from IMTSegmentLib.segmentation_runner import SegmentationRunner


def tiny(classes: int = 3, channels: int = 2, seed: int = 0, **arguments: object) -> SegmentationUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SegmentationUNet(classes, channels, **{"filters": 4, "depth": 2, **arguments})
        torch.nn.init.normal_(network.score.weight, std=1.0)
    return network.eval()


def images(n: int = 3, channels: int = 2, size: tuple[int, int] = (16, 24)) -> torch.Tensor:
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_default_network_has_two_million_weights_and_keeps_the_images_size() -> None:
    network = on_paper(SegmentationUNet, 4, 3)
    assert 1.5e6 < parameters(network) < 2.5e6
    with torch.device("meta"):
        assert network(torch.empty(2, 3, 48, 32)).shape == (2, 4, 48, 32)
    assert network.stride == 16 == SEGMENTERS["unet"].stride(network.arguments)


def test_the_filters_stop_growing_at_their_maximum() -> None:
    network = on_paper(SegmentationUNet, 2, 1, filters=8, depth=4, max_filters=16)
    assert [block.convolutions[1].out_channels for block in network.encoder] == [8, 16, 16, 16, 16]


def test_inference_gives_the_numbers_of_training() -> None:
    """Without gradients it computes in place and, on a CPU, channels last."""
    network, x = tiny(), images()
    plain = network(x).detach()
    with torch.inference_mode():
        assert torch.allclose(network(x), plain, atol=1e-5)
        assert torch.allclose(network(x.contiguous(memory_format=torch.channels_last)), plain, atol=1e-5)


def test_inference_leaves_its_input_as_it_was() -> None:
    network, x = tiny(), images()
    before = x.clone()
    with torch.inference_mode():
        network(x)
    assert torch.equal(x, before)


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    network, x = tiny(), images()
    with torch.inference_mode():
        together = network(x)
        alone = torch.cat([network(image[None]) for image in x])
    assert torch.allclose(together, alone, atol=1e-5)


def test_bfloat16_on_a_cpu_is_near_float32() -> None:
    x = images(2)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        runner = SegmentationRunner(tiny(), torch.device("cpu"), dtype, 2)
        with torch.inference_mode():
            found[dtype] = torch.softmax(runner.network(x.to(dtype)).float(), dim=1)
    assert 0 < float((found[torch.float32] - found[torch.bfloat16]).abs().max()) < 0.1


def test_dropout_is_on_in_training_only() -> None:
    network, x = tiny(dropout=0.5), images()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_a_few_steps_teach_it_where_bright_pixels_are() -> None:
    network, x = tiny(2, 1, filters=8).train(), images(8, 1)
    truth = (F.avg_pool2d(x, 3, 1, 1)[:, 0] > 0).long()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(network(x), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.35 * losses[0]
    assert (network.eval()(x).argmax(1) == truth).float().mean() > 0.9


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        tiny()(images(1, size=(18, 24)))


@pytest.mark.parametrize("arguments", [{"classes": 1}, {"in_channels": 0}, {"depth": 0}, {"dropout": 1.0}, {"filters": 0}])
def test_impossible_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="not possible"):
        SegmentationUNet(**{"classes": 2, "in_channels": 1, **arguments})


@pytest.mark.parametrize("kind", SEGMENTERS)
def test_a_network_is_built_again_from_its_own_arguments(kind: str) -> None:
    network = tiny() if kind == "unet" else FCN(3, 2, width=1 / 64)
    architecture = SEGMENTERS[kind]
    assert architecture.problem(network.arguments) is None
    again = architecture.build(network.arguments)
    again.load_state_dict(network.state_dict())
    assert set(architecture.arguments) == set(network.arguments) == set(inspect.signature(type(network)).parameters)
