"""Claims on the networks of the two rivals: Avula's encoder-decoder and the Context-Aware GAN of Nie et al."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from network_checks import on_paper, one_thread, parameters  # noqa: F401 - one_thread is an autouse fixture
from torch import Tensor, nn
from torch.nn import functional as F

from IMTCore.architectures import ARCHITECTURES
from IMTCore.context_network import ContextCascade, ContextDiscriminator, ContextGenerator, gradient_difference
from IMTCore.encoder_decoder import EncoderDecoder
from IMTCore.errors import Cancelled
from IMTCore.inference import SliceRunner
from IMTCore.networks import initialise

SPACING = (1.0, 1.0, 1.0)


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def seeded(make, *arguments, **options) -> nn.Module:
    torch.manual_seed(0)
    return make(*arguments, **options)


def trained_looking(network: nn.Module) -> nn.Module:
    """Norms as after training: each of their four vectors counts in the output."""
    generator = torch.Generator().manual_seed(5)
    for name, tensor in network.state_dict().items():
        if "norms" in name:
            tensor.copy_((0.0 if "bias" in name or "mean" in name else 0.8) + 0.3 * torch.rand(tensor.shape, generator=generator))
    return network.eval()


def smooth_patches(count: int, size: int, dimensions: int, seed: int) -> Tensor:
    """(count, 1, size, …) blobs in [-1, 1]."""
    coarse = images(count, 1, *[size // 4] * dimensions, seed=seed)
    return F.interpolate(coarse, size=[size] * dimensions, mode="bilinear" if dimensions == 2 else "trilinear")


# --- The encoder-decoder -------------------------------------------------------------------------------------------


def test_the_encoder_is_vgg_16():
    network = on_paper(EncoderDecoder, 3, 1, norm="none")
    assert parameters(network.blocks) == 14_714_688  # the thirteen convolutions of VGG-16 (Simonyan and Zisserman 2015)
    assert [sum(isinstance(layer, nn.Conv2d) for layer in block) for block in network.blocks] == [2, 2, 3, 3, 3]
    assert network.stride == 32


def test_the_encoder_decoder_has_the_stated_size():
    assert parameters(on_paper(EncoderDecoder)) == 32_023_425
    assert "32,023,425" in EncoderDecoder.__doc__


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_it_gives_images_of_the_input_size_in_tanhs_range(norm):
    network = seeded(EncoderDecoder, 3, 2, 4, 3, norm=norm).eval()
    with torch.no_grad():
        output = network(10 * images(2, 3, 24, 40))
    assert output.shape == (2, 2, 24, 40)
    assert 0.05 < output.abs().max() <= 1
    assert output.std() > 0.01


def test_the_skips_are_fcns():
    """FCN-8s fuses pool4 and pool3, FCN-16s pool4, FCN-32s none."""
    x = images(1, 1, 64, 64)
    for skips, sizes in ((2, [8, 4, 2]), (1, [4, 2]), (0, [2]), (9, [32, 16, 8, 4, 2])):
        network = seeded(EncoderDecoder, 1, 1, 4, 5, skips=skips).eval()
        features = network.encode(x)
        assert [f.shape[-1] for f in features] == sizes
        assert torch.equal(network.decode(features), network(x))
        with torch.no_grad():
            for number in range(len(features)):  # each of them counts
                changed = [f + (n == number) * images(*f.shape) for n, f in enumerate(features)]
                assert not torch.allclose(network.decode(changed), network(x), atol=1e-4)


def test_the_runner_of_slices_gives_the_same_numbers_in_any_batch():
    network = seeded(EncoderDecoder, 1, 1, 4, 3)
    stack = images(5, 1, 32, 32)
    alone = network.eval()(stack[:1])[0, 0].detach().numpy()
    results = []
    for batch in (1, 4):
        runner = SliceRunner(network, torch.device("cpu"), torch.float32, batch)
        result, deviation = runner.run(lambda chunk: stack[chunk].numpy(), list(range(5)), dropout=True)
        assert deviation is None
        results.append(result)
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)
    np.testing.assert_allclose(results[0][0], alone, atol=1e-5)


def test_a_training_batch_does_not_mix_its_slices():
    network = seeded(EncoderDecoder, 1, 1, 4, 3).train()
    stack = images(3, 1, 32, 32)
    together, alone = network(stack), torch.cat([network(image[None]) for image in stack])
    assert torch.allclose(together, alone, atol=1e-5)


def test_one_output_can_be_kept():
    network = seeded(EncoderDecoder, 1, 3, 4, 3).eval()
    x = images(1, 1, 16, 16)
    before = network(x)
    network.keep_output(1)
    assert torch.equal(network(x), before[:, 1:2])


@pytest.mark.parametrize("start", ["its own", "pix2pix"])
def test_the_encoder_decoder_learns(start):
    network = seeded(EncoderDecoder, 1, 1, 8, 4)
    if start == "pix2pix":
        initialise(network)
    x = smooth_patches(4, 48, 2, seed=3)
    target = 1 - 2 * x.square()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = (network(x) - target).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    guess = (target - target.median()).abs().mean().item()
    assert losses[0] > 0.8 * guess
    assert losses[-1] < 0.6 * guess


def test_impossible_encoder_decoders_are_refused():
    with pytest.raises(ValueError, match="depth"):
        EncoderDecoder(1, 1, 4, 1)
    with pytest.raises(ValueError, match="norm"):
        EncoderDecoder(1, 1, 4, 3, norm="batch")


# --- The Context-Aware GAN -----------------------------------------------------------------------------------------


def test_the_generator_has_the_published_layers():
    network = on_paper(ContextGenerator)
    shapes = [(c.kernel_size[0], c.out_channels, c.padding[0] > 0) for c in network.convolutions]
    paper = [(9, 32), (3, 32), (3, 32), (3, 64), (9, 64), (3, 64), (3, 32), (7, 32), (3, 1)]
    assert shapes == [(size, filters, size != 9) for size, filters in paper]
    assert parameters(network) == 3_638_593
    assert "3,638,593" in ContextGenerator.__doc__
    code = [c.out_channels for c in on_paper(ContextGenerator, layout="code").convolutions]
    assert code == [32, 32, 32, 32, 64, 64, 64, 32, 1]


@pytest.mark.parametrize("layout", ["paper", "code"])
def test_a_patch_of_32_gives_its_inner_16(layout):
    network = seeded(ContextGenerator, 2, 1, 1, layout)
    assert network.margin == 8
    assert network(images(2, 2, 32, 32, 32)).shape == (2, 1, 16, 16, 16)
    assert network(images(1, 2, 20, 24, 18)).shape == (1, 1, 4, 8, 2)


@pytest.mark.parametrize(("layout", "seen"), [("paper", 35), ("code", 31)])
def test_a_voxel_sees_the_stated_cube_and_no_more(layout, seen):
    network = ContextGenerator(1, 1, 1, layout).eval()
    with torch.no_grad():
        for convolution in network.convolutions:
            convolution.weight.fill_(1 / convolution.weight[0].numel())
    size = 41
    x = torch.ones(1, 1, size, size, size, requires_grad=True)
    network(x)[0, 0, 12, 12, 12].backward()  # it lies 12 + margin from the first voxel
    for indices in x.grad[0, 0].nonzero().T:
        assert (indices.min(), indices.max()) == (20 - seen // 2, 20 + seen // 2)
    assert network.radius == seen // 2


def test_the_discriminator_has_the_published_layers():
    network = on_paper(ContextDiscriminator)
    assert [(c.kernel_size[0], c.out_channels) for c in network.convolutions] == [(5, 32), (5, 64), (5, 128), (5, 256)]
    assert [layer.out_features for layer in network.connected] == [512, 128, 1]
    assert parameters(network) == 6_495_841
    assert "6,495,841" in ContextDiscriminator.__doc__
    small = ContextDiscriminator(1, 2)
    assert small(images(3, 1, 16, 16, 16)).shape == small(images(3, 1, 9, 24, 32)).shape == (3, 1)


def small_cascade(stages: int = 2, layout: str = "paper") -> ContextCascade:
    return trained_looking(seeded(ContextCascade, filters=2, stages=stages, layout=layout))


@pytest.mark.parametrize("layout", ["paper", "code"])
def test_blocks_give_what_one_pass_over_the_whole_gives(layout):
    network = small_cascade(1, layout).generators[0]
    volume = images(23, 45, 50)
    with torch.no_grad():
        whole = network(F.pad(volume, (8,) * 6, value=-1.0)[None, None])[0, 0]
    assert whole.std() > 0.02
    whole = whole.clamp(-1, 1)
    for block in (64, 20):
        translation = network.translate_volume(volume, SPACING, block=block)
        assert translation.shape == volume.shape
        assert torch.allclose(translation, whole, atol=2e-6)


def test_a_volume_of_one_slice_can_be_translated():
    translation = small_cascade().translate_volume(images(1, 7, 5), SPACING)
    assert translation.shape == (1, 7, 5)
    assert torch.isfinite(translation).all()


def test_a_later_stage_sees_the_image_and_the_stage_befores_translation():
    cascade = small_cascade(2)
    volume = images(10, 12, 14)
    first = cascade.generators[0].translate_volume(volume, SPACING)
    second = cascade.generators[1].translate_volume(volume, SPACING, context=first)
    assert torch.equal(cascade.translate_volume(volume, SPACING), second)
    assert not torch.allclose(second, cascade.generators[1].translate_volume(volume, SPACING, context=-first), atol=1e-3)
    assert not torch.allclose(second, cascade.generators[1].translate_volume(-volume, SPACING, context=first), atol=1e-3)
    with pytest.raises(ValueError, match="2 channels"):
        cascade.generators[1].translate_volume(volume, SPACING)


def test_translations_stay_in_range_and_repeat_and_leave_the_network_in_its_mode():
    network = seeded(ContextGenerator, 1, 1, 2).train()
    with torch.no_grad():
        network.convolutions[-1].weight *= 1e4
    volume = images(12, 12, 12)
    first, again = (network.translate_volume(volume, SPACING) for _ in range(2))
    assert torch.equal(first, again)  # running statistics, which translating does not change
    assert first.abs().max() == 1
    assert network.training


def test_progress_ends_at_the_last_slice_and_a_wish_to_stop_is_heard():
    cascade, volume, told = small_cascade(2), images(30, 20, 20), []
    cascade.translate_volume(volume, SPACING, told.append)
    assert told == sorted(told)
    assert told[-1] == 30
    generator = cascade.generators[0]
    with pytest.raises(Cancelled):
        generator.translate_volume(volume, SPACING, cancelled=iter([False, True]).__next__, block=16)


class Cramped(ContextGenerator):
    """A generator on a device with room for inputs of up to 50 voxels an edge."""

    def forward(self, x: Tensor) -> Tensor:
        if max(x.shape[2:]) > 50:
            raise RuntimeError("out of memory")
        return super().forward(x)


def test_full_memory_makes_the_blocks_smaller_and_changes_nothing():
    cramped = seeded(Cramped, 1, 1, 2).eval()
    plain = seeded(ContextGenerator, 1, 1, 2).eval()
    volume, told = images(40, 44, 12), []
    translation = cramped.translate_volume(volume, SPACING, told.append)
    assert torch.allclose(translation, plain.translate_volume(volume, SPACING), atol=2e-6)
    assert told[-1] == 40


def test_full_memory_for_the_smallest_block_is_told():
    class Full(ContextGenerator):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        seeded(Full, 1, 1, 2).translate_volume(images(20, 20, 20), SPACING)


def test_the_context_gan_learns():
    """Both errors fall, and hold with the running statistics, while the discriminator learns too."""
    network, critic = seeded(ContextGenerator, 1, 1, 4), ContextDiscriminator(1, 4)
    optimisers = [torch.optim.Adam(n.parameters(), 1e-2, betas=(0.5, 0.999)) for n in (network, critic)]
    patches = smooth_patches(3, 24, 3, seed=3)
    target = 0.5 - 2 * patches[:, :, 8:-8, 8:-8, 8:-8].square()

    def errors() -> tuple[float, float]:
        output = network(patches)
        return (output - target).square().mean().item(), gradient_difference(output, target).item()

    with torch.no_grad():
        before = errors()
    bce = F.binary_cross_entropy_with_logits
    for _ in range(25):
        fake = network(patches)
        logits = critic(torch.cat([target, fake.detach()]))
        labels = torch.tensor([1.0] * 3 + [0.0] * 3)[:, None]
        optimisers[1].zero_grad()
        bce(logits, labels).backward()
        optimisers[1].step()
        adversarial = bce(critic(fake), torch.ones(3, 1))
        loss = (fake - target).square().mean() + gradient_difference(fake, target) + 2e-4 * adversarial
        optimisers[0].zero_grad()
        loss.backward()
        optimisers[0].step()
    network.eval()
    with torch.no_grad():
        after = errors()
    assert after[0] < min(0.6 * target.var().item(), 0.1 * before[0])
    assert after[1] < min(0.6 * gradient_difference(torch.zeros_like(target), target).item(), 0.1 * before[1])


def test_the_discriminator_learns_to_tell_rough_from_smooth():
    critic = seeded(ContextDiscriminator, 1, 4)
    optimiser = torch.optim.Adam(critic.parameters(), 1e-3)
    labels = torch.tensor([1.0] * 6 + [0.0] * 6)[:, None]
    for step in range(15):
        patches = torch.cat([smooth_patches(6, 16, 3, seed=step), images(6, 1, 16, 16, 16, seed=step)])
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(critic(patches), labels).backward()
        optimiser.step()
    critic.eval()
    with torch.no_grad():
        logits = critic(torch.cat([smooth_patches(6, 16, 3, seed=99), images(6, 1, 16, 16, 16, seed=99)]))
    assert ((logits > 0) == (labels > 0)).all()


def test_impossible_context_networks_are_refused():
    with pytest.raises(ValueError, match="layout"):
        ContextGenerator(layout="lua")
    for arguments in ({"in_channels": 2}, {"out_channels": 2}, {"stages": 0}):
        with pytest.raises(ValueError, match="cascade"):
            ContextCascade(**arguments)


# --- Both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "make", "options"),
    [
        ("encoder-decoder", EncoderDecoder, {"in_channels": 1, "out_channels": 1, "filters": 4, "depth": 3}),
        ("context", ContextCascade, {"in_channels": 1, "out_channels": 1, "filters": 2, "stages": 2, "layout": "code"}),
    ],
)
def test_a_file_of_floating_point_weights_restores_the_network(kind, make, options):
    network = seeded(make, **options)
    with torch.no_grad():
        for tensor in network.state_dict().values():  # the running statistics too
            tensor += 0.1
    stored = {key: value.clone() for key, value in network.state_dict().items()}
    assert all(value.is_floating_point() for value in stored.values())
    with torch.device("meta"):
        restored = make(**options)
    restored.load_state_dict(stored, assign=True)
    x = images(16, 16, 16)
    if make is EncoderDecoder:
        assert torch.equal(restored.eval()(x[:, None]), network.eval()(x[:, None]))
    else:
        assert torch.equal(restored.translate_volume(x, SPACING), network.translate_volume(x, SPACING))
    known = ARCHITECTURES[kind]
    required = {name for name, (_, needed) in known.arguments.items() if needed}
    assert required <= options.keys() <= known.arguments.keys()
    for name, words in known.choices.items():
        for word in words:
            on_paper(make, **(options | {name: word}))
    for name, (low, high) in known.bounds.items():
        for value in {low, high}:
            on_paper(make, **(options | {name: value}))


# --- The gradient-difference loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 1, 7, 9), (2, 2, 5, 6, 7)])
@pytest.mark.parametrize("power", [2.0, 1.0])
def test_the_gradient_difference_is_the_sum_over_the_axes(shape, power):
    prediction, target = images(*shape, seed=1).double(), images(*shape, seed=2).double()
    expected = 0.0
    for axis in range(2, len(shape)):
        values = []
        for index in itertools.product(*(range(n) for n in shape)):
            if index[axis] + 1 < shape[axis]:
                after = tuple(n + (a == axis) for a, n in enumerate(index))
                steep = abs(target[after].item() - target[index].item())
                values.append(abs(steep - abs(prediction[after].item() - prediction[index].item())) ** power)
        expected += np.mean(values)
    assert gradient_difference(prediction, target, power).item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_difference_punishes_blur_and_not_brightness():
    sharp = torch.zeros(1, 1, 16, 16)
    sharp[..., 8:] = 1.0
    blurred = F.avg_pool2d(F.pad(sharp, (2, 2, 2, 2), mode="replicate"), 5, 1)
    assert gradient_difference(sharp + 0.3, sharp) < 1e-12
    assert gradient_difference(1 - sharp, sharp) < 1e-12  # contrast turned over is as steep
    assert gradient_difference(blurred, sharp) > 0.01
    blurred.requires_grad_()
    gradient_difference(blurred, sharp).backward()
    assert torch.isfinite(blurred.grad).all()
    assert blurred.grad.abs().max() > 0
