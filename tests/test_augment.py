"""What the discriminator sees: each change against its matrix or closed form, how often it comes, and its gradients."""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from test_configs import SMALL, composed, run_steps
from torch import nn

from ganrun.adversary import Adversary
from ganrun.augment import bands, diffaugment, geometry
from ganrun.augment import color as colors
from ganrun.augment.ada import ADA, cut_out, noisy
from ganrun.augment.bands import SYM2, amplified, bank
from ganrun.augment.diffaugment import DiffAugment
from ganrun.augment.drawing import Draw
from ganrun.augment.geometry import quarter_turns, rotation, scaling, translation
from ganrun.augment.resampling import CENTRE, SYM6, Sample, copied, spread, warped
from ganrun.config.groups import options
from ganrun.errors import UserError
from ganrun.losses import NonSaturating
from ganrun.networks import mlp
from ganrun.penalties import R1
from ganrun.training.build import build
from ganrun.training.norm import norm_notes

ALL = {name: 1.0 for name in ("blit", "geometry", "color", "filter", "noise", "cutout")}
POLICY = ["color", "translation", "cutout"]
NONE = dict.fromkeys(ALL, 0.0)
SHAPES = [(3, 16, 16), (1, 9, 12), (4, 12, 7), (2, 8, 8)]
TINY_SHAPES = [(1, 1, 1), (1, 2, 1), (3, 2, 3)]


@dataclass(frozen=True)
class Scripted(Draw):
    """Lets only the step of this number act, and notes with which probability each one was asked for."""

    only: int = -1
    asked: list = field(default_factory=list)

    def happens(self, p):
        self.asked.append(float(p))
        return torch.full((self.num,), len(self.asked) - 1 == self.only)


def scripted(num, only) -> Scripted:
    return Scripted(num, torch.device("cpu"), torch.float64, only)


def images(num, *shape, seed=0, dtype=torch.float64):
    return torch.rand(num, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def one(value, num=2) -> torch.Tensor:
    return torch.full((num,), float(value), dtype=torch.float64)


def waves(height, width, num=2):
    """Smooth images: two cosines that continue by reflection at the edges."""
    y, x = (torch.linspace(0, math.pi, side, dtype=torch.float64) for side in (height, width))
    return (torch.cos(2 * y)[:, None] + torch.cos(3 * x)).repeat(num, 1, 1, 1) / 2


# Moving pixels


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pixels_are_copied_exactly(shape):
    x = images(2, *shape)
    assert torch.equal(copied(x, scaling(one(1), 1.0)), x)
    assert torch.equal(copied(x, scaling(one(-1), 1.0)), x.flip(3))
    assert torch.equal(copied(x, quarter_turns(one(2))), x.flip(2, 3))
    padded = torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), (3, 3), (3, 3)], mode="reflect"))
    height, width = shape[1:]
    assert torch.equal(copied(x, translation(one(-2), one(3))), padded[:, :, 6 : 6 + height, 1 : 1 + width])
    if height == width:
        for turns in range(4):
            assert torch.equal(copied(x, quarter_turns(one(turns))), torch.rot90(x, turns, (2, 3)))


def resampled_slowly(image, matrix):
    """One channel (H, W): padded by plain reflection, doubled, read and halved, one value at a time."""
    height, width = image.shape
    pad, taps = 3 * max(height, width), np.array(SYM6)
    wide = np.pad(image, pad, mode="reflect")
    for axis in range(2):
        spread = np.zeros([2 * side if i == axis else side for i, side in enumerate(wide.shape)])
        spread[(slice(None, None, 2), slice(None)) if axis == 0 else (slice(None), slice(None, None, 2))] = wide
        wide = np.apply_along_axis(np.convolve, axis, spread, taps * math.sqrt(2))
    result = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            for m, wm in enumerate(taps):
                for n, wn in enumerate(taps):
                    x, y = (2 * j + n - CENTRE) / 2 - (width - 1) / 2, (2 * i + m - CENTRE) / 2 - (height - 1) / 2
                    sx, sy, _ = matrix @ np.array([x, y, 1])
                    sx, sy = (2 * (s + (side - 1) / 2 + pad) + CENTRE for s, side in ((sx, width), (sy, height)))
                    a, b, fy, fx = int(sy), int(sx), sy % 1, sx % 1
                    value = (1 - fy) * ((1 - fx) * wide[a, b] + fx * wide[a, b + 1])
                    value += fy * ((1 - fx) * wide[a + 1, b] + fx * wide[a + 1, b + 1])
                    result[i, j] += wm * wn * value / 2
    return result


