"""Truncation and interpolation in w: their formulas, the Python door, the commands and what a score says of them."""

import json

import numpy as np
import pytest
import torch
from conftest import ganrun
from test_phases import STYLES
from tiny_styles import tiny

from ganrun import load_generator
from ganrun.errors import UserError
from ganrun.metrics.protocol import difference, short
from ganrun.networks import mlp
from ganrun.noise import Normal
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.generator_file import save_generator
from ganrun.sampling.interpolation import walk


def sampling(classes=(), depth=3) -> SamplingGenerator:
    generator = tiny(depth=depth, classes=len(classes), mixing=0.9)
    generator.w_mean.normal_()
    return SamplingGenerator(generator, Normal(5), value_range=(-1, 1), classes=list(classes)).eval()


@torch.no_grad()
def by_hand(made: SamplingGenerator, num: int, psi: float, styles: int) -> torch.Tensor:
    """Image by image, map by map."""
    network = made.generator
    labels = torch.arange(num) % len(made.classes) if made.classes else None
    images = []
    for own in network.mapping(made.draw(range(num), seed=4), labels):
        near = network.w_mean + psi * (own - network.w_mean)
        every = [near] * styles + [own] * (network.num_styles - styles)
        images.append(sum(w @ a for w, a in zip(every, network.maps, strict=True)).view(network.shape))
    return torch.stack(images)


class TestFormula:
    @pytest.mark.parametrize("classes", [(), ("a", "b")], ids=str)
    @pytest.mark.parametrize(("cutoff", "styles"), [(None, 3), (1, 1), (2, 2)])
    def test_samples(self, classes, cutoff, styles):
        made = sampling(classes)
        found = made.sample(5, seed=4, truncation=0.6, truncation_cutoff=cutoff, batch_size=2)
        torch.testing.assert_close(found, by_hand(made, 5, 0.6, styles))
        torch.testing.assert_close(made.sample(5, seed=4, truncation=1.0), made.sample(5, seed=4))
        torch.testing.assert_close(made.sample(5, seed=4), by_hand(made, 5, 1.0, 3))

    def test_none_of_w_is_the_mean_image(self):
        made = sampling()
        assert (made.sample(4, truncation=0.0).std(0) < 1e-6).all()

    def test_the_noise_of_others_is_truncated_as_before(self):
        network = mlp.Generator(z_dim=5, channels=1, resolution=4, width=4)
        made = SamplingGenerator(network, Normal(5), value_range=(-1, 1), classes=[]).eval()
        z = torch.cat([Normal(5)(1, rng, 0.3)["z"] for rng in made_rngs(3)])
        torch.testing.assert_close(made.sample(3, truncation=0.3), network(z).detach())


def made_rngs(num):
    from ganrun.seeding import rng_for

    return [rng_for(0, "sample", i) for i in range(num)]


class TestWalk:
    def test_in_w_it_is_straight_between_the_styles_of_samples(self):
        made, settings = sampling(("a", "b")), {"walks": 3, "keys": 2, "frames": 4, "closed": False, "seed": 4}
        label = made.turn()[torch.arange(3) % 2].repeat_interleave(2)  # all frames of a walk have one label
        styles = made.styles(made.draw(range(6), 4), label, 0.6, 2).view(3, 2, 3, 4)
        for batch_size in (2, 100):
            frames = list(walk(made, **settings, turn=made.turn(), truncation=0.6, truncation_cutoff=2, space="w",
                               batch_size=batch_size))  # fmt: skip
            assert len(frames) == 5
            for i, frame in enumerate(frames):
                between = styles[:, 0] + i / 4 * (styles[:, 1] - styles[:, 0])
                torch.testing.assert_close(frame, made.synthesise(between))

    def test_in_z_each_frame_is_truncated_in_w(self):
        made = sampling()
        settings = {"walks": 2, "keys": 2, "frames": 2, "closed": True, "seed": 4, "turn": None, "batch_size": 3}
        frames = list(walk(made, **settings, truncation=0.6))
        torch.testing.assert_close(torch.stack([frames[0], frames[2]], 1).flatten(0, 1), by_hand(made, 4, 0.6, 3))
        z = made.draw(range(4), 4).view(2, 2, 5)
        middle = made.noise.between(z[:, 0], z[:, 1], 0.5)
        torch.testing.assert_close(frames[1], made.decode(middle, truncation=0.6))


