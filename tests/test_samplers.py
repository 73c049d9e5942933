"""Samplers that ask the discriminator, where the density of what they make is known; and as commands."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, ganrun
from torch import nn

from ganrun.errors import UserError
from ganrun.files.run_dir import RunDir
from ganrun.game import Verdict
from ganrun.noise import Codes, Normal, Uniform
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.samplers import DDLS, DRS, acceptance, judged

MEAN, STD = 0.5, 0.7  # of the data; the generator makes N(0, 1)


def ratio(z, labels=None):
    """The optimal discriminator: the logarithm of the data's density over the generator's, up to a constant."""
    mean = MEAN if labels is None else torch.where(labels == 0, MEAN, -MEAN)[:, None]
    return (z.square() / 2 - ((z - mean) / STD).square() / 2).sum(1) + 3.0


def moments(x):
    return x.mean().item(), x.std().item()


def test_exact_rejection_makes_the_data():
    drs = DRS(ratio, Normal(1), gamma=0.0, burn_in=4000)
    x = drs.draw(range(4000), 0)
    assert moments(x) == pytest.approx((MEAN, STD), abs=0.04)
    inside = (((x - MEAN) / STD).abs() < 1).float().mean().item()
    assert inside == pytest.approx(0.683, abs=0.03)


@pytest.mark.parametrize("percentile", [20, 80])
def test_gamma_by_percentile_makes_the_density_that_its_formula_says(percentile):
    drs = DRS(ratio, Normal(1), percentile=percentile, burn_in=2000)
    x = drs.draw(range(3000), 0)
    z = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    weights = torch.exp(-z[:, 0].square() / 2) * torch.sigmoid(acceptance(ratio(z), *drs.bounds))
    mean = (weights @ z / weights.sum()).item()
    std = (weights @ (z - mean).square() / weights.sum()).sqrt().item()
    assert moments(x) == pytest.approx((mean, std), abs=0.04)


def test_acceptance_by_hand():
    logits = torch.tensor([0.0, -math.log(2), -math.log(10)], dtype=torch.float64)
    assert torch.sigmoid(acceptance(logits, 0.0, 0.0)).tolist() == pytest.approx([1.0, 0.5, 0.1], abs=1e-5)
    one = -0.7 - math.log(1 - math.exp(-0.7 - 1e-6)) - 0.4  # the formula of the paper
    assert acceptance(torch.tensor([1.3], dtype=torch.float64), 2.0, 0.4).item() == pytest.approx(one)
    assert torch.isfinite(acceptance(torch.tensor([5.0]), 2.0, 0.0)).all()  # above the largest of the burn-in


@pytest.mark.parametrize("steps", [3, 60])
def test_ddls_has_the_distribution_of_its_recursion(steps):
    """On a Gaussian each step is linear: the mean and variance after any number of them are known, and their limit."""
    size = 0.1
    x = DDLS(ratio, Normal(1), steps=steps, step_size=size).draw(range(3000), 0)
    a = 1 - size / 2 / STD**2
    limit = STD**2 / (1 - size / 4 / STD**2)  # of the variance; STD^2 for small steps
    mean, var = MEAN * (1 - a**steps), a ** (2 * steps) + (1 - a ** (2 * steps)) * limit
    assert moments(x) == pytest.approx((mean, math.sqrt(var)), abs=0.04)
    assert steps < 60 or moments(x) == pytest.approx((MEAN, STD), abs=0.06)


@pytest.mark.parametrize("make", [lambda: DRS(ratio, Normal(1), burn_in=500), lambda: DDLS(ratio, Normal(1), steps=5)])
def test_a_sample_depends_on_its_seed_and_number_alone(make):
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    whole = make().draw(range(6), 3, labels)
    torch.testing.assert_close(make().draw([4, 1], 3, labels[[4, 1]]), whole[[4, 1]])
    assert not torch.equal(make().draw(range(6), 4, labels), whole)


def test_labels_reach_the_discriminator():
    labels = torch.arange(1000) % 2
    drs = DRS(ratio, Normal(1), gamma=0.0, burn_in=1000, labels=lambda num: torch.arange(num) % 2)
    for x in (drs.draw(range(1000), 0, labels), DDLS(ratio, Normal(1), step_size=0.1).draw(range(1000), 0, labels)):
        assert x[::2].mean().item() == pytest.approx(MEAN, abs=0.1) == -x[1::2].mean().item()


class Shift(nn.Linear):
    """A generator of points, x = z."""

    def __init__(self):
        super().__init__(1, 1, bias=False)
        nn.init.ones_(self.weight)

    def forward(self, z, label=None):
        return super().forward(z)


class Optimal(nn.Module):
    def forward(self, x, condition=None):
        return Verdict(ratio(x), x)


def test_a_generator_takes_a_sampler():
    sampling = SamplingGenerator(Shift(), Normal(1), value_range=None, classes=[])
    plain = sampling.sample(500)
    sampling.sampler = DDLS(judged(sampling.generator, Optimal()), sampling.noise, step_size=0.1)
    assert abs(sampling.sample(500).mean() - MEAN) < 0.1 < abs(plain.mean() - MEAN)
    torch.testing.assert_close(sampling.sample(500, batch_size=33), sampling.sample(500))
    with pytest.raises(UserError, match=r"truncation=1\.0: sampler=ddls chooses the noise"):
        sampling.sample(2, truncation=1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DRS(ratio, Normal(1), percentile=101), "percentile=101; expected 0 to 100"),
        (
            lambda: DRS(ratio, Normal(1), gamma=20.0, burn_in=100).draw([0], 0),
            "would stay; expected a gamma",
        ),
        (lambda: DDLS(ratio, Normal(1), step_size=0.0), r"step_size=0\.0; expected more than 0"),
        (lambda: DDLS(ratio, Uniform(1)), "Uniform noise has no smooth density"),
        (lambda: DDLS(ratio, Codes(9, [3], 1)), "Codes noise has no smooth density"),
        (
            lambda: judged(Shift(), lambda x, y: SimpleNamespace(logits=torch.zeros(2, 3, 3)))(torch.zeros(2, 1), None),
            "this discriminator has 9 logits an image; expected one",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Ring by an MLP; a checkpoint at 10 and 20 steps, and the discriminator of step 20 as a file."""
    path = tmp_path_factory.mktemp("samplers")
    words = ["dataset=ring", "model=mlp", "steps=20", "checkpoint.every=10", "evaluate.every=0", "sample_every=0"]
    ganrun(*TINY, *words, "export.discriminator=true", "on_collapse=null", "run_dir=run", cwd=path)
    return path


