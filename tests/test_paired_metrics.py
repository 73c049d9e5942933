"""Scores of pairs: by hand, beside a direct computation and torchmetrics, and what they need."""

import math

import numpy as np
import pytest
import torch
from conftest import ganrun
from torchmetrics.functional.image import peak_signal_noise_ratio

from ganrun.data.images import Digits
from ganrun.data.vectors import Ring
from ganrun.errors import UserError
from ganrun.metrics import paired
from ganrun.metrics.metric import Setting
from ganrun.metrics.paired import L1, PSNR, SSIM, absolute_error, psnr, ssim
from ganrun.metrics.protocol import difference, short
from ganrun.metrics.scorer import Scorer
from ganrun.metrics.sliced_wasserstein import SlicedWasserstein

CPU = torch.device("cpu")
ALL = {"l1": L1, "psnr": PSNR, "ssim": SSIM}


def constant(*levels: int, channels: int = 1, side: int = 16) -> torch.Tensor:
    """An image of each level, everywhere."""
    return torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, channels, side, side)


def noise(num: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (num, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def digits(**settings) -> Digits:
    return Digits(**{"name": "digits", "resolution": 16, "channels": 1} | settings)


def prepared(*names: str, num: int, **settings) -> Scorer:
    metrics = {name: ALL[name]() for name in names}
    scorer = Scorer(metrics, **{"data": digits(), "num_fake": num, "paired": True} | settings)
    scorer.prepare(CPU)
    return scorer


def scores(target: torch.Tensor, fake: torch.Tensor, chunk: int = 1000) -> dict[str, float]:
    """Of a stream in pieces."""
    parts = zip(target.split(chunk), fake.split(chunk), strict=True)
    found = prepared(*ALL, num=len(fake)).score({"fake": y, "target": x} for x, y in parts)
    assert all(score.std is None for score in found.values())
    return {name: score.value for name, score in found.items()}


class TestByHand:
    @pytest.mark.parametrize("levels", [1, 10, 255])
    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_constant_images_so_many_levels_apart(self, levels, sign, channels):
        pair = constant(0, channels=channels), constant(levels, channels=channels)
        found = scores(*pair[::sign])
        assert found["psnr"] == pytest.approx(20 * math.log10(255 / levels), rel=1e-12, abs=1e-12)
        assert found["l1"] == levels / 255
        c1 = (0.01 * 255) ** 2  # no variance: only the luminance tells, equation 6
        assert found["ssim"] == pytest.approx(c1 / (levels**2 + c1), rel=1e-9)

    def test_the_mean_is_over_images(self):
        target, fake = constant(100, 100, 100), constant(101, 110, 150)
        found = scores(target, fake)
        assert found["psnr"] == pytest.approx(sum(20 * math.log10(255 / k) for k in (1, 10, 50)) / 3, rel=1e-12)
        assert found["l1"] == pytest.approx(61 / 3 / 255, rel=1e-12)

    def test_channels_of_psnr_count_together_and_those_of_ssim_are_averaged(self):
        target = constant(50, channels=2)
        fake = target.clone()
        fake[:, 1] = 80
        c1 = (0.01 * 255) ** 2
        assert psnr(target, fake).item() == pytest.approx(10 * math.log10(255**2 / (30**2 / 2)), rel=1e-12)
        second = (2 * 50 * 80 + c1) / (50**2 + 80**2 + c1)
        assert ssim(target, fake).item() == pytest.approx((1 + second) / 2, rel=1e-9)

    def test_l1_of_a_few_pixels(self):
        target = torch.tensor([[[[0, 10], [200, 255]]]], dtype=torch.uint8)
        fake = torch.tensor([[[[255, 10], [190, 0]]]], dtype=torch.uint8)  # 255, 0, 10, 255 apart
        assert absolute_error(target, fake).item() == pytest.approx(520 / 4 / 255, rel=1e-12)

    def test_an_image_and_its_negative(self):
        """Equal means, opposite structure: SSIM is (c2 - 2 v) / (c2 + 2 v) with the window's variance v."""
        stripes = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
        stripes[..., ::2] = 255
        even = gaussian()[:, ::2].sum()  # the weight of every other column of a window
        found = ssim(stripes, 255 - stripes).item()
        means = [(255 * share, 255 * (1 - share)) for share in (even, 1 - even)]
        expected = [local(*pair, variance=255**2 * even * (1 - even)) for pair in means]
        assert found == pytest.approx(np.mean(expected), rel=1e-9) and found < -0.9

    def test_equal_images(self):
        image = noise(3, 1, 16, 16)
        assert torch.isposinf(psnr(image, image)).all()
        found = scores(image, image.clone())
        assert (found["psnr"], found["l1"]) == (100, 0) and found["ssim"] == pytest.approx(1, abs=1e-12)

    def test_the_ceiling_holds_for_each_image(self):
        target, fake = constant(100, 100), constant(100, 150)
        assert scores(target, fake)["psnr"] == pytest.approx((100 + 20 * math.log10(255 / 50)) / 2, rel=1e-12)
        assert PSNR(ceiling=10).compare(target, fake).tolist() == [10, 10]
        assert PSNR(ceiling=40).protocol["ceiling"] == 40
        for wrong in (0, -1.0, math.inf, math.nan):
            with pytest.raises(ValueError, match=f"ceiling={wrong}; expected more than 0 dB"):
                PSNR(ceiling=wrong)


def gaussian() -> np.ndarray:
    """(11, 11), of standard deviation 1.5, with sum 1."""
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    return np.outer(weights, weights) / weights.sum() ** 2


def local(x: float, y: float, *, variance: float) -> float:
    """Wang et al., equation 13, of two windows with these means, one variance and the covariance -variance."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (2 * x * y + c1) * (c2 - 2 * variance) / ((x**2 + y**2 + c1) * (2 * variance + c2))


def direct_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, equations 13 to 16, window by window, of one channel (H, W)."""
    weights, (c1, c2), found = gaussian(), ((0.01 * 255) ** 2, (0.03 * 255) ** 2), []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (image[top : top + 11, left : left + 11].astype(np.float64) for image in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
            found.append(luminance * (2 * covariance + c2) / (var_a + var_b + c2))
    return float(np.mean(found))


class TestParity:
    @pytest.mark.parametrize("shape", [(1, 11, 11), (1, 16, 23), (3, 20, 12)], ids=str)
    @pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
    def test_ssim_is_the_direct_computation(self, shape, strength):
        target, other = noise(4, *shape), noise(4, *shape, seed=1)
        smooth = torch.linspace(0, 255, shape[2]).expand(shape)  # something other than noise
        target[0] = smooth.to(torch.uint8)
        fake = ((1 - strength) * target.double() + strength * other.double()).round().to(torch.uint8)
        expected = [
            np.mean([direct_ssim(*planes) for planes in zip(x, y, strict=True)])
            for x, y in zip(target.numpy(), fake.numpy(), strict=True)
        ]
        np.testing.assert_allclose(ssim(target, fake).numpy(), expected, rtol=1e-9, atol=1e-12)

    def test_psnr_is_torchmetrics(self):
        target, fake = noise(5, 3, 8, 8).double(), noise(5, 3, 8, 8, seed=1).double()
        settings = {"data_range": 255.0, "reduction": "none", "dim": (1, 2, 3)}
        expected = peak_signal_noise_ratio(fake, target, **settings)  # whose logarithm is in fp32
        np.testing.assert_allclose(psnr(target, fake), expected, rtol=1e-6)


class TestStream:
    @pytest.mark.parametrize("name", ALL)
    def test_the_order_of_pairs_matters(self, name):
        target = digits().held["real"][:20]
        fake = (target.int() + noise(20, 1, 16, 16).int() // 16).clamp(max=255).to(torch.uint8)
        right, wrong = (scores(some, fake)[name] for some in (target, target.roll(1, 0)))
        better = right < wrong if ALL[name].lower_is_better else right > wrong
        assert better and scores(target.flip(0), fake.flip(0))[name] == right, "pairs may come in any order"

    def test_the_same_to_the_bit_in_whatever_pieces(self, monkeypatch):
        target, fake = noise(50, 1, 16, 16), noise(50, 1, 16, 16, seed=1)
        whole = scores(target, fake)
        monkeypatch.setattr(paired, "CHUNK", 3 * 256)
        in_pieces = scores(target, fake, chunk=7)
        assert whole == pytest.approx(in_pieces, rel=1e-14) and scores(target, fake, chunk=7) == in_pieces

    def test_it_draws_nothing_and_changes_no_sample(self):
        target, fake = noise(5, 1, 16, 16), noise(5, 1, 16, 16, seed=1)
        before, state = (target.clone(), fake.clone()), torch.get_rng_state()
        scores(target, fake)
        assert torch.equal(target, before[0]) and torch.equal(fake, before[1])
        assert torch.equal(torch.get_rng_state(), state)

    def test_beside_metrics_of_sets(self):
        data, num = digits(), 300
        scorer = Scorer({"sw": SlicedWasserstein(), "psnr": PSNR()}, data, num_fake=num, num_real=num, paired=True)
        scorer.prepare(CPU)
        batches = [batch["real"] for batch in data.shuffled(num, 100)]
        found = scorer.score({"fake": real, "target": 255 - real} for real in batches)
        assert found["sw"].value == 0 and found["psnr"].value < 10
        floor = scorer.score([{"fake": real} for real in batches], ["sw"])
        assert floor == {"sw": found["sw"]}, "a stream without targets, as of real samples"

    def test_a_stream_that_does_not_fit_is_refused(self):
        scorer, image = prepared("l1", num=2), noise(2, 1, 16, 16)
        with pytest.raises(ValueError, match="l1 of pairs: the stream has no `target` beside `fake`"):
            scorer.score([{"fake": image}])
        with pytest.raises(ValueError, match=r"fake \[2, 1, 16, 16\], but target \[1, 1, 16, 16\]"):
            scorer.score([{"fake": image, "target": image[:1]}])


class TestRefused:
    @pytest.mark.parametrize("name", ALL)
    def test_data_without_pairs(self, name):
        with pytest.raises(UserError, match=f"metric={name}: it compares .* own targets; digits has no pairs"):
            prepared(name, num=2, paired=False)

    @pytest.mark.parametrize("name", ALL)
    def test_vectors(self, name):
        ring = Ring(name="ring", channels=2, num=10)
        with pytest.raises(UserError, match=f"metric={name}: it compares images, but dataset ring has vectors"):
            ALL[name]().prepare(Setting(ring, 10, 10, False, paired=True))

    def test_images_smaller_than_a_window(self):
        with pytest.raises(UserError, match="metric=ssim: its window of 11 pixels does not fit into images of 10x16"):
            prepared("ssim", num=2, data=digits(resolution=(10, 16)))
        assert prepared("psnr", "l1", num=2, data=digits(resolution=(10, 16)))

    @pytest.mark.parametrize("name", ALL)
    def test_the_command_says_so_in_one_line(self, tmp_path, name):
        done = ganrun(f"metric=[{name}]", "run_dir=no", cwd=tmp_path, check=2)
        assert done.stderr.startswith(f"ganrun: metric={name}: it compares outputs with their own targets")
        assert done.stderr.count("\n") == 1 and not (tmp_path / "no").exists()


class TestProtocol:
    def test_it_is_complete(self):
        data = digits()
        found = prepared(*ALL, num=300, data=data).protocols
        common = {
            "features": "pixels", "against": "own target", "data_range": 255, "dataset": "digits", "num_real": 0,
            "data": data.identity, "resolution": "16x16", "channels": 1, "fit": "resize", "split": "training data",
            "num_fake": 300, "values": "8 bit", "labels": "none",
        }  # fmt: skip
        assert found["l1"] == common | {"metric": "L1", "channels_are": "averaged"}
        assert found["psnr"] == common | {"metric": "PSNR", "channels_are": "together", "ceiling": 100}
        window = {"window": "11x11 Gaussian, within the image", "sigma": 1.5, "k1": 0.01, "k2": 0.03}
        assert found["ssim"] == common | {"metric": "SSIM", "channels_are": "averaged"} | window
        assert short(found["psnr"]) == "pixels: 300 fake, each against its own target (training data), 8 bit"

    def test_another_split_or_ceiling_does_not_compare(self):
        one, other = (
            prepared("psnr", num=2, split=split).protocols["psnr"] for split in ("training data", "test data")
        )
        assert difference(one, other) == "split training data and test data"
        assert difference(one, one | {"ceiling": 60}) == "ceiling 100.0 and 60"
