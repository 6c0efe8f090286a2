"""FCN-32s, 16s and 8s: the published layers, in place to the pixel; stages, optimiser groups, and VGG-16's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from IMTCore.errors import BadModel
from IMTCore.fcn import (
    CROPS,
    FCN,
    VGG_FILTERS,
    bilinear_deconvolution,
    initialise,
    load_previous_stage,
    parameter_groups,
)
from IMTCore.fcn_arguments import ARGUMENTS, BOUNDS, CHOICES, INPUT_SCALINGS, VARIANTS
from IMTCore.vgg_weights import COLOURS, initial_weights, load_vgg

NARROW = 1 / 32


def narrow(variant: str = "8s", classes: int = 3, seed: int = 0, **arguments: object) -> FCN:
    """A narrow network with random weights in every layer, scores too, in evaluation mode."""
    torch.manual_seed(seed)
    network = FCN(classes, variant=variant, width=NARROW, **arguments)
    initialise(network)
    for name, parameter in network.named_parameters():
        if name.startswith("score") and name.endswith("weight"):
            nn.init.normal_(parameter)
    return network.eval()


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- Architecture --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "parameters"), [("32s", 134_346_581), ("16s", 134_357_354), ("8s", 134_362_751)])
def test_the_parameters_are_those_of_vgg_16_and_the_scores_of_21_classes(variant: str, parameters: int) -> None:
    with torch.device("meta"):
        network = FCN(21, variant=variant)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert all(value.is_floating_point() for value in network.state_dict().values())
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}  # fixed kernels are not in the file


@pytest.mark.parametrize("padding", CROPS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_logits_have_the_size_of_the_image_whatever_it_is(variant: str, padding: int) -> None:
    network = narrow(variant, in_channels=2, padding=padding)
    with torch.inference_mode():
        for size in ((1, 1), (32, 64), (45, 77), (97, 33)):
            logits = network(image(1, 2, *size))
            assert logits.shape == (1, 3, *size) and torch.isfinite(logits).all()


@pytest.mark.parametrize(("padding", "size"), [(100, (58, 90)), (0, (64, 96))])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_scale_lies_in_its_place(variant: str, padding: int, size: tuple[int, int]) -> None:
    # With mirrored kernels a network commutes with mirroring, on sizes whose pooling cells lie evenly about the middle. A
    # crop that is off by one pixel at any scale would break that.
    network = narrow(variant, in_channels=1, padding=padding).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.copy_((parameter + parameter.flip(2) + parameter.flip(3) + parameter.flip(2, 3)) / 4)
    x = image(1, 1, *size).double()
    with torch.inference_mode():
        plain, mirrored = network(x), network(x.flip(2, 3)).flip(2, 3)
    assert float(plain.std()) > 0.01  # so that equality means something
    assert float((plain - mirrored).abs().max()) < 1e-9 * float(plain.abs().max())


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_the_deconvolution_interpolates_linearly(factor: int) -> None:
    places = torch.arange(6, dtype=torch.float32)
    ramp = 3 * places[:, None] - 2 * places[None, :] + 5
    enlarged = bilinear_deconvolution(torch.stack([ramp, -ramp])[None], factor)
    assert enlarged.shape == (1, 2, 7 * factor, 7 * factor)
    centres = (torch.arange(7 * factor) + 0.5) / factor - 1  # of the fine pixels, on the coarse grid
    expected = 3 * centres[:, None] - 2 * centres[None, :] + 5
    inner = slice(factor, -factor)
    assert torch.allclose(enlarged[0, 0, inner, inner], expected[inner, inner], atol=1e-4)
    assert torch.equal(enlarged[0, 1], -enlarged[0, 0])


def test_leaving_out_the_padding_of_100_takes_38_percent_of_the_multiplications() -> None:
    for padding, multiplications in ((100, 73.3e9), (0, 27.7e9)):
        with torch.device("meta"):
            full = FCN(21, padding=padding)
        weights = {name: layer.weight.numel() for name, layer in full.named_modules() if isinstance(layer, nn.Conv2d)}
        network, counts = narrow(in_channels=1, padding=padding), []
        for name, layer in network.named_modules():
            if name in weights:
                layer.register_forward_hook(lambda _, __, y, n=weights[name], c=counts: c.append(n * y[0, 0].numel()))
        with torch.inference_mode():
            network(image(1, 1, 256, 256))
        assert len(counts) == 18 and sum(counts) == pytest.approx(multiplications, rel=0.01)


def test_scaled_skips_are_the_same_network_with_other_weights() -> None:
    plain, scaled = narrow("8s"), narrow("8s", skip_scaling=True)
    with torch.no_grad():
        scaled.score_pool4.weight *= 100
        scaled.score_pool3.weight *= 10_000
        x = image(1, 3, 40, 50)
        assert torch.allclose(plain(x), scaled(x), rtol=1e-3, atol=1e-3)


def test_dropout_acts_in_training_only() -> None:
    network, x = narrow(in_channels=1), image(1, 1, 48, 48)
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_a_network_built_without_memory_takes_its_tensors_by_assignment() -> None:
    network, x = narrow(in_channels=1), image(1, 1, 40, 40)
    with torch.device("meta"):
        empty = FCN(**network.arguments)
    empty.load_state_dict(network.state_dict(), assign=True)
    assert torch.equal(empty.eval()(x), network(x))


@pytest.mark.parametrize(
    "wrong", [{"variant": "4s"}, {"padding": 50}, {"width": 0}, {"classes": 1}, {"input_scaling": "rgb"}, {"in_channels": 0}]
)
def test_arguments_that_no_network_has_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FCN(**{"classes": 2, **wrong})


def test_the_schema_for_cards_covers_every_argument() -> None:
    assert set(CHOICES["padding"]) == set(CROPS)
    assert set(ARGUMENTS) == set(FCN(2, width=NARROW).arguments)
    assert set(BOUNDS) | set(CHOICES) == set(ARGUMENTS) - {"skip_scaling"}


# --- Training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("earlier", "later"), [("32s", "16s"), ("16s", "8s")])
def test_a_later_stage_starts_with_the_predictions_of_the_earlier(earlier: str, later: str) -> None:
    previous, network = narrow(earlier, in_channels=1), narrow(later, in_channels=1, seed=5)
    x = image(1, 1, 160, 160)
    with torch.inference_mode():
        expected, before = previous(x), network(x)
    load_previous_stage(network, previous)
    with torch.inference_mode():
        found = network(x)
    # Enlarging in two steps is not quite enlarging in one.
    assert float((found - expected).abs().max()) < 0.12 * float(expected.max() - expected.min())
    assert float((before - expected).abs().max()) > 0.5 * float(expected.max() - expected.min())


def test_stages_that_do_not_follow_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="8s does not start from FCN-32s"):
        load_previous_stage(narrow("8s"), narrow("32s"))
    with pytest.raises(ValueError, match="differ in classes"):
        load_previous_stage(narrow("16s", classes=4), narrow("32s"))


def test_biases_learn_twice_as_fast_and_do_not_decay() -> None:
    network = narrow(in_channels=1).double()
    groups = parameter_groups(network, 1e-4)
    optimiser = torch.optim.SGD(groups, momentum=0.99)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    network(image(1, 1, 40, 40).double()).square().mean().backward()
    optimiser.step()
    for name, value in network.named_parameters():
        change = -1e-4 * (value.grad + 5e-4 * before[name]) if name.endswith("weight") else -2e-4 * value.grad
        assert torch.allclose(value.detach(), before[name] + change, rtol=1e-12, atol=1e-15), name


# --- VGG-16's weights ----------------------------------------------------------------------------------------------


def vgg_state(colours: int = 3) -> dict[str, torch.Tensor]:
    """A narrow VGG-16's state under torchvision's names."""
    random = torch.Generator().manual_seed(3)
    state, place, previous = {}, 0, colours
    for block in VGG_FILTERS:
        for filters in block:
            width = round(filters * NARROW)
            state[f"features.{place}.weight"] = torch.randn(width, previous, 3, 3, generator=random) * (2 / 9 / previous) ** 0.5
            state[f"features.{place}.bias"] = torch.randn(width, generator=random) * 0.1
            previous, place = width, place + 2
        place += 1
    for name, incoming, outgoing in (("0", previous * 49, 128), ("3", 128, 128), ("6", 128, 1000)):
        state[f"classifier.{name}.weight"] = torch.randn(outgoing, incoming, generator=random) * (2 / incoming) ** 0.5
        state[f"classifier.{name}.bias"] = torch.randn(outgoing, generator=random) * 0.1
    return state


@pytest.fixture
def vgg_file(tmp_path: Path) -> Path:
    torch.save(vgg_state(), tmp_path / "vgg16.pth")
    return tmp_path / "vgg16.pth"


@pytest.mark.parametrize("scaling", COLOURS)
def test_with_vggs_weights_the_network_computes_vggs_features(scaling: str, vgg_file: Path) -> None:
    network = narrow("32s", input_scaling=scaling)
    said: list[str] = []
    assert initial_weights(network, vgg_file, said.append) == "VGG-16 from vgg16.pth" and not said
    x = image(1, 3, 24, 24)
    given = (x + 1) / 2 if scaling == "torchvision" else (x + 1) * 127.5  # what the file's own network was trained on
    mean, deviation = (torch.tensor(values)[:, None, None] for values in COLOURS[scaling][:2])
    state = vgg_state()
    expected = F.conv2d((given - mean) / deviation, state["features.0.weight"], state["features.0.bias"])
    found = network.blocks[0][0](x * network.scale + network.shift)[:, :, 100:-100, 100:-100]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    # fc6 and fc7 are the classifier's first layers, run on each 7×7 window.
    features = image(1, round(512 * NARROW), 7, 7)
    hidden = F.relu(F.linear(features.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"]))
    assert torch.allclose(F.relu(network.fc6(features)).flatten(), hidden.flatten(), atol=1e-4)
    expected = F.linear(hidden, state["classifier.3.weight"], state["classifier.3.bias"])
    assert torch.allclose(network.fc7(hidden[:, :, None, None]).flatten(), expected.flatten(), atol=1e-4)
    assert torch.equal(network.blocks[4][2].weight, state["features.28.weight"])
    assert not network.score.weight.any()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_grey_image_gives_what_it_gives_as_three_equal_colours(channels: int, vgg_file: Path) -> None:
    grey, colour = (narrow(in_channels=n, input_scaling="torchvision") for n in (channels, 3))
    for network in (grey, colour):
        load_vgg(network, vgg_file)
    colour.load_state_dict({key: value for key, value in grey.state_dict().items() if "score" in key}, strict=False)
    x = image(1, 1, 40, 40)
    with torch.inference_mode():
        expected, found = colour(x.expand(-1, 3, -1, -1)), grey(x.expand(-1, channels, -1, -1))
    assert float(expected.std()) > 0.01
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))


def test_both_kinds_of_file_and_timms_names_give_the_same_network(vgg_file: Path, tmp_path: Path) -> None:
    state = vgg_state()
    for number, name in (("0", "fc1"), ("3", "fc2")):
        state[f"pre_logits.{name}.weight"] = state.pop(f"classifier.{number}.weight")
        state[f"pre_logits.{name}.bias"] = state.pop(f"classifier.{number}.bias")
    state["pre_logits.fc1.weight"] = state["pre_logits.fc1.weight"].reshape(128, -1, 7, 7)
    save_file(state, tmp_path / "vgg16.safetensors")
    one, other = (narrow(input_scaling="torchvision") for _ in range(2))
    load_vgg(one, vgg_file)
    load_vgg(other, tmp_path / "vgg16.safetensors")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_without_a_file_the_network_is_random_and_says_so() -> None:
    said: list[str] = []
    network = narrow()
    assert initial_weights(network, None, said.append) == "random"
    assert len(said) == 1 and "random weights" in said[0]
    assert network.blocks[2][1].weight.std() > 0.05 and not network.score_pool3.weight.any()


class Harmful:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_a_file_that_does_not_fit_is_refused_and_says_why(tmp_path: Path) -> None:
    def refused(content: object, message: str, **arguments: object) -> None:
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        network = narrow(**{"input_scaling": "torchvision", **arguments})
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises(BadModel, match=message) as caught:
            load_vgg(network, path)
        assert str(path) in str(caught.value)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())

    state = vgg_state()
    refused({key: value for key, value in state.items() if key != "features.10.weight"}, "features.10.weight is missing")
    refused({**state, "features.12.weight": torch.zeros(8, 8, 5, 5)}, r"blocks.2.1.weight should be \(8, 8, 3, 3\) at .* width")
    refused({**state, "features.28.bias": torch.full((16,), torch.nan)}, "not finite")
    refused(vgg_state(colours=1), r"blocks.0.0.weight should be \(2, 3, 3, 3\)")
    refused(state, "scaling must be the file's own, torchvision or caffe, not none", input_scaling="none")
    refused([1, 2], "dictionary of tensors")
    refused({"features.0.weight": Harmful(tmp_path / "harm")}, "weights_only")
    assert not (tmp_path / "harm").exists()
    with pytest.raises(BadModel, match="no such file"):
        load_vgg(narrow(input_scaling="caffe"), tmp_path / "missing.pth")


def test_every_scaling_of_vgg_has_its_colours() -> None:
    assert set(COLOURS) == set(INPUT_SCALINGS) - {"none"}
    for name, (means, _, grey_mean, grey_deviation) in COLOURS.items():
        scale, shift = INPUT_SCALINGS[name]
        top = 1 if name == "torchvision" else 255
        assert grey_mean == pytest.approx(sum(means) / 3, rel=2e-3)
        assert (-scale + shift, scale + shift) == pytest.approx((-grey_mean / grey_deviation, (top - grey_mean) / grey_deviation))