def test_resampling_equals_a_slow_one():
    x = waves(9, 12, 1) + 0.1 * images(1, 1, 9, 12)  # edges are folded, not filtered: noise there would differ more
    maps = scaling(one(0.9, 1), 1.1) @ rotation(one(0.3, 1)) @ translation(one(0.4, 1), one(-0.7, 1))
    slow = torch.from_numpy(resampled_slowly(x[0, 0].numpy(), maps[0].numpy()))
    error = (warped(x, maps)[0, 0] - slow).abs()
    assert error[3:-3, 3:-3].max() < 1e-12 and error.max() < 0.05


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_resampling_under_no_map_is_the_identity(shape):
    x = images(2, *shape)
    torch.testing.assert_close(warped(x, scaling(one(1), 1.0)), x, atol=1e-9, rtol=0)
    small = x.float()
    torch.testing.assert_close(warped(small, scaling(one(1).float(), 1.0)), small, atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", TINY_SHAPES, ids=str)
def test_even_the_smallest_images_can_be_changed(shape):
    x = images(50, *shape, dtype=torch.float32)
    assert ADA(1.0, **ALL)(x).isfinite().all() and DiffAugment(POLICY)(x).isfinite().all()
    torch.testing.assert_close(warped(x, rotation(one(0.0, 50).float())), x, atol=1e-5, rtol=0)


def test_a_ramp_stays_a_ramp():
    ramp = torch.linspace(-1, 1, 33, dtype=torch.float64).expand(2, 1, 33, 33)
    for scale in (0.5, 0.8):  # of the source: the image is enlarged
        enlarged = warped(ramp, scaling(one(scale), scale))[..., 3:-3]
        torch.testing.assert_close(enlarged, scale * ramp[..., 3:-3], atol=1e-9, rtol=0)
    shifted = warped(ramp, translation(one(1.3), one(0)))[..., 8:-8]
    torch.testing.assert_close(shifted, (ramp + 1.3 / 16)[..., 8:-8], atol=1e-9, rtol=0)
    turned = warped(ramp, rotation(one(math.pi / 2)))  # the source's x is minus the result's y
    torch.testing.assert_close(turned[..., 8:-8, 8:-8], -ramp.transpose(2, 3)[..., 8:-8, 8:-8], atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)], ids=str)
def test_resampling_of_smooth_images(size):
    x = waves(*size)
    close = partial(torch.testing.assert_close, atol=0.01, rtol=0)
    close(warped(x, scaling(one(-1), 1.0)), x.flip(3))
    close(warped(x, rotation(one(math.pi))), x.flip(2, 3))
    close(warped(x, translation(one(-3), one(2))), copied(x, translation(one(-3), one(2))))
    if size[0] == size[1]:
        close(warped(x, rotation(one(math.pi / 2))), torch.rot90(x, 1, (2, 3)))


@pytest.mark.parametrize(("taps", "moments", "digits"), [(SYM6, 6, 1e-8), (SYM2, 2, 1e-12)], ids=["sym6", "sym2"])
def test_wavelets_are_orthogonal_with_their_vanishing_moments(taps, moments, digits):
    taps = np.array(taps)
    assert taps.sum() == pytest.approx(math.sqrt(2))
    products = [(taps[2 * k :] * taps[: len(taps) - 2 * k]).sum() for k in range(moments)]
    assert products == pytest.approx([1] + [0] * (moments - 1), abs=1e-11)
    k = np.arange(len(taps))
    assert [((-1.0) ** k * k**m * taps).sum() for m in range(moments)] == pytest.approx([0] * moments, abs=digits)


