"""A user's own kind of GAN: a class and a YAML in a folder of theirs go through every command."""

import json

import pytest
import torch
from conftest import TINY, ganrun, last_line

import ganrun as package
from ganrun.files.checkpoint import load_checkpoint

CODE = '''
import torch
from torch import nn

from ganrun.game import Losses, PerRank, Player, Recipe


class TwoCritics(Recipe):
    """One generator, two discriminators, a term with a network that nobody trains, and a presentation."""

    panels = {"picture": "", "blurred": "blurred"}
    compared = {"picture": "real"}

    def __init__(self, generator, first, second, terms=None):
        super().__init__()
        self.generator, self.first, self.second = generator, first, second
        self.terms = nn.ModuleDict(terms or {})

    def players(self):
        return {
            "critic": Player((self.first.discriminator,), lambda b, g: self.seen_by(self.first, b, g)),
            "other": Player((self.second.discriminator,), lambda b, g: self.seen_by(self.second, b, g)),
            "generator": Player((self.generator,), self.fooled, generates=True),
        }

    def generate(self, batch):
        return {"picture": self.generator(batch["z"], batch.get("label"))}

    def show(self, batch):
        shown = batch | self.generate(batch)
        return shown | {"blurred": nn.functional.avg_pool2d(shown["picture"], 3, 1, 1)}

    def seen_by(self, adversary, batch, generated):
        judge = adversary.judge(batch.get("label"))
        return adversary.discriminator_losses(judge, batch["real"], generated["picture"])

    def fooled(self, batch, generated):
        terms = {}
        for name, adversary in (("first", self.first), ("second", self.second)):
            judge = adversary.judge(batch.get("label"))
            losses = adversary.generator_losses(judge, batch["real"], generated["picture"])
            terms["fooled_" + name] = losses.terms["adversarial"]
        return self.with_terms(Losses(terms), "generator", None, batch, generated)


class Content(nn.Module):
    """Distance in the features of a network that stays as it is."""

    players = ("generator",)

    def __init__(self, channels):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.network = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Dropout())

    def forward(self, recipe, judge, batch, generated):
        assert not self.network.training and not any(p.requires_grad for p in self.network.parameters())
        real, fake = self.network(batch["real"]), self.network(generated["picture"])
        return (real.mean(0) - fake.mean(0)).abs().mean()


class OneEarlier(PerRank):
    """Shows one fake of the last move in place of the first."""

    def __init__(self, channels, resolution):
        super().__init__()
        self.register_buffer("kept", torch.zeros(1, channels, resolution, resolution))

    def forward(self, real, fake):
        shown = torch.cat([self.kept, fake[1:]])
        self.kept.copy_(fake[:1])
        return real, shown
'''
ADVERSARY = """
    _target_: ganrun.adversary.Adversary
    discriminator: ${discriminator}
    loss: ${loss}
    presentations: ${presentation}
"""
FILES = {
    "own_recipes.py": CODE,
    "recipe/two-critics.yaml": f"""# @package _global_
# One generator against two discriminators
recipe:
  _target_: own_recipes.TwoCritics
  generator: ${{generator}}
  first: {ADVERSARY}
  second: {ADVERSARY}
  terms: ${{term}}
""",
    "schedule/three-players.yaml": "# Both critics move, then the generator\ncritic: 1\nother: 1\ngenerator: 1\n",
    "term/content.yaml": "# A content loss\ncontent:\n  _target_: own_recipes.Content\n"
    "  channels: ${dataset.channels}\n",
    "presentation/one-earlier.yaml": "# One earlier fake\none-earlier:\n  _target_: own_recipes.OneEarlier\n"
    "  channels: ${dataset.channels}\n  resolution: ${dataset.resolution}\n",
}
OWN = ["--config-dir", "my", "recipe=two-critics", "schedule=three-players", "term=[content]"]
OWN += ["presentation=[one-earlier]", *TINY, "dataset.limit=60", "checkpoint.every=4", "sample_every=4"]
OWN += ["evaluate.every=4", "collapse.every=2", "log_every=2", "conditional=label"]
TRUST = "trust=[own_recipes]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (path / "my" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "my" / name).write_text(text)
    ganrun(*OWN, "steps=8", "run_dir=run", cwd=path)
    return path


def test_trains_and_watches(folder):
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = {key for line in lines for key in line}
    assert {"critic/adversarial", "other/adversarial", "generator/fooled_first", "generator/content"} <= logged
    assert {"collapse/critic_loss_share", "collapse/other_loss_share"} <= logged
    saved = load_checkpoint(folder / "run" / "checkpoints" / "last.ckpt")
    assert not any("terms.content" in key for key in saved["state_dict"])  # nobody trains it
    assert len(saved["optimizer_states"]) == 3
    kept = saved["state_dict"]["recipe.first.presentations.one-earlier.kept"]
    assert kept.abs().sum() > 0


def test_resumes_to_the_bit(folder):
    ganrun(*OWN, "steps=4", "run_dir=half", cwd=folder)
    ganrun("--config-dir", "my", "resume=half", "steps=8", TRUST, cwd=folder)
    one, other = (load_checkpoint(folder / run / "checkpoints" / "last.ckpt") for run in ("run", "half"))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())


def test_sweeps_samples_and_scores(folder):
    swept = ganrun(*OWN, "-m", "steps=2", "seed=1,2", "run_dir=sweep", cwd=folder)
    assert last_line(swept) == "sweep" and (folder / "sweep" / "results.csv").read_text().count("finished") == 2
    ganrun("sample", "from=run", "num=20", "out=s.png", cwd=folder)
    ganrun("sample", "from=run/checkpoints/last.ckpt", "num=20", "out=c.png", TRUST, "--config-dir", "my", cwd=folder)
    assert (folder / "s.png").read_bytes() == (folder / "c.png").read_bytes()
    ganrun(
        "evaluate", "from=run", "metric=[sliced-wasserstein]", "num_samples=50", TRUST, "--config-dir", "my", cwd=folder
    )
    assert json.loads((folder / "run" / "result.json").read_text())["evaluations"]
    assert package.load_generator(folder / "run" / "generator.safetensors").sample(2).shape == (2, 1, 16, 16)


def test_what_it_lacks_is_said(folder):
    refused = ganrun(*OWN, "steps=2", "schedule=alternate", cwd=folder, check=2)
    assert "every player moves and no other; valid: critic, generator, other" in refused.stderr
    refused = ganrun(*OWN, "steps=2", "pairs=invert", cwd=folder, check=2)
    assert "TwoCritics makes samples from noise" in refused.stderr
    refused = ganrun("model=pix2pix", "discriminator.layers=1", "steps=2", cwd=folder, check=2)
    assert "Pix2Pix takes source, which dataset digits has not" in refused.stderr and "pairs=" in refused.stderr
