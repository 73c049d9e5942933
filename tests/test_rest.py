"""Standing statistics, truncation sweeps, orthogonal regularisation, and generator moves of another size."""

import json
import shutil

import pytest
import torch
import yaml
from conftest import TINY, ganrun
from hydra.utils import instantiate
from safetensors.torch import load_file
from test_configs import composed, run_steps
from test_module import fitted
from test_processes import ARGS, both_to_the_end, distance
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ganrun import load_generator
from ganrun.adversary import Adversary
from ganrun.data.datamodule import GANDataModule, Rounds
from ganrun.errors import UserError
from ganrun.losses import Hinge
from ganrun.metrics.protocol import difference
from ganrun.networks import mlp, resnet
from ganrun.networks.spectral import spectral_normalise
from ganrun.noise import Normal
from ganrun.recipes.gan import GAN
from ganrun.sampling.generator import SamplingGenerator
from ganrun.seeding import rng_for
from ganrun.standing import measure
from ganrun.terms import Orthogonal, filters_of, overlap
from ganrun.training.trainer import smaller_micro_batch

SHORT = [*TINY, "steps=4", "sample_every=2", "evaluate.every=2", "on_collapse=null", "metric=[sliced-wasserstein]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The runs plain, standing, whose average has statistics of its own, and conditional, with both."""
    path = tmp_path_factory.mktemp("rest")
    ganrun(*SHORT, "run_dir=plain", cwd=path)
    ganrun(*SHORT, "run_dir=standing", "ema.standing=3", cwd=path)
    ganrun(*SHORT, "run_dir=conditional", "conditional=label", "ema.standing=3", cwd=path)
    return path


def entries(run):
    """The evaluations that a run's result.json holds."""
    return json.loads((run / "result.json").read_text())["evaluations"]


class TestStanding:
    def test_by_hand(self):
        network = nn.Sequential(nn.BatchNorm1d(1, affine=False), nn.Dropout(0.9), nn.BatchNorm1d(1))
        network[0].running_mean.fill_(7.0)
        passes = [torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [7.0]])]
        measure([network], network, passes)
        assert network[0].running_mean.item() == pytest.approx((1 + 4) / 2)
        assert network[0].running_var.item() == pytest.approx((2 + 18) / 2)  # unbiased, as torch keeps it
        assert network[2].running_mean.item() == pytest.approx(0, abs=1e-6)  # each pass is normalised by its own batch
        assert network[2].running_var.item() == pytest.approx(2, rel=1e-4)
        assert all(module.training for module in network.modules()) and not network[0]._forward_pre_hooks

    def test_as_torch_would_accumulate_them(self):
        torch.manual_seed(0)
        ours, torchs = (
            nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, momentum=m), nn.ReLU()) for m in (0.1, None)
        )
        torchs.load_state_dict(ours.state_dict())
        passes = torch.randn(5, 4, 2, 6, 6).unbind()
        measure([ours], ours.eval(), passes)
        torchs[1].reset_running_stats()
        for x in passes:
            torchs.train()(x)
        torch.testing.assert_close(dict(ours.state_dict()), dict(torchs.state_dict()))
        assert not ours.training

    def test_a_generator_is_measured_under_the_truncation_of_its_samples(self, place):
        found = {}
        for truncation in (None, 0.1):
            generator = load_generator(place / "plain" / "generator.safetensors")
            generator.stand(4, truncation=truncation)
            found[truncation] = generator.generator.stem[2].running_var.mean().item()
        assert found[0.1] < found[None] / 10
        assert generator.trained["standing"] == "4 x 64"

    def test_of_a_conditional_generator_and_of_one_without_batch_norm(self, place):
        generator = load_generator(place / "conditional" / "generator.safetensors")
        before = {key: value.clone() for key, value in generator.state_dict().items()}
        generator.stand(2)
        changed = {
            key.rpartition(".")[2] for key, value in generator.state_dict().items() if not value.equal(before[key])
        }
        assert changed == {"running_mean", "running_var", "num_batches_tracked"}
        assert generator.trained["standing"] == "2 x 64, labels drawn evenly"
        network = mlp.Generator(z_dim=2, channels=2, resolution=None, value_range=None, width=4, depth=1)
        with pytest.raises(UserError, match="standing=16: this generator has no batch norm; leave standing= out"):
            SamplingGenerator(network, Normal(z_dim=2), value_range=None, classes=[]).stand()

    def test_sample_and_evaluate(self, place):
        words = ["sample", "from=plain", "num=4", "out=a.npz", "overwrite=true"]
        ganrun(*words, "standing=2", cwd=place)
        once = (place / "a.npz").read_bytes()
        ganrun(*words, "standing=2", "batch_size=3", cwd=place)
        again = (place / "a.npz").read_bytes()
        ganrun(*words, cwd=place)
        assert once == again != (place / "a.npz").read_bytes()
        score = ["evaluate", "metric=[sliced-wasserstein]", "num_samples=40", "floor=false"]
        ganrun(*score, "from=plain", cwd=place)
        done = ganrun(*score, "from=plain", "standing=2", cwd=place)
        assert "40 fake, standing 2 x 64, 1,797 real" in " ".join(done.stdout.split())
        assert [one["protocol"].get("standing") for one in entries(place / "plain")] == [None, "2 x 64"]
        assert len({one["mean"] for one in entries(place / "plain")}) == 2
        ganrun(*score, "from=conditional", cwd=place)
        ganrun(*score, "from=conditional", "standing=2", cwd=place)
        said = [one["protocol"]["standing"] for one in entries(place / "conditional")]
        assert said == ["3 x 64, labels as in the data", "2 x 64, labels drawn evenly"]

    def test_of_an_average_reach_pictures_scores_checkpoints_and_the_exported_file(self, place):
        plain, standing = (load_file(place / run / "generator.safetensors") for run in ("plain", "standing"))
        moved = {key for key in plain if not plain[key].equal(standing[key])}
        assert {key.rpartition(".")[2] for key in moved} == {"running_mean", "running_var", "num_batches_tracked"}
        assert standing["generator.stem.2.num_batches_tracked"] == 3
        pictures = [(place / run / "samples" / "final.png").read_bytes() for run in ("plain", "standing")]
        assert pictures[0] != pictures[1]
        header = yaml.safe_load((place / "standing" / "generator.yaml").read_text())
        assert header["trained"]["standing"] == "3 x 64"
        scores = json.loads((place / "standing" / "result.json").read_text())["scores"]["sliced-wasserstein"]
        assert scores["protocol"]["standing"] == "3 x 64"
        ganrun("sample", "from=standing", "num=4", "out=file.npz", cwd=place)
        ganrun("sample", "from=standing/checkpoints/last.ckpt", "num=4", "out=checkpoint.npz", cwd=place)
        assert (place / "file.npz").read_bytes() == (place / "checkpoint.npz").read_bytes()

    def test_a_resumed_run_ends_with_the_same_statistics(self, place):
        ganrun(*SHORT, "run_dir=half", "conditional=label", "ema.standing=3", "steps=3", cwd=place)
        ganrun("resume=half", "steps=4", cwd=place)
        whole, half = (load_file(place / run / "generator.safetensors") for run in ("conditional", "half"))
        assert all(whole[key].equal(half[key]) for key in whole)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["generator.norm=none", "ema.standing=3"], "standing=3: the generator has no batch norm"),
            (["ema.standing=-1"], "standing=-1; expected at least 0 batches (0 = off)"),
            (["sample", "from=plain", "standing=0"], "standing=0; expected at least 1"),
            (["evaluate", "from=test", "dataset=mnist", "standing=2"], "standing=2: it is for generators"),
        ],
    )
    def test_refusals(self, place, words, said):
        done = ganrun(*words, cwd=place, check=2)
        assert said in done.stderr and len(done.stderr.splitlines()) == 1

    def test_of_two_processes_whose_first_one_draws_pictures_alone(self, tmp_path):
        words = [*SHORT, "dataset.limit=100", "conditional=label", "ema.standing=2", "sample_every=1", "steps=2"]
        both_to_the_end(*words, "run_dir=run", cwd=tmp_path)
        tensors = load_file(tmp_path / "run" / "generator.safetensors")
        assert {value.item() for key, value in tensors.items() if key.endswith("num_batches_tracked")} == {2}

    def test_of_a_translator(self, tmp_path):
        words = ["model=pix2pix", "pairs=invert", "dataset.resolution=32", "generator.width=4", "discriminator.width=4"]
        few = ["batch_size=4", "steps=1", "metric=[]", "dataset.limit=20", "num_samples=2", "generator.norm=batch"]
        ganrun(*words, *few, "ema=average", "ema.standing=2", "run_dir=run", cwd=tmp_path)
        tensors = load_file(tmp_path / "run" / "generator.safetensors")
        tracked = {value.item() for key, value in tensors.items() if key.endswith("num_batches_tracked")}
        assert tracked == {2}