BLIT = [("flip", 0), ("turn", 1), ("shift", 2)]


@pytest.mark.parametrize(("name", "only"), BLIT)
def test_steps_that_copy_pixels(name, only):
    draw = scripted(4000, only)
    maps, acts = geometry.blit(draw, 0.5, 16, 32)
    assert acts.all() and draw.asked == [0.5] * 3
    if name == "flip":
        assert abs((maps[:, 0, 0] == -1).float().mean() - 0.5) < 0.03 and (maps[:, 1, 1] == 1).all()
    elif name == "turn":
        values, counts = maps[:, :2, :2].unique(dim=0, return_counts=True)
        assert len(values) == 4 and (counts - 1000).abs().max() < 120
    else:
        assert maps[:, 0, 2].unique().tolist() == list(range(-4, 5)) and maps[:, 1, 2].unique().tolist() == [
            *range(-2, 3)
        ]
    assert (maps.det().abs() == 1).all()


RESAMPLE = ["scale", "first turn", "stretch", "second turn", "shift"]


@pytest.mark.parametrize("only", range(5), ids=RESAMPLE)
def test_steps_that_resample(only):
    draw = scripted(4000, only)
    maps, acts = geometry.resample(draw, 0.36, 16, 32)
    assert acts.all() and draw.asked == pytest.approx([0.36, 0.2, 0.36, 0.2, 0.36])  # 1 - 0.8^2 = 0.36
    if only == 0:
        torch.testing.assert_close(maps[:, 0, 0], maps[:, 1, 1])
        assert maps[:, 0, 0].log2().std() == pytest.approx(0.2, rel=0.05)
    elif only in (1, 3):
        angles = torch.atan2(maps[:, 1, 0], maps[:, 0, 0])
        torch.testing.assert_close(maps[:, :2, :2].mT @ maps[:, :2, :2], torch.eye(2).double().expand(4000, 2, 2))
        assert angles.std() == pytest.approx(math.pi / math.sqrt(3), rel=0.05) and angles.abs().max() > 3.1
    elif only == 2:
        torch.testing.assert_close(maps[:, 0, 0] * maps[:, 1, 1], torch.ones(4000).double())
        assert maps[:, 0, 0].log2().std() == pytest.approx(0.2, rel=0.05)
    else:
        assert (maps[:, 0, 2].std(), maps[:, 1, 2].std()) == pytest.approx((4, 2), rel=0.05)


# Colours


def apply(matrices, x):
    return colors.recoloured(x, matrices)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colour_matrices_against_closed_forms(channels):
    x = images(2, channels, 4, 5)
    mean = x.mean(1, keepdim=True)
    close = torch.testing.assert_close
    close(apply(colors.brightness(one(0.3), channels), x), x + 0.3)
    close(apply(colors.contrast(one(1.5), channels), x), 1.5 * x)
    close(apply(colors.luma_flip(one(1), channels), x), x - 2 * mean)
    close(apply(colors.luma_flip(one(0), channels), x), x)
    close(apply(colors.saturation(one(0), channels), x), mean.expand_as(x))
    close(apply(colors.saturation(one(1.7), channels), x), mean + 1.7 * (x - mean))
    v = torch.ones(channels, 1).double() / math.sqrt(channels)
    close(colors.luma_flip(one(1), channels)[0, :-1, :-1], torch.eye(channels).double() - 2 * v @ v.T)


def test_a_hue_turns_colours_about_grey():
    x = images(2, 3, 4, 5)
    close = torch.testing.assert_close
    close(apply(colors.hue(one(2 * math.pi / 3)), x), x[:, [2, 0, 1]])
    close(apply(colors.hue(one(2 * math.pi)), x), x)
    turned = apply(colors.hue(one(1.0)), x)
    close(turned.mean(1), x.mean(1))
    close(turned.square().sum(1), x.square().sum(1))
    half = colors.hue(one(math.pi))[0, :3, :3]
    close(half, 2 * torch.ones(3, 3).double() / 3 - torch.eye(3).double())


