"""Import of `.pth` files: the pix2pix port's generator gives the port's numbers, and nothing in the file is executed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from IMTCore.errors import BadInput, BadModel
from IMTCore.legacy_import import import_state_dict
from IMTCore.model_packages import load_network


class PortBlock(nn.Module):
    """One level of the public PyTorch port of pix2pix, written anew from its description, with its key names."""

    def __init__(self, outer: int, inner: int, channels: int | None = None, sub: nn.Module | None = None, kind: str = "") -> None:
        super().__init__()
        self.outermost = kind == "outermost"
        down = nn.Conv2d(outer if channels is None else channels, inner, 4, 2, 1, bias=False)
        leaky, relu = nn.LeakyReLU(0.2, True), nn.ReLU(True)
        if kind == "outermost":
            layers = [down, sub, relu, nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1), nn.Tanh()]
        elif kind == "innermost":
            layers = [leaky, down, relu, nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)]
        else:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=False)
            layers = [leaky, down, nn.BatchNorm2d(inner), sub, relu, up, nn.BatchNorm2d(outer)]
            if kind == "dropout":
                layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class PortGenerator(nn.Module):
    """The port's U-Net: `num_downs` levels, of which the widest, `ngf` × 8, are repeated."""

    def __init__(self, num_downs: int, ngf: int = 4, channels: int = 1, outputs: int = 1) -> None:
        super().__init__()
        block = PortBlock(ngf * 8, ngf * 8, kind="innermost")
        for _ in range(num_downs - 5):
            block = PortBlock(ngf * 8, ngf * 8, sub=block, kind="dropout")
        for n in (4, 2, 1):
            block = PortBlock(ngf * n, ngf * 2 * n, sub=block)
        self.model = PortBlock(outputs, ngf, channels, block, "outermost")

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def port(num_downs: int, **options: int) -> PortGenerator:
    """A port generator with no two norms alike, in training mode with dropout off, as it is used at test time."""
    torch.manual_seed(num_downs)
    generator = PortGenerator(num_downs, **options)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
            module.running_mean.normal_()
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    return generator.train()


def imported(path: Path, folder: Path, size: int = 256):
    return import_state_dict(path, folder, "mine", "T1", "T2", "unknown", size)


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "module"])
@pytest.mark.parametrize("num_downs", [5, 6, 7, 8])
def test_an_imported_generator_gives_the_ports_numbers(tmp_path: Path, num_downs: int, wrapped: str) -> None:
    generator = port(num_downs)
    state = generator.state_dict()
    assert "model.model.1.model.3.model.1.weight" in state  # the port's nesting
    content = {
        "plain": state,
        "state_dict": {"state_dict": state},
        "module": {f"module.{key}": value for key, value in state.items()},
    }[wrapped]
    torch.save(content, tmp_path / "net.pth")
    card = imported(tmp_path / "net.pth", tmp_path / "models")
    network = load_network(card)
    images = torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = torch.cat([generator(image[None]) for image in images])  # batch 1: each slice's own statistics
        output = network(images)
    assert float(expected.std()) > 0.01
    assert float((output - expected).abs().max()) < 1e-5
    assert card.content["network"]["arguments"]["depth"] == num_downs


def test_three_input_channels_become_a_slice_and_its_neighbours(tmp_path: Path) -> None:
    torch.save(port(5, channels=3).state_dict(), tmp_path / "net.pth")
    card = imported(tmp_path / "net.pth", tmp_path)
    assert card.slicing.neighbours_mm == (-1.0, 0.0, 1.0)
    assert load_network(card)(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 32, 32)


def test_the_card_says_that_the_training_is_not_known(tmp_path: Path) -> None:
    torch.save(port(5).state_dict(), tmp_path / "net.pth")
    card = imported(tmp_path / "net.pth", tmp_path, size=64)
    assert card.content["training"]["data"] == ["not known to IMT"] and card.content["metrics"] == []
    assert card.content["weights"]["licence"] == "unknown" and card.slicing.size == (64, 64)
    with pytest.raises(BadModel, match="multiples of the network's stride, 32"):
        imported(tmp_path / "net.pth", tmp_path, size=48)


def test_this_projects_own_state_dicts_are_imported_unchanged(tmp_path: Path) -> None:
    torch.save(port(5).state_dict(), tmp_path / "net.pth")
    network = load_network(imported(tmp_path / "net.pth", tmp_path))
    torch.save(network.half().state_dict(), tmp_path / "own.pth")
    again = load_network(import_state_dict(tmp_path / "own.pth", tmp_path, "own", "T1", "T2", "unknown"))
    for key, value in again.state_dict().items():
        assert torch.equal(value, network.state_dict()[key].float()), key


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("new_format", [True, False])
def test_a_file_with_code_in_it_is_refused_and_not_executed(tmp_path: Path, new_format: bool) -> None:
    trap, path = tmp_path / "executed", tmp_path / "net.pth"
    torch.save({**port(5).state_dict(), "extra": _Trap(trap)}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(BadInput, match=r"net\.pth is not a plain PyTorch state dict"):
        imported(path, tmp_path / "models")
    assert not trap.exists() and not (tmp_path / "models").exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert trap.exists()


def tensors(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {key.replace("_", "."): torch.zeros(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).state_dict(), "not those of a U-Net"),
        (nn.Linear(3, 3).state_dict(), "not those of a U-Net"),
        ({"model.model.9.weight": torch.zeros(1)}, "Unknown key"),
        ({"model.model.1.attention.0.weight": torch.zeros(1)}, "Unknown key"),
        (tensors(encoder_0_weight=(4, 1, 4, 4), decoder_0_weight=(4, 1, 4, 4)), "does not fit"),
        (tensors(encoder_0_weight=(0, 1, 4, 4), decoder_0_weight=(4, 1, 4, 4)), "not those of a U-Net"),
        (tensors(encoder_0_weight=(), decoder_0_weight=()), "not those of a U-Net"),
        (tensors(encoder_x_weight=(4, 1, 4, 4)), "not those of a U-Net"),
        # A small file must not make the reader ask for 100 GB.
        (
            tensors(encoder_0_weight=(10**4, 1, 1, 1), encoder_1_weight=(10**5, 1, 1, 1), decoder_1_weight=(1, 1, 1, 1)),
            "does not fit",
        ),
        (port(5, outputs=2).state_dict(), "gives 2"),
        (port(5, channels=2).state_dict(), "takes 2 channels"),
        ({}, "not a state dict"),
        ([torch.zeros(1)], "not a state dict"),
        ({"epoch": 3}, "not a state dict"),
        (torch.zeros(3), "not a state dict"),
    ],
)
def test_what_is_no_u_net_is_refused_in_words(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(BadInput, match=message):
        imported(tmp_path / "net.pth", tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_port_generator_with_a_missing_or_a_reshaped_tensor_is_refused(tmp_path: Path) -> None:
    state = port(6).state_dict()
    key = "model.model.1.model.2.weight"
    for changed in ({k: v for k, v in state.items() if k != key}, {**state, key: torch.zeros(3)}):
        torch.save(changed, tmp_path / "net.pth")
        with pytest.raises(BadModel, match=r"does not fit a U-Net generator: .*encoder_norms\.1\.weight"):
            imported(tmp_path / "net.pth", tmp_path / "models")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(BadInput, match="not a plain PyTorch state dict"):
        imported(tmp_path / "net.pth", tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        imported(tmp_path / "absent.pth", tmp_path)