class TestTruncation:
    def test_a_sweep_is_one_table_and_an_entry_for_each(self, place):
        words = ["evaluate", "from=plain", "metric=[precision,recall]", "num_samples=60", "metric/features=none"]
        shutil.copytree(place / "plain", place / "swept")
        before = len(entries(place / "swept"))
        ganrun(*words, "truncation=0.5", "out=one.json", cwd=place)
        words[1] = "from=swept"
        done = ganrun(*words, "truncation=[null,1,.5]", "out=swept.json", cwd=place)
        rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if line.startswith("│")]
        assert [row[0].strip() for row in rows] == ["none", "1", "0.5"]
        found = entries(place / "swept")[before:]
        kinds = [(one["metric"], one["protocol"].get("truncation")) for one in found]
        assert kinds == [(name, value) for value in (None, 1, 0.5) for name in ("precision", "recall")]
        assert [float(cell) for row in rows for cell in row[1:]] == pytest.approx(
            [one["mean"] for one in found], abs=1e-4
        )
        assert json.loads((place / "swept.json").read_text()) == found
        one = json.loads((place / "one.json").read_text())
        assert [each["values"] for each in one] == [each["values"] for each in found[-2:]]
        assert difference(found[0]["protocol"], found[-2]["protocol"]) == "truncation not said and 0.5"
        ganrun(*words, "truncation=[1,.5]", cwd=place)  # takes the place of what is alike
        assert len(entries(place / "swept")) == before + len(found)

    def test_a_sweep_measures_statistics_for_each_truncation(self, place):
        words = ["evaluate", "from=conditional", "metric=[sliced-wasserstein]", "num_samples=40", "floor=false"]
        ganrun(*words, "standing=2", "truncation=[2,.2]", "out=both.json", cwd=place)
        ganrun(*words, "standing=2", "truncation=.2", "out=alone.json", cwd=place)
        both, alone = (json.loads((place / f"{name}.json").read_text()) for name in ("both", "alone"))
        assert both[1]["values"] == alone[0]["values"] and both[0]["values"] != both[1]["values"]
        assert [one["protocol"]["truncation"] for one in both] == [2, 0.2]

    def test_a_run_is_ranked_by_its_score_without_truncation(self, place):
        shutil.copytree(place / "plain", place / "ranked")
        words = ["evaluate", "from=ranked", "metric=[sliced-wasserstein]", "num_samples=30", "floor=false"]
        ganrun(*words, "truncation=[null,.3]", "out=ranked.json", cwd=place)
        done = ganrun("rank", "of=ranked", "by=sliced-wasserstein", cwd=place)
        assert f"{json.loads((place / 'ranked.json').read_text())[0]['mean']:.5g}"[:6] in done.stdout

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["truncation=[1,1]"], "truncation=[1, 1]; expected values that differ"),
            (["truncation=[]"], "truncation=[]; expected values that differ"),
            (["truncation=[1,0]"], "truncation=0; expected more than 0"),
            (["truncation=[1,much]"], "expected a number or a list of"),
        ],
    )
    def test_refusals(self, place, words, said):
        done = ganrun("evaluate", "from=plain", "metric=[sliced-wasserstein]", *words, cwd=place, check=2)
        assert said in done.stderr and len(done.stderr.splitlines()) == 1