def test_grey_images_follow_the_mean_of_the_rows():
    """Karras et al. 2020: a grey image is one of three equal channels, of which the mean is taken afterwards."""
    x, states = images(50, 1, 4, 4), []
    for channels in (1, 3):
        torch.manual_seed(0)
        draw = Draw.like(x)
        amounts = [draw.normal(s) for s in (0.2, 0.5, 1.0)]
        matrices = colors.brightness(amounts[0], channels)
        matrices = colors.contrast(amounts[1].exp2(), channels) @ matrices
        matrices = colors.luma_flip(draw.below(2), channels) @ matrices
        turn = draw.uniform(-math.pi, math.pi)
        matrices = colors.hue(turn) @ matrices if channels == 3 else matrices
        matrices = colors.saturation(amounts[2].exp2(), channels) @ matrices
        states.append(apply(matrices, x.expand(-1, channels, -1, -1)).mean(1))
    torch.testing.assert_close(*states)


@pytest.mark.parametrize("only", range(5))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colour_steps_are_drawn(only, channels):
    draw = scripted(4000, only)
    matrices, acts = colors.color(draw, 0.4, channels)
    assert acts.all() and draw.asked == [0.4] * 5
    linear, shift, eye = matrices[:, :-1, :-1], matrices[:, :-1, -1], torch.eye(channels).double()
    if only == 0:
        assert shift[:, 0].std() == pytest.approx(0.2, rel=0.05) and (linear == eye).all()
    elif only == 1:
        assert linear[:, 0, 0].log2().std() == pytest.approx(0.5, rel=0.05)
    elif only == 2:
        assert abs((linear.sum(2)[:, 0] < 0).float().mean() - 0.5) < 0.03
    elif only == 3:
        assert (linear == eye).all() if channels != 3 else (linear - eye).abs().amax((1, 2)).mean() > 0.5
    elif channels > 1:
        factors = linear[:, 0, 0] - linear[:, 0, 1]
        assert factors.log2().std() == pytest.approx(1.0, rel=0.05)


# Bands, noise, cutout


def response(filters, frequency):
    k = np.arange(filters.shape[1]) - filters.shape[1] // 2
    return filters @ np.cos(frequency * k)