def test_refusals():
    made = sampling()
    plain = SamplingGenerator(mlp.Generator(z_dim=5, channels=1, resolution=4, width=4), Normal(5),
                              value_range=(-1, 1), classes=[])  # fmt: skip
    with pytest.raises(UserError, match=r"truncation_cutoff=4; expected 1 to 3, the number of styles, or null for all"):
        made.sample(1, truncation=0.5, truncation_cutoff=4)
    with pytest.raises(UserError, match=r"truncation_cutoff=2: nothing is truncated; add truncation=<psi>"):
        made.sample(1, truncation_cutoff=2)
    with pytest.raises(UserError, match=r"truncation_cutoff=2: it needs a style-based generator.* mlp\.Generator"):
        plain.sample(1, truncation=0.5, truncation_cutoff=2)
    with pytest.raises(UserError, match=r"space=w: it needs a style-based generator.* mlp\.Generator; give space=z"):
        next(walk(plain, walks=1, keys=2, frames=2, closed=True, seed=0, turn=None, truncation=None, space="w",
                  batch_size=2))  # fmt: skip


def test_the_mean_of_w_travels_in_the_generators_file(tmp_path):
    made = sampling()
    config = {"_target_": "tiny_styles.Generator", "z_dim": 5, "width": 4, "depth": 3, "growth": 1, "slope": 0.2,
              "channels": 1, "resolution": 4, "value_range": [-1, 1], "mixing": 0.9}  # fmt: skip
    header = {"networks": {"generator": config}, "noise": {"_target_": "ganrun.noise.Normal", "z_dim": 5}}
    path = tmp_path / "generator.safetensors"
    save_generator(path, made.state_dict(), header | {"value_range": [-1, 1], "classes": []})
    loaded = load_generator(path, trust=["tiny_styles"])
    assert torch.equal(loaded.generator.w_mean, made.generator.w_mean)
    assert torch.equal(loaded.sample(4, truncation=0.7), made.sample(4, truncation=0.7))


def test_protocols_say_where_and_how_far():
    made = sampling()
    about = {"features": "pixels", "num_fake": 9}
    in_w, some = (about | made.truncated_by(0.7, cutoff) for cutoff in (None, 2))
    assert short(in_w) == "pixels: 9 fake, truncation 0.7 in w"
    assert short(some) == "pixels: 9 fake, truncation 0.7 in w of the first 2 styles"
    assert difference(in_w, some) == "truncation_cutoff not said and 2"
    assert difference(about | {"truncation": 0.7}, in_w) == "truncation_in not said and w"
    assert made.truncated_by(None, None) == {}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a run."""
    place = tmp_path_factory.mktemp("styles")
    words = [*STYLES, "steps=2", "batch_size=4", "sample_every=0", "evaluate.every=0", "num_samples=4"]
    ganrun(*words, "run_dir=run", "discriminator.width=4", cwd=place)
    return place


TRUST = ["from=run", "trust=[tiny_styles]"]


def test_sample(place):
    loaded = load_generator(place / "run" / "generator.safetensors", trust=["tiny_styles"])
    ganrun("sample", *TRUST, "num=6", "truncation=0.5", "truncation_cutoff=2", "out=x.npz", cwd=place)
    ganrun("sample", *TRUST, "interpolate=2", "space=w", "frames=3", "truncation=0.5", "out=walk.png", cwd=place)
    expected = loaded.sample(6, truncation=0.5, truncation_cutoff=2)
    pixels = ((expected.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(np.load(place / "x.npz")["arr_0"].astype(float) - pixels).max() <= 1
    assert (place / "walk.png").exists()
    told = ganrun("sample", *TRUST, "space=w", cwd=place, check=2).stderr
    assert "space=w: it acts with interpolate= only" in told
    told = ganrun("sample", *TRUST, "interpolate=2", "space=v", cwd=place, check=2).stderr
    assert "space=v; expected one of z, w" in told


def test_evaluate(place):
    words = ["evaluate", *TRUST, "metric=[sliced-wasserstein]", "num_samples=30", "floor=false"]
    done = ganrun(*words, "truncation=[null,.5]", "truncation_cutoff=2", "out=scores.json", cwd=place)
    assert "truncation in w of the first 2 styles" in done.stdout
    plain, truncated = json.loads((place / "scores.json").read_text())
    assert "truncation" not in plain["protocol"] and plain["values"] != truncated["values"]
    kept = {key: value for key, value in truncated["protocol"].items() if key.startswith("truncation")}
    assert kept == {"truncation": 0.5, "truncation_in": "w", "truncation_cutoff": 2}
    told = ganrun(*words, "truncation=.5", "truncation_cutoff=9", cwd=place, check=2).stderr
    assert "truncation_cutoff=9; expected 1 to 3" in told