class TestOrthogonal:
    W = ((1.0, 2.0), (0.0, 1.0), (1.0, 0.0))  # three filters: products 2, 1 and 0

    @pytest.mark.parametrize("wide", [False, True], ids=["more filters than inputs", "fewer"])
    def test_by_hand_and_with_half_the_gradient_of_the_authors_code(self, wide):
        w = torch.tensor(self.W, dtype=torch.float64)
        w = (torch.cat([w, torch.zeros(3, 2)], 1) if wide else w).requires_grad_()
        assert overlap(w).item() == pytest.approx(2 * (2**2 + 1**2 + 0**2))
        beta = 1e-4
        (gradient,) = torch.autograd.grad(beta * overlap(w), w)
        with torch.no_grad():
            authors = beta * 2 * (w @ w.T * (1 - torch.eye(3))) @ w  # what BigGAN-PyTorch adds for its own beta
        torch.testing.assert_close(gradient, 2 * authors)
        assert gradient[0].tolist()[:2] == pytest.approx([4 * beta * 1, 4 * beta * 2])  # 4 beta (2 w_2 + 1 w_3)

    def test_filters_are_outputs_also_of_transposed_convolutions(self):
        network = nn.Sequential(nn.Conv2d(2, 3, 5), nn.ConvTranspose2d(2, 3, 5), nn.BatchNorm2d(3), nn.Linear(4, 6))
        network.append(nn.Embedding(7, 8))
        assert [tuple(w.shape) for w in filters_of(network)] == [(3, 50), (3, 50), (6, 4)]

    @pytest.mark.parametrize(
        ("settings", "left_out"),
        [
            ({"num_classes": 3}, 2 * 4),  # scale and shift of four conditional norms, two blocks of two
            ({"num_classes": 3, "embedding": 5}, 1),
            ({"num_classes": 3, "embedding": 5, "latents": "chunks"}, 1),
            ({"num_classes": 3, "condition": "concatenate"}, 0),
            ({}, 0),
        ],
    )
    def test_embeddings_are_left_out(self, settings, left_out):
        network = resnet.Generator(z_dim=6, channels=1, resolution=16, width=2, **settings)
        layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        assert len(filters_of(network)) == len(layers) - left_out

    def test_of_weights_under_spectral_norm_the_undivided_ones_count(self):
        network = nn.Sequential(nn.Linear(2, 3, bias=False))
        with torch.no_grad():
            network[0].weight.copy_(torch.tensor(self.W))
        spectral_normalise(network)
        original, before = network[0].parametrizations.weight.original, network[0].parametrizations.weight[0]._u.clone()
        recipe = GAN(network, Adversary(nn.Identity(), Hinge()))
        loss = Orthogonal(weight=0.5)(recipe, None, {}, {})
        loss.backward()
        assert loss.item() == pytest.approx(0.5 * 10) and original.grad[1].tolist() == pytest.approx([4.0, 8.0])
        assert torch.equal(network[0].parametrizations.weight[0]._u, before)

    @pytest.mark.parametrize("words", ["model=dcgan", "model=sagan dataset.resolution=32 conditional=projection"])
    def test_in_training(self, words):
        module = run_steps("term=[orthogonal]", "precision=bf16-mixed", *words.split())
        filters = filters_of(module.recipe.generator)
        assert (
            module.terms["generator/orthogonal"].item() > 0
            and module.terms["generator/orthogonal"].dtype == torch.float32
        )
        assert all(w.grad_fn is not None or w.requires_grad for w in filters)


