"""Claims on the networks: the paper's architecture, and numbers that an independent implementation confirms."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import numpy_networks
import pytest
import torch
from network_checks import on_paper, one_thread, parameters  # noqa: F401 - one_thread is an autouse fixture
from torch import nn

from IMTCore.cpu_network import CpuGenerator
from IMTCore.networks import (
    PatchDiscriminator,
    SliceNorm,
    UNetGenerator,
    dropout_masks,
    encoder_filters,
    initialise,
)


def with_random_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights at which activations keep their size, so that every layer counts in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4:
                fan = parameter[0].numel() / (4 if parameter.shape[0] > parameter.shape[1] else 1)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.2 / fan**0.5)
            else:
                parameter.copy_(0.8 + 0.4 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def small_unet(seed: int = 0, **options) -> UNetGenerator:
    return with_random_weights(UNetGenerator(**({"in_channels": 2, "filters": 4, "depth": 5} | options)), seed)


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def numbers(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().astype(np.float64) for name, value in network.state_dict().items()}


# ---------------------------------------------------------------- architecture


def test_the_papers_networks_have_pix2pix_parameter_counts():
    assert parameters(on_paper(UNetGenerator)) == 54_407_809
    assert parameters(on_paper(PatchDiscriminator)) == 2_764_609


def test_the_patchgan_gives_thirty_by_thirty_logits_for_the_papers_slices():
    image = torch.empty(3, 1, 256, 256, device="meta")
    assert on_paper(PatchDiscriminator)(image, image).shape == (3, 1, 30, 30)


def test_a_logit_sees_seventy_by_seventy_pixels_and_no_other():
    # Norms by fixed statistics: those of the slice would let every logit see every pixel.
    network = with_random_weights(PatchDiscriminator(filters=4, norm="batch"))
    given, translated = images(1, 1, 256, 256).requires_grad_(), images(1, 1, 256, 256, seed=2).requires_grad_()
    network(given, translated)[0, 0, 14, 17].backward()
    for image in (given, translated):
        rows, columns = np.nonzero(image.grad[0, 0].numpy())
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)
        assert (image.grad != 0).sum() == 70 * 70
        # Stride 8, and paddings of 1, 1, 1, 1, 1 pixels at strides 1, 2, 4, 8, 8.
        assert (rows.min(), columns.min()) == (14 * 8 - 23, 17 * 8 - 23)


def test_the_unet_halves_the_image_eight_times_and_mirrors_its_widths():
    network = on_paper(UNetGenerator)
    features = network.encode(torch.empty(2, 1, 256, 256, device="meta"))
    widths = [64, 128, 256, 512, 512, 512, 512, 512]
    assert encoder_filters(64, 8) == widths
    assert [tuple(f.shape) for f in features] == [(2, w, 128 >> n, 128 >> n) for n, w in enumerate(widths)]
    assert [c.out_channels for c in network.decoder] == [512, 512, 512, 512, 256, 128, 64, 1]
    assert [c.in_channels for c in network.decoder] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
    assert network.decode(features).shape == (2, 1, 256, 256)
    assert network.stride == 256


def test_every_convolution_is_four_by_four_of_stride_two():
    network = on_paper(UNetGenerator)
    for convolution in (*network.encoder, *network.decoder):
        assert (convolution.kernel_size, convolution.stride, convolution.padding) == ((4, 4), (2, 2), (1, 1))


def test_the_first_encoder_block_the_bottleneck_and_the_output_have_no_norm():
    network = on_paper(UNetGenerator)
    assert [isinstance(n, SliceNorm) for n in network.encoder_norms] == [False, *[True] * 6, False]
    assert [isinstance(n, SliceNorm) for n in network.decoder_norms] == [*[True] * 7, False]


def test_each_skip_reaches_the_output_past_the_bottleneck():
    network = small_unet().requires_grad_(False)
    features = [f.detach() for f in network.encode(images(1, 2, 64, 64))]
    reference = network.decode(features)
    for n in range(len(features)):
        changed = [f * (0 if m == n else 1) for m, f in enumerate(features)]
        assert (network.decode(changed) - reference).abs().max() > 1e-3


def test_dropout_acts_after_exactly_the_first_three_decoder_blocks():
    network = small_unet(depth=6, filters=8).train()
    before, after = {}, {}
    for n, norm in enumerate(network.decoder_norms):
        norm.register_forward_hook(lambda _module, _given, result, n=n: before.__setitem__(n, result.detach()))
    for n, deconvolution in enumerate(network.decoder):
        width = deconvolution.in_channels // 2
        deconvolution.register_forward_pre_hook(
            lambda _m, given, n=n, w=width: after.__setitem__(n - 1, given[0][:, w:].detach())
        )
    torch.manual_seed(0)
    network(images(4, 2, 64, 64))
    for n in range(5):
        value = torch.relu(before[n])
        kept = torch.isclose(after[n], value * (2 if n < 3 else 1))
        if n < 3:
            dropped = (after[n] == 0) & (value > 0)
            assert (kept | dropped).all()
            assert 0.35 < (dropped.sum() / (value > 0).sum()) < 0.65
        else:
            assert kept.all()


def test_dropout_masks_belong_to_the_first_three_decoder_blocks():
    assert on_paper(UNetGenerator).dropout_shapes(256, 256) == [(512, 2, 2), (512, 4, 4), (512, 8, 8)]
    assert on_paper(UNetGenerator, depth=5).dropout_shapes(64, 96) == [(512, 4, 6), (256, 8, 12), (128, 16, 24)]
    assert len(on_paper(UNetGenerator, depth=2).dropout_shapes(64, 64)) == 1


def test_the_output_is_within_tanhs_range_and_the_inputs_size():
    for height, width in ((32, 32), (64, 96)):
        output = small_unet(out_channels=3)(images(2, 2, height, width))
        assert output.shape == (2, 3, height, width)
        assert 0.3 < output.abs().max() <= 1


@pytest.mark.parametrize("layout", ["torch", "lua"])
@pytest.mark.parametrize("depth", [2, 5, 6])
def test_both_layouts_run_down_to_a_bottleneck_of_one_pixel(layout, depth):
    network = small_unet(depth=depth, layout=layout)
    output = network(images(2, 2, 64, 64))
    assert output.shape == (2, 1, 64, 64)
    assert torch.isfinite(output).all()
    assert output.std() > 0.05


def test_the_lua_layout_has_biases_and_a_norm_that_leaves_its_shift_at_one_pixel():
    network = small_unet(depth=6, layout="lua")
    bottleneck = network.encode(images(2, 2, 64, 64))[-1]
    assert all(c.bias is not None for c in (*network.encoder, *network.decoder))
    assert torch.equal(bottleneck[:, :, 0, 0], network.encoder_norms[-1].bias.expand(2, -1))


def test_unknown_layouts_norms_and_depths_are_refused():
    for options in ({"layout": "keras"}, {"norm": "group"}, {"depth": 1}):
        with pytest.raises(ValueError, match=r"layout|norm|depth"):
            UNetGenerator(filters=4, **options)


def test_initial_weights_are_those_of_pix2pix():
    torch.manual_seed(0)
    network = UNetGenerator(filters=16, depth=5, layout="lua")
    initialise(network)
    convolutions = torch.cat([c.weight.flatten() for c in (*network.encoder, *network.decoder)])
    norms = torch.cat([n.weight for n in network.modules() if isinstance(n, SliceNorm)])
    assert abs(convolutions.mean()) < 1e-4 and abs(convolutions.std() - 0.02) < 1e-4
    assert abs(norms.mean() - 1) < 0.005 and abs(norms.std() - 0.02) < 0.004
    assert not any(value.any() for name, value in network.state_dict().items() if name.endswith("bias"))


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("layout", ["torch", "lua"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_unet_equals_an_independent_one_in_numpy(layout, seed):
    network = small_unet(seed, layout=layout)
    x = images(2, 2, 64, 64)
    output = network(x).detach().numpy()
    assert output.std() > 0.1
    for n in range(2):
        expected = numpy_networks.generator(numbers(network), x[n].numpy().astype(np.float64), 5)
        assert np.abs(output[n] - expected).max() < 1e-5


def test_the_unet_with_noise_equals_an_independent_one_in_numpy():
    network = small_unet()
    x, slices = images(2, 2, 64, 64), [7, 31]
    masks = dropout_masks(network, 64, 64, seed=3, sample=2, slices=slices)
    output = network(x, masks).detach().numpy()
    assert np.abs(output - network(x).detach().numpy()).max() > 0.1
    for n in range(2):
        own = [mask[n].numpy() for mask in masks]
        expected = numpy_networks.generator(numbers(network), x[n].numpy().astype(np.float64), 5, own)
        assert np.abs(output[n] - expected).max() < 1e-5


@pytest.mark.parametrize("seed", [0, 1])
def test_the_patchgan_equals_an_independent_one_in_numpy(seed):
    network = with_random_weights(PatchDiscriminator(in_channels=3, filters=4), seed)
    given, translated = images(2, 2, 64, 64), images(2, 1, 64, 64, seed=2)
    logits = network(given, translated).detach().numpy()
    assert logits.std() > 0.1
    for n in range(2):
        pair = (image[n].numpy().astype(np.float64) for image in (given, translated))
        assert np.abs(logits[n] - numpy_networks.discriminator(numbers(network), *pair)).max() < 1e-5


def test_a_slice_norm_equals_batch_normalisation_of_one_slice_in_training():
    own, batch = SliceNorm(5), nn.BatchNorm2d(5).train()
    with_random_weights(own)
    batch.load_state_dict(own.state_dict(), strict=False)
    x = images(1, 5, 9, 7) * 3 + 2
    assert (own(x) - batch(x)).abs().max() < 1e-5


@pytest.mark.parametrize("network", [UNetGenerator, PatchDiscriminator])
def test_the_instance_form_equals_batch_normalisation_at_batch_size_one_in_training(network):
    options = {"in_channels": 2, "filters": 4} | ({"depth": 5, "dropout": 0.0} if network is UNetGenerator else {})
    own = with_random_weights(network(**options))
    batch = network(**options, norm="batch")
    missing, unexpected = batch.load_state_dict(own.state_dict(), strict=False)
    assert not unexpected and all(
        name.rsplit(".")[-1] in ("running_mean", "running_var", "num_batches_tracked") for name in missing
    )
    batch.train()
    for seed in range(3):
        x = images(1, 2, 64, 64, seed=seed)
        pair = (x,) if network is UNetGenerator else (x[:, :1], x[:, 1:])
        assert own(*pair).std() > 0.1
        assert (own(*pair) - batch(*pair)).abs().max() < 1e-5


@pytest.mark.parametrize("layout", ["torch", "lua"])
def test_a_batch_of_slices_gives_what_each_gives_alone(layout):
    network = small_unet(layout=layout)
    x = images(5, 2, 64, 64) * torch.tensor([0.1, 1.0, 0.5, 0.01, 0.8])[:, None, None, None]
    slices = [3, 9, 4, 11, 0]
    masks = dropout_masks(network, 64, 64, 0, 0, slices)
    together, noisy = network(x), network(x, masks)
    for n, k in enumerate(slices):
        assert (network(x[n : n + 1]) - together[n]).abs().max() < 1e-5
        assert (network(x[n : n + 1], dropout_masks(network, 64, 64, 0, 0, [k])) - noisy[n]).abs().max() < 1e-5


def test_without_masks_an_evaluated_network_has_no_noise():
    network, x = small_unet(), images(2, 2, 64, 64)
    assert torch.equal(network(x), network(x))
    ones = [torch.ones(2, *shape) for shape in network.dropout_shapes(64, 64)]
    assert torch.equal(network(x, ones), network(x))


# ---------------------------------------------------------------- the noise z


def test_masks_depend_on_seed_sample_and_slice_and_not_on_the_batch():
    network = small_unet()
    many = dropout_masks(network, 64, 64, 5, 1, [4, 8, 15, 16])
    few = dropout_masks(network, 64, 64, 5, 1, [16, 8])
    for a, b in zip(many, few, strict=True):
        assert torch.equal(a[3], b[0]) and torch.equal(a[1], b[1])
    torch.manual_seed(1)
    np.random.default_rng(1).random(7)
    for a, b in zip(many, dropout_masks(network, 64, 64, 5, 1, [4, 8, 15, 16]), strict=True):
        assert torch.equal(a, b)


def test_other_seeds_samples_and_slices_have_other_masks():
    network = small_unet()
    reference = dropout_masks(network, 64, 64, 5, 1, [4])
    for seed, sample, k in ((6, 1, 4), (5, 2, 4), (5, 1, 5), (1, 5, 4), (4, 1, 5)):
        for a, b in zip(reference, dropout_masks(network, 64, 64, seed, sample, [k]), strict=True):
            assert 0.35 < (a != b).float().mean() < 0.65  # two fair coins


def test_the_blocks_of_a_slice_and_the_slices_of_a_block_are_independent():
    network = small_unet(filters=16)
    masks = dropout_masks(network, 64, 64, 0, 0, list(range(20)))
    for mask in masks:
        coins = (mask > 0).float().reshape(20, -1).numpy()
        off_diagonal = np.corrcoef(coins)[~np.eye(20, dtype=bool)]
        assert np.abs(off_diagonal).max() < 5 / np.sqrt(coins.shape[1])


@pytest.mark.parametrize("p", [0.2, 0.5, 0.7])
def test_a_share_p_is_dropped_and_the_rest_scaled_so_that_the_mean_stays(p):
    network = UNetGenerator(filters=16, depth=5, dropout=p)
    for mask in dropout_masks(network, 64, 64, 0, 0, list(range(30))):
        kept = mask > 0
        error = 5 * np.sqrt(p * (1 - p) / mask.numel())
        assert abs(kept.float().mean() - (1 - p)) < error
        assert torch.allclose(mask[kept], torch.tensor(1 / (1 - p)))
        assert mask.dtype == torch.float32


def test_these_masks_are_drawn_alike_on_every_machine_and_version():
    network = UNetGenerator(filters=4, depth=5)
    first, second, third = dropout_masks(network, 32, 32, 20, 3, [11])
    assert (first[0, :8, 0, 0] > 0).int().tolist() == [0, 0, 1, 0, 0, 1, 0, 1]
    assert [int((m > 0).sum()) for m in (first, second, third)] == [60, 123, 272]


@pytest.mark.parametrize("layout", ["torch", "lua"])
def test_the_cpu_arrangement_gives_the_generators_numbers(layout):
    torch.manual_seed(0)
    network = UNetGenerator(3, 2, filters=8, depth=5, dropout_blocks=2, layout=layout).eval()
    initialise(network)
    image = torch.rand(3, 3, 64, 96) * 2 - 1
    masks = dropout_masks(network, 64, 96, 7, 0, [4, 5, 6])
    with torch.inference_mode():
        plain, noisy = network(image), network(image, masks)
        fast = CpuGenerator(network, torch.float32).eval()
        assert (fast(image) - plain).abs().max() < 1e-5
        assert (fast(image, masks) - noisy).abs().max() < 1e-5
        assert fast.dropout_shapes(64, 96) == network.dropout_shapes(64, 96)
        features = fast.encode(image)
        again = fast.decode(features), fast.decode(features)
        assert torch.equal(*again)  # samples of the noise share the features


def test_the_cpu_arrangement_lets_go_of_the_weights_that_it_rearranged():
    network = UNetGenerator(filters=8, depth=5).eval()
    deconvolutions = [weakref.ref(block.weight) for block in network.decoder]
    fast = CpuGenerator(network, torch.bfloat16)
    del network
    gc.collect()
    assert fast.dropout_shapes(32, 32) and all(weight() is None for weight in deconvolutions)