def test_bands_of_the_filter_bank():
    filters = bank()
    identity = np.zeros(filters.shape[1])
    identity[len(identity) // 2] = 1
    np.testing.assert_allclose(filters.sum(0), identity, atol=1e-12)
    np.testing.assert_allclose(filters, filters[:, ::-1], atol=1e-12)
    np.testing.assert_allclose(response(filters, 0), [1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(response(filters, math.pi), [0, 0, 0, 1], atol=1e-12)
    for band, middle in enumerate([0.06, 0.19, 0.375, 0.75]):
        assert response(filters, middle * math.pi).argmax() == band


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (9, 64)], ids=str)
def test_bands_are_amplified_by_their_gains(size):
    """A cosine that continues by reflection only changes its height, by the response in each direction."""
    gains = torch.tensor([[1.0, 1, 1, 1], [0.5, 2, 3, 0.25]]).double()
    for y, x in ((0, 1), (2, 5), (size[0] - 1, size[1] - 2)):
        places = (torch.arange(side).double() * math.pi / (side - 1) for side in size)
        rows, columns = (torch.cos(k * place) for k, place in zip((y, x), places, strict=True))
        image = (rows[:, None] * columns).repeat(2, 1, 1, 1)
        heights = [
            gains.numpy() @ response(bank(), k * math.pi / (side - 1)) for k, side in zip((y, x), size, strict=True)
        ]
        expected = image * torch.from_numpy(heights[0] * heights[1])[:, None, None, None]
        torch.testing.assert_close(amplified(image, gains), expected, atol=1e-9, rtol=0)


def test_gains_keep_the_power_of_natural_images():
    power = torch.tensor([10.0, 1, 1, 1]).double() / 13
    for band in range(4):
        draw = scripted(4000, band)
        gains, acts = bands.gains(draw, 0.3)
        assert acts.all() and draw.asked == [0.3] * 4
        torch.testing.assert_close((power * gains.square()).sum(1), torch.ones(4000).double())
        other = (band + 1) % 4
        assert (gains[:, band] / gains[:, other]).log2().std() == pytest.approx(1.0, rel=0.05)
    gains, _ = bands.gains(Draw(4000, torch.device("cpu"), torch.float64), 1.0)
    assert gains.log2().std() > 0.8  # several at once


def test_noise_and_cutout():
    x = torch.zeros(4000, 1, 8, 12)
    draw = Draw.like(x)
    noise = noisy(x, draw, 0.5)
    acts = noise.flatten(1).abs().sum(1) > 0
    assert abs(acts.float().mean() - 0.5) < 0.03
    assert noise[acts].square().mean().sqrt() == pytest.approx(0.1, rel=0.05)  # |N(0, s^2)| has the mean square s^2
    cut = cut_out(x + 1, draw, 0.5)[:, 0] == 0
    acts = cut.flatten(1).any(1)
    assert abs(acts.float().mean() - 0.5) < 0.03
    rows, columns = cut[acts].any(2).sum(1), cut[acts].any(1).sum(1)
    assert rows.max() == 4 and columns.max() == 6 and rows.min() == 2 and columns.min() == 3  # centres at the edges
    assert torch.equal(cut[acts].sum((1, 2)), rows * columns)  # rectangles


# The whole pipe


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12), (4, 7, 7)], ids=str)
@pytest.mark.parametrize("value_range", [(-1, 1), (0, 1)], ids=str)
@pytest.mark.parametrize("p", [0.0, None], ids=["fixed", "adaptive"])
def test_p_of_0_is_the_identity_to_the_bit(shape, value_range, p):
    x = images(4, *shape, dtype=torch.float32).requires_grad_()
    for values in (x, x.bfloat16(), x.contiguous(memory_format=torch.channels_last)):
        changed = ADA(p, **ALL, value_range=value_range)(values)
        assert torch.equal(changed, values) and changed.dtype == values.dtype
        assert changed.is_contiguous(memory_format=torch.channels_last) == values.is_contiguous(
            memory_format=torch.channels_last
        )
    (gradient,) = torch.autograd.grad(ADA(p, **ALL)(x).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


@pytest.mark.parametrize(("group", "steps"), [("blit", 3), ("geometry", 4), ("color", 5), ("filter", 4), ("noise", 1)])
def test_each_sample_changes_with_its_own_probability(group, steps):
    """At least one of the steps acts on a sample. A blit may act and change nothing; so it may be less often."""
    torch.manual_seed(0)
    num, p = 2000, 0.2
    x = images(num, 3, 8, 8, dtype=torch.float32)
    changed = (ADA(p, **{**NONE, group: 0.5})(x) != x).flatten(1).any(1).float().mean().item()
    expected = 1 - (1 - p / 2) ** steps
    slack = 4 * math.sqrt(expected * (1 - expected) / num)
    if group == "blit":  # half the flips, 3/4 of the turns, 8/9 of the shifts (2 x 8/8 pixels)
        expected = 1 - (1 - p / 4) * (1 - 3 * p / 8) * (1 - p / 2 * (1 - 1 / 4))
    if group == "color":  # half the luma flips change nothing
        expected = 1 - (1 - p / 2) ** 4 * (1 - p / 4)
    assert changed == pytest.approx(expected, abs=slack)


def pipe(shape, **settings):
    def changed(x):
        torch.manual_seed(3)
        return ADA(1.0, **{**ALL, **settings})(x)

    return changed


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (2, 1, 6, 6)], ids=str)
def test_gradients_of_the_whole_pipe(shape):
    x = images(*shape).requires_grad_()
    assert torch.autograd.gradcheck(pipe(shape), (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(pipe(shape), (x,), fast_mode=True)


def test_resampling_is_differentiable_any_number_of_times():
    x = images(2, 2, 5, 4).requires_grad_()
    grid = images(2, 3, 3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: Sample.apply(x, grid), (x,))
    assert torch.autograd.gradgradcheck(lambda x: Sample.apply(x, grid), (x,))
    theirs = nn.functional.grid_sample(x, grid, align_corners=True)
    assert torch.equal(Sample.apply(x, grid), theirs)
    torch.testing.assert_close(
        spread(theirs, grid, x.shape), torch.autograd.grad(theirs, x, theirs, retain_graph=True)[0]
    )
    (own,) = torch.autograd.grad(Sample.apply(x, grid).square().sum(), x)
    torch.testing.assert_close(own, torch.autograd.grad(theirs.square().sum(), x)[0])


def test_values_of_another_range_are_changed_alike():
    x = images(8, 3, 8, 8, dtype=torch.float32)
    for make in (partial(ADA, 1.0, **ALL), partial(DiffAugment, POLICY)):
        results = []
        for low, high in ((-1, 1), (0, 1), (0, 255)):
            torch.manual_seed(0)
            changed = make(value_range=(low, high))((x + 1) / 2 * (high - low) + low)
            results.append((changed - low) / (high - low) * 2 - 1)
        for other in results[1:]:
            torch.testing.assert_close(other, results[0], atol=1e-4, rtol=0)


def test_penalties_see_the_image_before_the_pipe():
    class Doubling(nn.Module):
        def forward(self, x):
            return 2 * x

    torch.manual_seed(0)
    critic = mlp.Discriminator(channels=2, resolution=None, width=8, depth=1)
    adversary = Adversary(critic, NonSaturating(), penalties={"r1": R1(2.0)}, augment={"doubling": Doubling()})
    x = images(4, 2, dtype=torch.float32).requires_grad_()
    terms = adversary.discriminator_losses(adversary.judge(), x.detach(), x.detach()).terms
    (gradient,) = torch.autograd.grad(critic(2 * x).logits.sum(), x)
    torch.testing.assert_close(terms["r1"], gradient.square().sum(1).mean())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ADA(p=1.5), "p=1.5; expected 0 to 1"),
        (lambda: ADA(start=-0.5), "start=-0.5; expected 0 to 1"),
        (lambda: ADA(p=0.5, target=0.7), "start, target, over and every act only where p adapts"),
        (lambda: ADA(**NONE), "expected at least 0, and one above 0"),
        (lambda: ADA(blit=-1), "expected at least 0"),
        (lambda: ADA(every=0), "every=0; expected at least 1"),
        (lambda: ADA(target=1), "target=1; expected more than -1 and less than 1"),
        (lambda: ADA(value_range=[1, 1]), r"value_range=\[1, 1\]; expected the lower end first"),
        (lambda: DiffAugment(["colour"]), "policy=colour: there is no such change; did you mean color"),
        (lambda: DiffAugment([]), "expected each of one or more changes once"),
        (lambda: ADA()(torch.zeros(4, 2)), "it changes images, channels x height x width; these samples are 2"),
    ],
)
def test_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