class TestGeneratorBatch:
    WORDS = ("schedule.generator_batch=8", "steps=2")

    def test_passes_have_their_numbers_of_rows(self):
        seen = []

        def probe(module):
            for name, network in (("G", module.recipe.generator), ("D", module.recipe.adversary.discriminator)):
                network.register_forward_hook(lambda net, x, _, name=name: seen.append((name, len(x[0]))))

        module = fitted(*self.WORDS, "schedule.discriminator=2", "steps=1", probe=probe)
        assert seen[-8:] == [("G", 4), ("D", 4), ("D", 4)] * 2 + [("G", 8), ("D", 8)]
        assert [move.graph for move in module.moves] == [False, False, True]

    def test_the_generators_gradient_is_the_mean_over_its_own_fakes(self):
        """The first step by hand: the discriminator's 4 rows are among the generator's 8, all drawn as by a round."""
        rounds, gradients = [], []

        def probe(module):
            move, fresh = module._move, module._fresh
            module._fresh = lambda *args: rounds.append(fresh(*args)) or rounds[-1]

            def watched(index, batch, step):
                if module.moves[index].player == "generator":
                    fake = module.recipe.generator(batch["z"], batch["label"])
                    logits = module.recipe.adversary.discriminator(fake, batch["label"]).logits
                    gradients.append(torch.autograd.grad(-logits.mean(), module.recipe.generator.to_image[0].weight))
                move(index, batch, step)
                if module.moves[index].player == "generator":
                    gradients.append((module.recipe.generator.to_image[0].weight.grad.clone(),))

            module._move = watched

        words = [
            "loss=hinge",
            "conditional=label",
            "precision=32-true",
            "generator.norm=none",
            "discriminator.norm=none",
        ]
        module = fitted(*self.WORDS, *words, "steps=1", probe=probe)
        torch.testing.assert_close(*gradients)
        (batch,) = rounds[0]
        assert {key: len(value) for key, value in batch.items()} == {"real": 8, "label": 8, "z": 8}
        data = GANDataModule(module.trainer.datamodule.data, batch_size=8, num_batches=1, seed=0)
        rows = Rounds(data.data, batch_size=8, num_batches=1, seed=0)[0]  # positions 0 to 7 of the stream of data
        assert torch.equal(batch["label"], rows["label"])
        assert torch.equal(batch["z"][:4], module.noise(4, rng_for(0, "noise", 0, 0))["z"])
        assert torch.equal(batch["z"][4:], module.noise(4, rng_for(0, "further noise", 0, 0))["z"])

    def test_the_discriminator_sees_what_it_would_see_without(self):
        seen = []

        def probe(module):
            fresh = module._fresh
            module._fresh = lambda *args: seen.append(fresh(*args)[0]) or [seen[-1]]

        for words in ([], self.WORDS):
            fitted("conditional=label", *words, "steps=1", probe=probe)
        plain, larger = seen
        assert all(torch.equal(value, larger[key][: len(value)]) for key, value in plain.items())

    @pytest.mark.parametrize("words", [["loss=hinge"], ["loss=relativistic-pairing", "term=[feature-matching]"]])
    def test_micro_batches_add_up_to_the_batch(self, words):
        plain = ["generator.norm=none", "discriminator.norm=none", "precision=32-true", "steps=3"]
        plain += ["term.feature-matching.every=9"] if len(words) > 1 else []
        given = [*self.WORDS, *words, *plain, "schedule=generator-first", "conditional=projection"]
        whole, parts = (fitted(*given, f"micro_batch={rows}") for rows in ("null", 2))
        assert whole.moves == parts.moves
        exact = len(words) == 1  # the means of features are those of a pass
        for name, value in whole.state_dict().items():
            assert not exact or torch.allclose(value, parts.state_dict()[name], rtol=0, atol=2e-6), name

    def test_as_many_as_the_batch_is_the_default(self):
        default, named = (fitted("steps=2", f"schedule.generator_batch={n}") for n in ("null", 4))
        assert named.moves == default.moves and not named.further
        assert all(value.equal(named.state_dict()[name]) for name, value in default.state_dict().items())

    @pytest.mark.parametrize("words", [["model=pix2pix"], ["model=cyclegan", "schedule.reuse_stale=false"]])
    def test_recipes_that_take_images(self, words):
        module = run_steps(*words, "pairs=invert", "dataset.resolution=32", "schedule.generator_batch=6")
        assert module.further == [2]

    def test_a_resume_is_exact(self, place):
        words = [*SHORT, "schedule.generator_batch=32", "conditional=label", "schedule.discriminator=2"]
        ganrun(*words, "run_dir=larger", cwd=place)
        ganrun(*words, "run_dir=cut", "steps=3", cwd=place)
        ganrun("resume=cut", "steps=4", cwd=place)
        whole, cut = (load_file(place / run / "generator.safetensors") for run in ("larger", "cut"))
        assert all(whole[key].equal(cut[key]) for key in whole)

    def test_two_processes_equal_one(self, tmp_path):
        words = [*ARGS, "generator.norm=none", "discriminator.norm=none", "conditional=label", "steps=4"]
        words += ["schedule.generator_batch=32"]
        ganrun(*words, "run_dir=one", cwd=tmp_path)
        both_to_the_end(*words, "run_dir=two", cwd=tmp_path)
        assert distance(tmp_path / "one", tmp_path / "two") < 1e-6

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["schedule.generator_batch=32"], "schedule.generator_batch=32; expected at least batch_size=64"),
            (["schedule.generator_batch=many"], "schedule.generator_batch=many; expected at least batch_size=64"),
            (["schedule.generator_batch=96", "micro_batch=64"], "micro_batch=64: 96 images a move"),
            (
                ["schedule.generator_batch=128", "+schedule.reuse_stale=true"],
                "schedule.reuse_stale=true does not act with schedule.generator_batch=128",
            ),
            (
                ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "schedule.generator_batch=65"],
                "multiple of 2",
            ),
        ],
    )
    def test_refusals(self, tmp_path, words, said):
        done = ganrun(*words, "steps=1", cwd=tmp_path, check=2)
        assert said in done.stderr and len(done.stderr.splitlines()) == 1

    def test_a_smaller_pass_divides_both(self):
        cfg = composed("batch_size=60", "schedule.generator_batch=150")[0]
        assert smaller_micro_batch(cfg, 1) == 30 and smaller_micro_batch(cfg, 2) == 15
        cfg.micro_batch = 30
        assert smaller_micro_batch(cfg, 1) == 15


