"""Networks: shapes over sizes and channels, what they refuse, labels, ranges, parameters counted by hand."""

import pytest
import torch
from torch import nn

from ganrun.errors import UserError
from ganrun.networks import dcgan, mlp
from ganrun.networks.layers import NORMS, append_label

RESOLUTIONS = [8, 16, 28, 32, [16, 32], 64]


def data_shape(channels, resolution):
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    return (channels, height, width)


def check_shapes(family, channels, resolution, shape, *, num_classes=0, **settings):
    """A generator's output fits its discriminator, which gives a logit and features for each sample."""
    z, label = torch.randn(3, 5), torch.tensor([0, 1, 1]) if num_classes else None
    common = {"channels": channels, "resolution": resolution, "width": 4, "num_classes": num_classes, **settings}
    fake = family.Generator(z_dim=5, **common)(z, label)
    discriminator = family.Discriminator(**common)
    verdict = discriminator(fake, label)
    assert fake.shape == (3, *shape)
    assert verdict.logits.shape == (3,)
    assert verdict.features.shape == (3, discriminator.head.in_features)
    assert verdict.classes is None


@pytest.mark.parametrize("resolution", RESOLUTIONS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [0, 2])
def test_image_shapes(channels, resolution, num_classes):
    for family in (dcgan, mlp):
        check_shapes(family, channels, resolution, data_shape(channels, resolution), num_classes=num_classes)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("num_classes", [0, 2])
def test_vector_shapes(channels, num_classes):
    check_shapes(mlp, channels, None, (channels,), num_classes=num_classes)


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("resolution", [16, 28])
def test_dcgan_kernels(kernel, resolution):
    check_shapes(dcgan, 1, resolution, data_shape(1, resolution), kernel=kernel)


@pytest.mark.parametrize("norm", NORMS)
def test_dcgan_norms(norm):
    check_shapes(dcgan, 3, 16, (3, 16, 16), norm=norm)


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("base_blocks", [1, 2])
def test_dcgan_base_blocks_keep_the_size(kernel, base_blocks):
    generator = dcgan.Generator(z_dim=5, channels=1, resolution=16, width=2, kernel=kernel, base_blocks=base_blocks)
    assert generator(torch.randn(2, 5)).shape == (2, 1, 16, 16)
    strides = [layer.stride[0] for layer in generator.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert strides == [1] * base_blocks + [2, 2]


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [(8, (1, (4, 4))), (28, (2, (7, 7))), (64, (4, (4, 4))), (48, (3, (6, 6))), ([16, 32], (2, (4, 8)))],
    ids=str,
)
def test_pyramid(resolution, expected):
    assert dcgan.pyramid(resolution) == expected


@pytest.mark.parametrize("resolution", [30, 4, 7, 33, 36, [30, 32], None], ids=str)
@pytest.mark.parametrize("family", [dcgan.Generator, dcgan.Discriminator])
def test_dcgan_refuses_resolutions(family, resolution):
    z_dim = {"z_dim": 5} if family is dcgan.Generator else {}
    message = "try model=mlp" if resolution is None else "cannot build it; valid: base"
    with pytest.raises(UserError, match=message):
        family(channels=1, resolution=resolution, **z_dim)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_dcgan_parameters_by_hand():
    generator = dcgan.Generator(z_dim=8, channels=3, resolution=16, width=4)
    stem, up, to_image = 8 * 8 * 4 * 4 + 8 * 4 * 4 + 2 * 8, 8 * 4 * 4 * 4 + 2 * 4, 4 * 3 * 4 * 4 + 3
    assert count(generator) == stem + up + to_image
    discriminator = dcgan.Discriminator(channels=3, resolution=16, width=4)
    first, second, head = 3 * 4 * 4 * 4 + 4, 4 * 8 * 4 * 4 + 2 * 8, 8 * 4 * 4 + 1
    assert count(discriminator) == first + second + head


def test_labels_add_their_classes_to_the_first_layers():
    size = {"channels": 3, "resolution": 16, "width": 4}
    per_class = [
        count(dcgan.Generator(z_dim=8, num_classes=10, **size)) - count(dcgan.Generator(z_dim=8, **size)),
        count(dcgan.Discriminator(num_classes=10, **size)) - count(dcgan.Discriminator(**size)),
    ]
    assert per_class == [10 * 8 * 4 * 4, 10 * 4 * 4 * 4]


def test_mlp_parameters_by_hand():
    size = {"channels": 2, "resolution": None, "width": 3, "depth": 2, "growth": 2}
    assert count(mlp.Generator(z_dim=5, **size)) == (5 * 3 + 3) + (3 * 6 + 6) + (6 * 2 + 2)
    assert count(mlp.Discriminator(**size)) == (2 * 6 + 6) + (6 * 3 + 3) + (3 + 1)


