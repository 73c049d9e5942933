"""Power-function averages: their weights by hand, tracks through training, and averages of other lengths afterwards."""

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, ganrun
from safetensors import safe_open
from torch import nn

import ganrun as package
from ganrun.errors import UserError
from ganrun.files.checkpoint import load_checkpoint
from ganrun.files.run_dir import RunDir
from ganrun.power_ema import LONGEST, PowerEMA, decay_of, gamma_of, misfit, std_of, weights_for

STEPS, EVERY = 24, 4
RUN = [*TINY, "dataset.limit=100", "evaluate.every=0", "checkpoint.every=8", "checkpoint.keep=null", "log_every=8"]
RUN += ["sample_every=0", f"steps={STEPS}", "on_collapse=null", "ema=power", "ema.std=0.15", "optimizer.lr=0.002"]
RUN += ["model=mlp", "callbacks=[posthoc-ema]", f"callbacks.posthoc-ema.every={EVERY}"]


def discrete(gamma, steps, until):
    """The weight of each step in an average over `steps` of them, from its recursion alone."""
    weights = np.zeros(until)
    for step in range(1, steps + 1):
        decay = decay_of(gamma, step)
        weights *= decay
        weights[step - 1] += 1 - decay
    return weights


@pytest.mark.parametrize("std", [0.01, 0.05, 0.1, 0.25, LONGEST])
def test_gamma_and_std_are_those_of_the_paper(std):
    cubed = [1, 7, 16 - std**-2, 12 - std**-2]  # (gamma + 2)^2 (gamma + 3) - (gamma + 1) / std^2
    assert gamma_of(std) == pytest.approx(np.roots(cubed).real.max(), abs=1e-6)
    assert std_of(gamma_of(std)) == pytest.approx(std)


def test_published_pairs():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005) and gamma_of(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 6.94])
def test_the_recursion_has_the_profile(gamma):
    n = 50
    steps = np.arange(n + 1.0) / n
    np.testing.assert_allclose(discrete(gamma, n, n), np.diff(steps ** (gamma + 1)), atol=1e-12)


