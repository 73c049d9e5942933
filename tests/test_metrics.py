"""Metrics against independent implementations on the same features, against closed forms, and on sets known by hand."""

import math

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric

from ganrun.data.images import Digits
from ganrun.data.vectors import Ring, SwissRoll
from ganrun.errors import UserError
from ganrun.metrics.class_accuracy import ClassAccuracy
from ganrun.metrics.distances import blocks
from ganrun.metrics.features import Seen
from ganrun.metrics.frechet import FID, IntraFID, between, frechet_distance
from ganrun.metrics.inception_score import InceptionScore, inception_score
from ganrun.metrics.kernel import KID, squared_mmd
from ganrun.metrics.memorisation import Memorisation, exact_radii, memorised
from ganrun.metrics.metric import Setting
from ganrun.metrics.modes import HighQuality, ModesCovered, near_modes
from ganrun.metrics.precision_recall import Coverage, Density, Precision, Recall, radii
from ganrun.metrics.summaries import Agreement, ClassMoments, Kept, Moments


def normal(*shape: int, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift


def summarised(metric, features, chunk: int = 64, **others):
    """What the metric keeps of features that come in chunks."""
    summary = metric.summary()
    for start in range(0, len(features), chunk):
        some = {key: value[start : start + chunk] for key, value in others.items()}
        summary.add(Seen(features[start : start + chunk], **some))
    return summary


def score(metric, real, fake):
    return metric.score(summarised(metric, real), summarised(metric, fake)).value


class TestMoments:
    @pytest.mark.parametrize("chunk", [1, 7, 64, 300])
    def test_streamed_in_any_chunks_they_are_numpys(self, chunk):
        x = normal(300, 6, shift=1000.0)  # far from the origin, where sums of squares would lose digits
        found = summarised(FID(), x, chunk)
        assert found.num == 300 and found.mean.dtype == torch.float64
        np.testing.assert_allclose(found.mean, x.double().mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("make", [Moments, lambda: ClassMoments(3), Kept, Agreement])
    def test_a_summary_survives_a_file(self, make):
        x, label = normal(50, 4), torch.arange(50) % 3
        one, other = make(), make()
        one.add(Seen(x, logits=normal(50, 3, seed=1), label=label))
        other.load(one.state())
        assert all(torch.equal(value, other.state()[key]) for key, value in one.state().items())

    def test_kept_stops_at_most(self):
        kept = Kept(100)
        for start in range(0, 300, 64):
            kept.add(Seen(normal(300, 2)[start : start + 64]))
        assert torch.equal(kept.values, normal(300, 2)[:100]) and kept.num == 100


class TestFID:
    @pytest.mark.parametrize(("num", "size"), [(400, 8), (400, 64), (50, 64)])  # the last with singular covariances
    def test_parity_with_torch_fidelity_and_scipy(self, num, size):
        real, fake = normal(num, size), 1.5 * normal(num, size, seed=1) + 0.3
        statistics = [fid_features_to_statistics(x.double()) for x in (real, fake)]
        expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        assert score(FID(), real, fake) == pytest.approx(expected, rel=1e-4)
        if num > size:
            (m, c), (n, d) = ((s["mu"], s["sigma"]) for s in statistics)
            by_root = ((m - n) ** 2).sum() + np.trace(c + d - 2 * sqrtm(c @ d).real)
            assert score(FID(), real, fake) == pytest.approx(by_root, rel=1e-4)

    @pytest.mark.parametrize("num", [400, 20])
    def test_zero_for_a_set_with_itself(self, num):
        x = normal(num, 64)
        assert score(FID(), x, x.flip(0)) == pytest.approx(0, abs=1e-9)

    def test_shift_by_hand(self):
        x = normal(200, 3)
        assert score(FID(), x, x + torch.tensor([1.0, 2.0, 2.0])) == pytest.approx(9, rel=1e-5)

    def test_gaussians_in_closed_form(self):
        """Independent coordinates: sum of (mean - mean')^2 + (std - std')^2."""
        mean, std = torch.tensor([[0.0, 1.0], [3.0, -1.0]]).double(), torch.tensor([[1.0, 2.0], [0.5, 5.0]]).double()
        found = frechet_distance(mean[0], torch.diag(std[0] ** 2), mean[1], torch.diag(std[1] ** 2))
        assert found.item() == pytest.approx(9 + 4 + 0.25 + 9)

    def test_intra_fid_is_the_mean_over_classes(self):
        metric = IntraFID()
        metric.num_classes = 2
        real, fake, label = normal(100, 3), normal(100, 3, seed=1), torch.arange(100) % 2
        sides = [summarised(metric, x, label=label) for x in (real, fake)]
        each = [score(FID(), real[label == c], fake[label == c]) for c in (0, 1)]
        assert metric.score(*sides).value == pytest.approx(sum(each) / 2)
        assert each[0] != pytest.approx(each[1])

    def test_a_class_without_samples_is_told(self):
        metric = IntraFID()
        metric.num_classes = 3
        side = summarised(metric, normal(100, 3), label=torch.arange(100) % 2)
        with pytest.raises(UserError, match="class 2 has fewer than 2 samples"):
            metric.score(side, side)


class TestKID:
    def test_parity_on_the_same_subset(self):
        real, fake = normal(100, 16), normal(100, 16, seed=1, shift=0.5)
        expected = kernel_mmd(real.double().numpy(), fake.double().numpy())
        assert squared_mmd(real.double(), fake.double()).item() == pytest.approx(expected, abs=1e-4)

    def test_subset_as_large_as_the_set_needs_no_draw(self):
        real, fake = normal(100, 16), normal(100, 16, seed=1, shift=0.5)
        settings = {"kid_subsets": 3, "kid_subset_size": 100, "verbose": False}
        expected = kid_features_to_metric(real.double(), fake.double(), **settings)
        found = KID(num_subsets=3, subset_size=100)
        found = found.score(summarised(found, real), summarised(found, fake))
        assert found.value == pytest.approx(expected["kernel_inception_distance_mean"], abs=1e-4)
        assert found.std == pytest.approx(0, abs=1e-12)

    def test_subsets_differ_and_are_always_the_same(self):
        metric = KID(num_subsets=20, subset_size=50)
        sides = [summarised(metric, normal(500, 8, seed=seed)) for seed in (0, 1)]
        assert metric.score(*sides) == metric.score(*sides) and metric.score(*sides).std > 0

    def test_unbiased_of_equal_distributions(self):
        metric = KID(num_subsets=200, subset_size=100)
        found = metric.score(*(summarised(metric, normal(5000, 4, seed=seed)) for seed in (0, 1)))
        assert abs(found.value) < 3 * found.std / math.sqrt(50)  # subsets overlap
        assert found.std > 0

    def test_too_few_samples_are_told(self):
        few = Setting(Ring(name="ring", channels=2, num=100), 100, 100, False)
        for metric in (
            Coverage(k=5, max_samples=5),
            KID(subset_size=50, max_samples=40),
            InceptionScore(splits=10, max_samples=5),
        ):
            with pytest.raises(UserError, match=r"(5|40) samples.*max_samples= of this metric leaves no more"):
                metric.prepare(few)
        with pytest.raises(UserError, match=r"10 samples; give more by num_samples=, or .*metric.kid.subset_size=10$"):
            KID(subset_size=50).prepare(Setting(few.data, 100, 10, False))
        with pytest.raises(UserError, match=r"give more by evaluate\.num_real="):
            KID(subset_size=50).prepare(Setting(few.data, 20, 30, False, discriminates=True))
        with pytest.raises(UserError, match="dataset ring has no more"):
            KID(subset_size=200).prepare(Setting(few.data, len(few.data), 300, False))
        with pytest.raises(UserError, match="1 sample has no covariance"):
            FID().prepare(few._replace(num_fake=1))
        labels = torch.tensor([0] * 30 + [1])
        with pytest.raises(UserError, match="0 of 31 fakes are of class 2"):
            IntraFID().prepare(few._replace(num_fake=31, conditional=True, labels=labels))
        ring = Ring(name="ring", channels=2, num=100)
        with pytest.raises(UserError, match=r"subsets of 1000 from 60 samples.*subset_size=60$"):
            KID().prepare(Setting(ring, 100, 60, False))


class TestInceptionScore:
    @pytest.mark.parametrize(("num", "splits"), [(500, 10), (503, 7), (100, 1)])
    def test_parity_with_torch_fidelity(self, num, splits):
        logits = 3 * normal(num, 20)
        expected = isc_features_to_metric(logits, splits=splits, shuffle=False)
        metric = InceptionScore(splits=splits)
        found = metric.score(None, summarised(metric, normal(num, 2), logits=logits))
        assert found.value == pytest.approx(expected["inception_score_mean"], rel=1e-4)
        assert found.std == pytest.approx(expected["inception_score_std"], rel=1e-4, abs=1e-9)

    def test_extremes_by_hand(self):
        sure = 100.0 * torch.eye(5).repeat(4, 1)
        assert inception_score(sure).item() == pytest.approx(5)  # sure of each, all classes alike
        assert inception_score(sure[:1].repeat(20, 1)).item() == pytest.approx(1)  # one class only
        assert inception_score(torch.zeros(20, 5)).item() == pytest.approx(1)  # sure of none


class TestNeighbourhoods:
    @pytest.mark.parametrize(
        ("num_real", "num_fake", "size", "k"), [(300, 300, 8, 5), (200, 350, 64, 3), (50, 60, 2, 1)]
    )
    @pytest.mark.parametrize("shift", [0.0, 50.0])
    def test_parity_with_prdc(self, num_real, num_fake, size, k, shift):
        real, fake = normal(num_real, size, shift=shift), 0.8 * normal(num_fake, size, seed=1) + 0.2 + shift
        expected = compute_prdc(real.double().numpy(), fake.double().numpy(), k)
        for name, cls in {"precision": Precision, "recall": Recall, "density": Density, "coverage": Coverage}.items():
            assert score(cls(k=k), real, fake) == pytest.approx(expected[name], rel=1e-4), name

    def test_a_set_with_itself(self):
        x = normal(200, 4)
        for cls in (Precision, Recall, Coverage):
            assert score(cls(k=3), x, x.clone()) == 1
        assert score(Density(k=3), x, x.clone()) == 1

    def test_collapse_costs_recall_and_coverage_not_precision(self):
        real = normal(300, 4)
        fake = real[:1] + 0.001 * normal(300, 4, seed=1)
        assert score(Precision(k=5), real, fake) == 1
        assert score(Recall(k=5), real, fake) < 0.05 and score(Coverage(k=5), real, fake) < 0.1

    def test_near_duplicates_far_from_the_origin(self):
        """In fp32 a product of matrices would lose the distances between them."""
        base = 100 * normal(40, 64, seed=3)
        real = torch.cat([base, base + 1e-3 * normal(40, 64, seed=4)])
        fake = base + 1e-3 * normal(40, 64, seed=5)
        expected = compute_prdc(real.double().numpy(), fake.double().numpy(), 1)
        for name, cls in {"precision": Precision, "recall": Recall, "density": Density, "coverage": Coverage}.items():
            assert score(cls(k=1), real, fake) == pytest.approx(expected[name], rel=1e-4), name

    def test_radii_by_hand(self):
        assert radii(torch.tensor([[0.0], [1.0], [3.0], [7.0]]), 1).tolist() == [1, 1, 2, 4]

    def test_blocks_are_scipys_distances(self, monkeypatch):
        monkeypatch.setattr("ganrun.metrics.distances.QUERIES", 10)
        monkeypatch.setattr("ganrun.metrics.distances.POINTS", 10)
        x, y = normal(23, 5, shift=100.0), normal(17, 5, seed=1, shift=100.0)
        found = torch.cat([distances for _, distances in blocks(x, y)])
        np.testing.assert_allclose(found, cdist(x, y, "sqeuclidean"), rtol=1e-4)
        assert [rows.start for rows, _ in blocks(x, y)] == [0, 5, 10, 15, 20]


class TestMemorisation:
    def test_copies_and_strangers(self):
        real, fresh = normal(2000, 4), normal(500, 4, seed=1)
        assert score(Memorisation(), real, real[:100] + 1e-4) == 1
        assert score(Memorisation(), real, 100 + fresh) == 0

    @pytest.mark.parametrize(("size", "share"), [(1, 0.67), (4, 0.54), (100, 0.14)])
    def test_what_unseen_reals_score_depends_on_the_data(self, size, share):
        assert score(Memorisation(), normal(2000, size), normal(1000, size, seed=1)) == pytest.approx(share, abs=0.05)

    def test_copies_of_images_that_are_in_the_data_twice(self):
        twice = normal(50, 4).repeat(2, 1)
        assert score(Memorisation(), twice, twice[:20]) == 1

    def test_by_hand(self):
        real = torch.tensor([[0.0], [1.0], [10.0]])
        fake = torch.tensor([[0.4], [2.5], [5.0], [12.0]])  # 0.4 from 0, 1.5 from 1, 4 from 1, 2 from 10
        assert memorised(real, exact_radii(real, 1), fake).tolist() == [True, False, False, True]


class TestModes:
    def test_by_hand(self):
        centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
        samples = torch.tensor([[0.1, 0.0], [0.0, 0.2], [9.9, 0.0], [5.0, 0.0], [0.0, 0.31]])
        assert near_modes(samples, centres, 0.3).tolist() == [2, 1, 0]

    def test_exact_samples_of_a_ring(self):
        ring = Ring(name="ring", channels=2)
        quality, covered = HighQuality(), ModesCovered(min_samples=100)
        for metric in (quality, covered):
            metric.prepare(Setting(ring, 100, 100, False))
        kept = summarised(quality, ring.held["real"])
        assert quality.score(None, kept).value == pytest.approx(1 - math.exp(-4.5), abs=2e-3)  # Rayleigh, 3 deviations
        assert covered.score(None, kept).value == 8
        one = ring.held["real"][ring.held["label"] < 2]
        assert covered.score(None, summarised(quality, one)).value == 2
        assert ModesCovered.needs_real is False and not covered.lower_is_better

    def test_other_data_are_refused(self):
        roll = SwissRoll(name="swiss-roll", channels=2, num=100)
        with pytest.raises(UserError, match="metric=modes-covered: dataset swiss-roll has no known modes"):
            ModesCovered().prepare(Setting(roll, 100, 100, False))


class TestConditional:
    def test_agreement_by_hand(self):
        logits, label = torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 1, 2])
        side = summarised(ClassAccuracy(), normal(4, 2), logits=logits, label=label)
        assert ClassAccuracy().score(None, side).value == 0.5

    @pytest.mark.parametrize("metric", [ClassAccuracy(), IntraFID()])
    def test_unconditional_fakes_are_refused(self, metric):
        digits = Digits(name="digits", resolution=16, channels=1)
        with pytest.raises(UserError, match="made for classes, by a generator trained with conditional=label"):
            metric.prepare(Setting(digits, 100, 100, False))

    def test_accuracy_needs_a_classifier_of_the_same_classes(self):
        digits = Digits(name="digits", resolution=16, channels=1)
        with pytest.raises(UserError, match="needs metric/features=classifier, trained on the data set"):
            ClassAccuracy().prepare(Setting(digits, 100, 100, True))

    def test_inception_score_needs_classes(self):
        digits = Digits(name="digits", resolution=16, channels=1)
        with pytest.raises(UserError, match="needs metric/features=inception or classifier"):
            InceptionScore().prepare(Setting(digits, 100, 100, False))


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda: KID(num_subsets=0), "num_subsets=0"), (lambda: KID(subset_size=1), "subset_size=1"),
        (lambda: Precision(k=0), "k=0"), (lambda: Recall(max_samples=1), "max_samples=1"),
        (lambda: InceptionScore(splits=0), "splits=0"), (lambda: ModesCovered(min_samples=0), "min_samples=0"),
        (lambda: HighQuality(deviations=0), "deviations=0"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(make, wrong):
    with pytest.raises(ValueError, match=wrong):
        make()


def test_between_is_symmetric():
    sides = [summarised(FID(), normal(100, 5, seed=seed, shift=seed)) for seed in (0, 1)]
    assert between(*sides) == pytest.approx(between(*sides[::-1]))