class TestSngan:
    SMALL = (
        "dataset=digits",
        "dataset.resolution=16",
        "dataset.limit=12",
        "batch_size=4",
        "schedule.generator_batch=8",
    )

    @pytest.mark.parametrize(
        ("experiment", "classes", "parameters"),  # of Chainer's code, and one bias more in the discriminator
        [("sngan", 0, (4_276_739, 1_053_825)), ("sngan-conditional", 10, (4_304_387, 1_055_105))],
    )
    def test_settings_are_those_of_the_authors_code(self, experiment, classes, parameters):
        cfg, notes = composed(f"experiment={experiment}")
        assert not notes and cfg.loss._target_ == "ganrun.losses.Hinge" and not cfg.ema
        order = {"generator": 1, "discriminator": 5, "share": False, "generator_batch": 128, "lazy_moves": False}
        assert list(cfg.schedule.items()) == list(order.items())  # the generator moves first
        assert (cfg.steps, cfg.batch_size, cfg.dataset.name, cfg.dataset.flip) == (50_000, 64, "cifar10", False)
        assert cfg.conditional.num_classes == classes and cfg.noise.z_dim == 128
        assert cfg.conditional.head == ("projection" if classes else "concatenate")
        for player in ("generator", "discriminator"):
            node = cfg.optimizer[player]
            assert (node.lr, list(node.betas), node.lr_schedule, node.decay_steps) == (2e-4, [0, 0.9], "linear", 50_000)
        generator, discriminator = instantiate(cfg.generator), instantiate(cfg.discriminator)
        counts = [sum(p.numel() for p in network.parameters()) for network in (generator, discriminator)]
        assert counts == list(parameters)
        assert {m.eps for m in generator.modules() if isinstance(m, nn.BatchNorm2d)} == {2e-5}
        assert all(is_parametrized(m) for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear))

    def test_learning_rates_fall_to_zero_while_an_average_starts_later(self):
        rates, copies = [], []

        def probe(module):
            play = module.training_step

            def watched(batch, batch_idx):
                play(batch, batch_idx)
                rates.append([each.optimizer.param_groups[0]["lr"] for each in module.player_optimizers.values()])
                pairs = zip(module.ema.average.parameters(), module.recipe.generator.parameters(), strict=True)
                copies.append(all(torch.equal(a, b) for a, b in pairs))

            module.training_step = watched

        few = ["generator.width=4", "discriminator.width=4", "steps=4"]
        average = ["ema=average", "ema.decay=0.9999", "ema.warmup=1", "ema.start=2"]
        module = fitted("experiment=sngan-conditional", *self.SMALL, *few, *average, probe=probe)
        assert [rate for pair in rates for rate in pair] == pytest.approx(
            [2e-4 * share for share in (1, 0.75, 0.5, 0.25) for _ in range(2)]
        )
        assert copies == [True, True, False, False]
        assert [move.player for move in module.moves] == ["generator", *["discriminator"] * 5]
        assert [move.batch for move in module.moves] == [0, 1, 2, 3, 4, 5] and module.larger == [0]