# DiffAugment


def test_diffaugment_by_hand():
    x = images(400, 3, 8, 16)
    draw = Draw.like(x)
    torch.manual_seed(0)
    changed = diffaugment.color(x, draw)
    torch.manual_seed(0)
    shift, saturation, contrast = (
        draw.uniform(low, high).view(-1, 1, 1, 1) for low, high in ((-0.5, 0.5), (0, 2), (0.5, 1.5))
    )
    bright = x + shift
    grey = bright.mean(1, keepdim=True)
    vivid = (bright - grey) * saturation + grey
    middle = vivid.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(changed, (vivid - middle) * contrast + middle)

    shifts = set()
    for before, after in zip(x, diffaugment.translation(x, draw), strict=True):
        padded = nn.functional.pad(before, (2, 2, 1, 1))
        found = [(y, z) for y in range(3) for z in range(5) if torch.equal(padded[:, y : y + 8, z : z + 16], after)]
        assert len(found) == 1
        shifts |= set(found)
    assert len(shifts) == 15  # all of -1 to 1 rows and -2 to 2 columns

    cut = (diffaugment.cutout(x.abs() + 1, draw) == 0).all(1)
    rows, columns = cut.any(2).sum(1), cut.any(1).sum(1)
    assert torch.equal(cut.sum((1, 2)), rows * columns)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 4, 4, 8)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_diffaugment_has_gradients_twice(channels):
    x = images(2, channels, 6, 5).requires_grad_()

    def changed(x):
        torch.manual_seed(0)
        return DiffAugment(POLICY)(x)

    assert torch.autograd.gradcheck(changed, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(changed, (x,), fast_mode=True)


# In training


@pytest.mark.parametrize("penalty", options("penalty"))
def test_every_penalty_goes_through_the_pipe(penalty):
    words = ["augment=[ada,diffaugment]", "augment.ada.p=0.8", "augment.ada.filter=1", "augment.ada.cutout=1"]
    module = run_steps(f"penalty=[{penalty}]", "critic.norm=none", *words)
    assert {f"discriminator/{penalty}", "discriminator/ada_p", "discriminator/ada_sign"} <= module.terms.keys()
    assert module.terms["discriminator/ada_p"].item() == pytest.approx(0.8)


SMALLER = ["dataset.resolution=16", "critic.norm=none"]
TWO_SIDED = ["generator.width=4", "discriminator.width=4", "dataset.resolution=16", "discriminator.layers=1"]
GAMES = {
    "three channels and APA": [
        "dataset.channels=3",
        "conditional=label",
        "presentation=[apa]",
        "presentation.apa.p=0.5",
    ],
    "source and target": ["model=pix2pix", "pairs=edges", *TWO_SIDED],
    "two games": ["model=cyclegan", "pairs=invert", "generator.blocks=1", *TWO_SIDED, "presentation=[image-pool,apa]"],
    "bf16": ["precision=bf16-mixed"],
    "micro-batches": ["micro_batch=2", "presentation=[apa]"],
    "all groups": [f"augment.ada.{group}=1" for group in ALL],
}


@pytest.mark.parametrize("game", GAMES)
def test_every_kind_of_game_trains_through_it(game):
    terms = run_steps("augment=[ada,diffaugment]", "augment.ada.start=0.8", *GAMES[game]).terms
    names = [name for name in terms if name.startswith("discriminator/ada_p")]
    assert len(names) == 1 + (game == "two games") and terms[names[0]].item() == pytest.approx(0.8)
    apas = [name for name in terms if name.startswith("discriminator/apa_p")]
    assert bool(apas) == any("apa" in word for word in GAMES[game])


def test_the_schedule_of_r3gan():
    module = run_steps("augment=[r3gan]", "augment.r3gan.p.over=16", "loss=relativistic-pairing", "steps=2")
    assert module.terms["discriminator/r3gan_p"].item() == pytest.approx(0.55 * (1 - math.cos(math.pi / 4)) / 2)


def test_a_hue_that_cannot_act_is_told():
    for channels, notes in ((1, []), (3, []), (2, ["no hue, which needs 3 channels; the discriminator sees 2"])):
        augment = ADA()
        augment(torch.zeros(1, channels, 4, 4))
        assert augment.notes == notes
    parts = build(composed(*SMALL, "augment=[ada]", *GAMES["source and target"])[0])
    assert norm_notes(parts)[0] == ["augment.ada: no hue, which needs 3 channels; the discriminator sees 2"]


def test_points_are_refused():
    with pytest.raises(UserError, match="discriminator: it changes images"):
        run_steps("augment=[ada]", "dataset=ring", "model=mlp")