def test_power_ema_by_hand():
    layer = nn.Linear(1, 1)
    ema = PowerEMA((layer,), std=None, gamma=1.0)  # decay (1 - 1/n)^2: 0, 1/4, 4/9
    expected = 0.0
    for step, decay in enumerate([0, 1 / 4, 4 / 9]):
        nn.init.constant_(layer.weight, step + 1.0)
        ema.update(step, 16)
        expected = decay * expected + (1 - decay) * (step + 1)
        assert ema.average[0].weight.item() == pytest.approx(expected)
    assert expected == pytest.approx((1 * 1 + 3 * 2 + 5 * 3) / 9)  # gamma 1: step n weighs 2n - 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"std": 0.3}, r"std=0\.3; expected more than 0, up to 0\.288"),
        ({"std": 0.05, "gamma": 1.0}, r"ema\.std=0\.05 ema\.gamma=1\.0; expected one of them"),
        ({"std": None, "gamma": -0.5}, r"ema\.gamma=-0\.5; expected at least 0"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(UserError, match=message):
        PowerEMA((nn.Linear(1, 1),), **settings)


@pytest.mark.parametrize(("std", "off"), [(0.03, 0.05), (0.07, 0.005), (0.15, 0.01), (0.1, 1e-9)])
def test_weights_are_those_of_an_independent_least_squares(std, off):
    """Against the averages' own weights of each step, without any integral."""
    n = 1000
    snapshots = [(step, gamma_of(each)) for step in range(n // 16, n + 1, n // 16) for each in (0.05, 0.1)]
    last = snapshots[-1][0]
    columns = np.stack([discrete(gamma, step, last) for step, gamma in snapshots], 1)
    wanted = discrete(gamma_of(std), last, last)
    found = weights_for(snapshots, last, std)
    rest, *_ = np.linalg.lstsq(columns[:, :-1] - columns[:, -1:], wanted - columns[:, -1], rcond=None)
    direct = np.append(rest, 1 - rest.sum())  # the last weight follows from the others, since they sum to 1
    assert np.abs(found.numpy() - direct).max() < 3e-4
    error = np.linalg.norm(columns @ found.numpy() - wanted) / np.linalg.norm(wanted)
    assert error < off and misfit(snapshots, found, last, std) == pytest.approx(error, abs=1e-3)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("posthoc")
    ganrun(*RUN, "run_dir=run", cwd=path)
    return path


def parameters(module):
    return torch.cat([p.flatten() for p in module.parameters()])


def test_an_average_of_another_length_is_that_which_was_tracked(place):
    """Beside ema=power of the same std, which was averaged in training itself."""
    run = RunDir(place / "run")
    assert list(run.ema_snapshots()) == list(range(EVERY, STEPS + 1, EVERY))
    done = ganrun("ema", "of=run", "std=[0.15,0.1]", cwd=place)
    assert done.stdout.split() == ["run/ema-0.15.safetensors", "run/ema-0.1.safetensors"]
    made, direct = (package.load_generator(run.path / f"{name}.safetensors") for name in ("ema-0.15", "generator"))
    live = {k: v for k, v in load_checkpoint(run.last)["state_dict"].items() if k.startswith("recipe.generator.")}
    live = torch.cat([live[f"recipe.{key}"].flatten() for key, _ in direct.named_parameters()])
    scale = (live - parameters(direct)).norm()
    assert (parameters(made) - parameters(direct)).norm() < 0.03 * scale  # of the difference that averaging makes
    assert made.trained == direct.trained | {"ema": "power function, std 0.15"}
    track = load_checkpoint(run.last)["callbacks"]["PosthocEMA"]["tracks"][1]  # of std .1 itself, in full precision
    track = torch.cat([x.flatten() for x in track.values()])
    found = parameters(package.load_generator(run.path / "ema-0.1.safetensors"))
    assert (found - track).norm() < 1e-3 * track.norm() and not torch.equal(found, track)  # kept in 16 bits


def test_a_resume_is_exact_and_forgets_later_snapshots(place):
    run = RunDir(place / "run")
    before, tracks = {step: path.read_bytes() for step, path in run.ema_snapshots().items()}, "PosthocEMA"
    state = load_checkpoint(run.last)["callbacks"][tracks]["tracks"]
    assert state[0]["generator.hidden.0.weight"].dtype == torch.float32
    run.ema_snapshot(EVERY * 5 + 1).write_bytes(b"of an early end")
    ganrun(f"resume={run.step_checkpoint(8)}", f"steps={STEPS}", cwd=place)
    again = load_checkpoint(run.last)["callbacks"][tracks]["tracks"]
    assert all(torch.equal(a[key], b[key]) for a, b in zip(state, again, strict=True) for key in a)
    assert {step: path.read_bytes() for step, path in run.ema_snapshots().items()} == before


def test_scored_at_a_step_and_kept_by_clean(place):
    run = RunDir(place / "run")
    ganrun("ema", "of=run", "std=0.12", "at=16", "overwrite=true", cwd=place)
    file = run.path / "ema-0.12-000016.safetensors"
    assert yaml.safe_load(file.with_suffix(".yaml").read_text())["trained"]["steps"] == 16
    words = ["metric=[sliced-wasserstein]", "num_samples=40", "metric/features=none", "floor=false"]
    ganrun("evaluate", f"from={file}", *words, cwd=place)
    (score,) = run.read_result()["evaluations"]
    assert score["of"]["from"] == file.name and score["protocol"]["ema"] == "power function, std 0.12"
    snapshots = run.ema_snapshots()
    ganrun("clean", "of=run", "days=0", "yes=true", "cache_dir=none", cwd=place)
    assert run.ema_snapshots() == snapshots and file.exists()
    with safe_open(run.ema_snapshot(EVERY), "pt") as snapshot:
        assert snapshot.get_tensor("0.generator.hidden.0.weight").dtype == torch.float16


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["std=0.5"], "std=0.5; expected more than 0, up to 0.288"),
        (["std=0.1", "at=7"], "at=7: no snapshot is of this step; valid: "),
        (["std=[0.1,0.2]", "out=x.safetensors"], "expected one length for one file"),
        (["std=0.1", "out=x.npz"], "out=x.npz; expected the name of a .safetensors file"),
        (["std=0.1", "of=run/checkpoints/last.ckpt"], "expected a run that was trained with callbacks=[posthoc-ema]"),
    ],
)
def test_mistakes_are_one_line(words, told, place):
    refused = ganrun("ema", "of=run", *words, cwd=place, check=2)
    assert told in refused.stderr and refused.stderr.count("\n") == 1