def test_dcgan_initial_weights():
    generator = dcgan.Generator(z_dim=100, channels=3, resolution=16, width=64)
    kernel, norm = generator.blocks[0].weight, generator.stem[2]
    assert kernel.std().item() == pytest.approx(0.02, rel=0.05) and abs(kernel.mean()) < 0.001
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not norm.bias.any() and not generator.to_image[0].bias.any()


def test_first_convolution_is_not_normalised():
    discriminator = dcgan.Discriminator(channels=3, resolution=32, width=4)
    kinds = [type(layer) for layer in discriminator.blocks]
    assert kinds == [nn.Conv2d, nn.LeakyReLU] + 2 * [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]


@pytest.mark.parametrize("family", [dcgan, mlp])
@pytest.mark.parametrize(("value_range", "low", "high"), [([-1, 1], -1, 1), ([0, 1], 0, 1)])
def test_value_range_bounds(family, value_range, low, high):
    generator = family.Generator(z_dim=5, channels=1, resolution=8, width=4, value_range=value_range)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter *= 100
    output = generator(torch.randn(64, 5, generator=torch.Generator().manual_seed(0)))
    assert low <= output.min() < low + 0.1 and high - 0.1 < output.max() <= high


def test_no_value_range_is_unbounded():
    generator = mlp.Generator(z_dim=5, channels=2, resolution=None, width=4, value_range=None)
    assert generator(1e4 * torch.randn(64, 5)).abs().max() > 1


@pytest.mark.parametrize("family", [dcgan.Generator, mlp.Generator])
def test_refuses_value_range(family):
    with pytest.raises(UserError, match=r"value_range=\[0, 255\]; valid: \[-1, 1\]"):
        family(z_dim=5, channels=1, resolution=8, value_range=[0, 255])


@pytest.mark.parametrize("family", [dcgan, mlp])
def test_conditional_network_needs_a_label(family):
    size = {"channels": 1, "resolution": 8, "width": 4, "num_classes": 3}
    with pytest.raises(ValueError, match=r"conditional \(3 classes\) but was given no label"):
        family.Generator(z_dim=5, **size)(torch.randn(2, 5))
    with pytest.raises(ValueError, match=r"conditional \(3 classes\) but was given no label"):
        family.Discriminator(**size)(torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize("family", [dcgan, mlp])
def test_label_changes_the_output(family):
    size = {"channels": 1, "resolution": 8, "width": 8, "num_classes": 3}
    generator, discriminator = family.Generator(z_dim=5, **size).eval(), family.Discriminator(**size).eval()
    z, zeros = torch.randn(1, 5), torch.zeros(1, 1, 8, 8)
    images = [generator(z, torch.tensor([i])) for i in range(3)]
    logits = [discriminator(zeros, torch.tensor([i])).logits for i in range(3)]
    for outputs in (images, logits):
        assert not torch.allclose(outputs[0], outputs[1], atol=0, rtol=1e-6)
        assert not torch.allclose(outputs[1], outputs[2], atol=0, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3, 4)])
def test_append_label(shape):
    x = torch.randn(shape)
    joined = append_label(x, torch.tensor([2, 0]), 3)
    assert torch.equal(joined[:, :5], x)
    one_hot = torch.tensor([[0.0, 0, 1], [1, 0, 0]]).reshape(2, 3, *[1] * (len(shape) - 2))
    assert torch.equal(joined[:, 5:], one_hot.expand(2, 3, *shape[2:]))
    assert append_label(x, torch.tensor([2, 0]), 0) is x


@pytest.mark.parametrize("family", [dcgan, mlp])
def test_dropout_acts_in_training_only(family):
    size = {"channels": 1, "resolution": 8, "width": 16}
    discriminator, x = family.Discriminator(dropout=0.5, **size), torch.randn(2, 1, 8, 8)
    assert not torch.equal(discriminator(x).logits, discriminator(x).logits)
    discriminator.eval()
    assert torch.equal(discriminator(x).logits, discriminator(x).logits)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        (dcgan.Generator, {"z_dim": 0}, "z_dim=0; expected at least 1"),
        (dcgan.Generator, {"z_dim": 5, "width": 0}, "width=0; expected at least 1"),
        (dcgan.Generator, {"z_dim": 5, "kernel": 1}, "kernel=1; expected at least 2"),
        (dcgan.Generator, {"z_dim": 5, "base_blocks": -1}, "base_blocks=-1; expected at least 0"),
        (dcgan.Generator, {"z_dim": 5, "norm": "bacth"}, "norm=bacth; did you mean batch"),
        (dcgan.Discriminator, {"kernel": 1}, "kernel=1; expected at least 2"),
        (mlp.Generator, {"z_dim": 5, "depth": 0}, "depth=0; expected at least 1"),
        (mlp.Discriminator, {"growth": 0}, "growth=0; expected at least 1"),
    ],
)
def test_refuses_settings(family, settings, message):
    with pytest.raises(UserError, match=message):
        family(channels=1, resolution=16, **settings)