def points(place, *words):
    ganrun("sample", *words, "num=40", "out=x.npz", "overwrite=true", cwd=place)
    return np.load(place / "x.npz")["arr_0"]


def test_commands_sample_and_stamp_the_protocol(place):
    plain = points(place, "from=run")
    drs = points(place, "from=run", "sampler=drs", "burn_in=200")
    (place / "run" / "discriminator.safetensors").rename(place / "hidden")  # then last.ckpt's is taken
    np.testing.assert_array_equal(points(place, "from=run", "sampler=drs", "burn_in=200"), drs)
    (place / "hidden").rename(place / "run" / "discriminator.safetensors")
    ddls = points(place, "from=run/checkpoints/step-000010.ckpt", "sampler=ddls", "langevin_steps=3")
    assert drs.shape == ddls.shape == plain.shape and not np.array_equal(plain, drs)
    words = ["num_samples=40", "metric=[sliced-wasserstein]", "metric/features=none", "floor=false"]
    done = ganrun("evaluate", "from=run", "sampler=drs", "percentile=50", "burn_in=200", *words, cwd=place)
    assert "40 fake, sampler drs, percentile 50 of 200" in done.stdout
    (score,) = RunDir(place / "run").read_result()["evaluations"]
    assert score["protocol"]["sampler"] == "drs, percentile 50 of 200"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sampler=mh"], "sampler=mh; valid: ddls, drs"),
        (["sampler=drs", "step_size=0.1"], "step_size=0.1: it acts with sampler=ddls only"),
        (["burn_in=10"], "burn_in=10: it acts with sampler=drs only"),
        (["sampler=drs", "truncation=0.5"], "truncation=0.5: sampler=drs chooses the noise"),
        (["sampler=drs", "gamma=0", "percentile=5"], "give one of them"),
        (["sampler=drs", "interpolate=3"], "leave one out"),
        (
            ["sampler=drs", "from=alone/generator.safetensors"],
            "the discriminator of the same step, 20: there is no",
        ),
    ],
)
def test_mistakes_are_one_line(words, told, place):
    (place / "alone").mkdir(exist_ok=True)
    for name in ("generator.safetensors", "generator.yaml"):
        (place / "alone" / name).write_bytes((place / "run" / name).read_bytes())
    refused = ganrun("sample", "from=run", *words, "out=y.npz", cwd=place, check=2)
    assert told in refused.stderr and refused.stderr.count("\n") == 1
