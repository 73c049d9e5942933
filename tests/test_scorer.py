"""The scorer: one pass for all metrics, cached statistics of reals, protocols, and scores inside training."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, ganrun
from torch import nn

from ganrun import load_generator
from ganrun.callbacks.scores import Evaluate
from ganrun.data.images import Digits
from ganrun.files.run_dir import RunDir
from ganrun.metrics.class_accuracy import ClassAccuracy
from ganrun.metrics.classifier import Classifier
from ganrun.metrics.frechet import FID, IntraFID
from ganrun.metrics.kernel import KID
from ganrun.metrics.memorisation import Memorisation
from ganrun.metrics.metric import Score
from ganrun.metrics.network import Network
from ganrun.metrics.precision_recall import Coverage, Precision
from ganrun.metrics.protocol import difference, short
from ganrun.metrics.scorer import Scorer
from ganrun.metrics.sliced_wasserstein import SlicedWasserstein
from ganrun.pictures import to_uint8
from ganrun.seeding import rng_for

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Counts the images that it sees."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return x.mean((2, 3)).repeat(1, 4) * torch.tensor([1.0, 2.0, 3.0, 4.0])


def digits(**settings) -> Digits:
    return Digits(**{"name": "digits", "resolution": 16, "channels": 1} | settings)


def reals_as_fakes(data, num):
    return ({"fake": batch["real"], "label": batch["label"]} for batch in data.shuffled(num, 100))


def prepared(metrics, **settings) -> Scorer:
    scorer = Scorer(metrics, **{"data": digits(), "num_fake": 300, "num_real": 300} | settings)
    scorer.prepare(CPU)
    return scorer


def test_features_that_metrics_share_are_computed_once_and_reals_once():
    network = Counting()
    features = Network(network, name="counting")
    scorer = prepared(
        {
            "fid": FID(features=features),
            "precision": Precision(features=features),
            "coverage": Coverage(k=3, features=features),
        }
    )
    for rounds in (1, 2, 3):
        scorer.score(reals_as_fakes(digits(), 300))
        assert network.seen == 300 + rounds * 300


def test_reals_are_kept_in_a_file_by_data_features_and_number(tmp_path):
    def seen(**settings):
        network = Counting()
        features = Network(network, name="counting")
        metrics = {"fid": FID(features=features), "kid": KID(features=features, num_subsets=2, subset_size=50)}
        scorer = prepared(metrics | {"values": SlicedWasserstein()}, cache=tmp_path, **settings)
        scores = scorer.score(reals_as_fakes(digits(), 300))
        return network.seen, scores

    first, scores = seen()
    again, same = seen()
    assert first == 600 and again == 300 and scores == same
    assert len(list(tmp_path.glob("real-*.ckpt"))) == 2, "moments and features; values cost nothing"
    assert seen(num_real=200)[0] == 500
    assert seen(num_real=300)[0] == 300


def test_a_damaged_file_of_reals_is_made_again(tmp_path):
    metrics = {"fid": FID(features=Network(Counting(), name="counting"))}
    scores = prepared(metrics, cache=tmp_path).score(reals_as_fakes(digits(), 300))
    (file,) = tmp_path.glob("real-*.ckpt")
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)
    assert prepared(metrics, cache=tmp_path).score(reals_as_fakes(digits(), 300)) == scores


def test_the_same_samples_score_zero_and_draw_nothing(tmp_path):
    scorer = prepared({"fid": FID(), "sw": SlicedWasserstein(), "precision": Precision()})
    before = torch.get_rng_state()
    found = scorer.score(reals_as_fakes(digits(), 300))
    assert found["fid"].value == pytest.approx(0, abs=1e-9) and found["sw"].value == 0 and found["precision"].value == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_memorisation_sees_all_reals_where_as_many_as_fakes_do_for_others(tmp_path, monkeypatch):
    metrics = {"memorisation": Memorisation(), "fid": FID()}
    copies = digits().held["real"][:300]  # of which few are among the first 300 of the shuffle
    scorer = prepared(metrics, num_real=None, even=True, cache=tmp_path)
    found = scorer.score([{"fake": copies}])
    assert found["memorisation"].value == 1
    assert {name: one["num_real"] for name, one in scorer.protocols.items()} == {"memorisation": 1797, "fid": 300}
    assert prepared(metrics, num_real=300).score([{"fake": copies}])["memorisation"].value < 0.8
    assert prepared(metrics, num_real=None).protocols["fid"]["num_real"] == 1797

    def exact_radii(*_):
        pytest.fail("radii are computed again")

    monkeypatch.setattr("ganrun.metrics.memorisation.exact_radii", exact_radii)
    again = prepared(metrics, num_real=None, even=True, cache=tmp_path)
    assert again.score([{"fake": copies}]) == found


def test_radii_of_two_kinds_are_kept_apart():
    scorer = prepared({"memorisation": Memorisation(), "coverage": Coverage(k=1)})
    scorer.score(reals_as_fakes(digits(), 300))
    assert len(scorer._real) == 2


def test_the_best_scores_are_those_of_the_weights_that_are_kept(tmp_path):
    course = {"a": [3.0, 1.0, 2.0, 5.0], "b": [0.1, 0.5, 0.9, 0.9]}
    steps, saved = iter(range(4)), []
    scorer = SimpleNamespace(
        metrics={"a": SimpleNamespace(lower_is_better=True), "b": SimpleNamespace(lower_is_better=False)},
        num_fake=0,
        score=lambda _, classify: {
            name: Score(values[now]) for now in [next(steps)] for name, values in course.items()
        },
    )
    trainer = SimpleNamespace(
        max_steps=4, loggers=[], is_global_zero=False, strategy=SimpleNamespace(broadcast=lambda found: found),
        save_checkpoint=lambda _: saved.append(trainer.global_step),
    )  # fmt: skip
    evaluate = Evaluate(
        RunDir(tmp_path), scorer, None, every=1, best_by="b", export=None, ends=lambda: False, doubts=lambda: False
    )
    for trainer.global_step in range(1, 5):
        evaluate.on_train_batch_end(trainer, SimpleNamespace(classify=None), None, None, 0)
    assert saved == [1, 2, 3] and evaluate.waited == 1
    assert evaluate.best == {"step": 3, "a": 2.0, "b": 0.9} and evaluate.last == {"step": 4, "a": 5.0, "b": 0.9}


def test_the_first_reals_of_a_shuffle_are_as_any():
    order = torch.cat([batch["real"].flatten(1) for batch in digits().shuffled(300)])
    assert torch.equal(order, torch.cat([batch["real"].flatten(1) for batch in digits().shuffled(300, chunk=7)]))
    held = digits().held["real"].flatten(1)
    places = [int((held == one).all(1).nonzero()[0]) for one in order[:50]]
    assert len(set(places)) == 50 and max(places) > 1500 and places != sorted(places)


def test_all_arithmetic_of_a_score_is_in_fp32():
    class Spy(SlicedWasserstein):
        def score(self, real, fake):
            assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
            assert not torch.is_autocast_enabled("cpu")
            return super().score(real, fake)

    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prepared({"spy": Spy()}).score(reals_as_fakes(digits(), 300))
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_statistics_that_cannot_be_kept_cost_only_time(tmp_path, caplog):
    (tmp_path / "file").touch()
    metrics = {"fid": FID(features=Network(Counting(), name="counting"))}
    found = prepared(metrics, cache=tmp_path / "file" / "cache").score(reals_as_fakes(digits(), 300))
    assert found["fid"].value == pytest.approx(0, abs=1e-9) and "are not kept" in caplog.text


def test_labels_of_fakes_are_those_of_reals():
    scorer = prepared({"fid": FID()}, num_fake=4000, conditional=True)
    labels = scorer.labels()
    assert len(labels) == 4000
    real = torch.cat([batch["label"] for batch in digits().shuffled(1797)])
    assert torch.equal(labels[:1797], real) and torch.equal(labels[1797:3594], real)


def test_conditional_metrics_on_real_digits():
    features = Classifier(cache=os.environ["GANRUN_CACHE"])
    scorer = prepared(
        {"intra-fid": IntraFID(features=features), "class-accuracy": ClassAccuracy(features=features)}, conditional=True
    )
    right = scorer.score(reals_as_fakes(digits(), 300))
    wrong = scorer.score({**batch, "label": (batch["label"] + 1) % 10} for batch in reals_as_fakes(digits(), 300))
    assert right["class-accuracy"].value > 0.95 and wrong["class-accuracy"].value < 0.05
    assert right["intra-fid"].value == pytest.approx(0, abs=1e-9) and wrong["intra-fid"].value > 10


class TestProtocol:
    def protocol(self, **settings):
        return prepared({"fid": FID(**settings.pop("metric", {}))}, **settings).protocols["fid"]

    def test_everything_that_makes_a_score_is_in_it(self):
        found = self.protocol()
        assert found == {
            "metric": "FID", "features": "values", "dataset": "digits", "data": digits().identity,
            "resolution": "16x16", "channels": 1, "fit": "resize",
            "split": "training data", "num_real": 300, "num_fake": 300, "values": "8 bit", "labels": "none",
        }  # fmt: skip
        json.dumps(found)
        assert short(found) == "values: 300 fake, 300 real (training data), 8 bit"

    def test_most_is_what_is_looked_at(self):
        scorer = prepared({"fid": FID(), "precision": Precision(max_samples=100)})
        scorer.score(reals_as_fakes(digits(), 300))
        numbers = {name: (found["num_real"], found["num_fake"]) for name, found in scorer.protocols.items()}
        assert numbers == {"fid": (300, 300), "precision": (100, 100)}
        looked_at = {name: summary.num for ((_, name), _), summary in scorer._real.items()}
        assert sorted(looked_at.values()) == [100, 300]

    def test_differences_are_named(self):
        one, other = self.protocol(), self.protocol(num_real=200)
        assert difference(one, one) is None
        assert difference(one, other) == "num_real 300 and 200"
        assert difference(one, other | {"weights": "ab"}) == "num_real 300 and 200; weights not said and ab"

    def test_what_led_to_other_data_is_named_and_to_the_same_is_not(self):
        one = self.protocol()
        assert difference(one, one | {"fit": "crop"}) is None
        assert difference(one, one | {"fit": "crop", "data": "x"}) == f"data {one['data']} and x; fit resize and crop"
        small = prepared({"fid": FID()}, data=digits(resolution=8)).protocols["fid"]
        assert difference(one, small).endswith("; resolution 16x16 and 8x8")

    def test_seed_average_and_versions_are_only_noted(self):
        one = self.protocol()
        assert difference(one | {"seed": 1, "ema": True, "versions": {}}, one | {"seed": 2}) is None


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("scores")


def result(path: Path) -> dict:
    return json.loads((path / "result.json").read_text())


def scored_again(run: Path, *, live: bool) -> dict[str, float]:
    """The scores of a conditional run's final weights, from its files, the noise and the labels alone."""
    sampling = load_generator(run / "generator.safetensors")
    if live:
        state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        own = "recipe.generator."
        sampling.generator.load_state_dict({k.removeprefix(own): v for k, v in state.items() if k.startswith(own)})
    label = torch.cat([batch["label"] for batch in digits().shuffled(200)])
    z = sampling.noise(200, rng_for(0, "evaluate"))["z"]
    metrics = {"sliced-wasserstein": SlicedWasserstein(), "intra-fid": IntraFID()}
    scorer = prepared(metrics, num_fake=200, num_real=200, conditional=True)
    found = scorer.score([{"fake": to_uint8(sampling.decode(z, label)), "label": label}])
    return {name: score.value for name, score in found.items()}


def weights(path: Path) -> dict:
    return torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


RUN = [*TINY, "steps=12", "checkpoint.every=0", "sample_every=0", "on_collapse=null"]


@pytest.fixture(scope="module")
def with_scores(place) -> Path:
    """A run that is scored every 3 steps by three metrics."""
    metrics = ["metric=[sliced-wasserstein,fid,coverage]", "metric/features=classifier", "evaluate.every=3"]
    ganrun(*RUN, *metrics, "run_dir=with", cwd=place)
    return place / "with"


@pytest.fixture(scope="module")
def by_coverage(place) -> Path:
    """A run whose best state is chosen by a metric of which more is better."""
    settings = ["metric=[fid,coverage]", "metric/features=none", "evaluate.every=4", "evaluate.best_by=coverage"]
    ganrun(*RUN, *settings, "steps=40", "optimizer.lr=1e-2", "run_dir=by", cwd=place)
    return place / "by"


class TestInTraining:
    def test_scores_change_no_weight(self, place, with_scores):
        ganrun(*RUN, "metric=[]", "evaluate.every=0", "run_dir=without", cwd=place)
        one, other = weights(with_scores), weights(place / "without")
        assert one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())

    def test_they_are_those_of_the_averaged_weights_with_one_noise_and_the_labels_of_reals(self, place):
        chosen = ["conditional=label", "metric=[sliced-wasserstein,intra-fid]", "metric/features=none", "run_dir=again"]
        settings = ["evaluate.every=5", "evaluate.num_samples=200", "optimizer.lr=5e-3", "precision=32-true"]
        ganrun(*RUN, *chosen, *settings, cwd=place)
        found = {name: score["final"] for name, score in result(place / "again")["scores"].items()}
        assert found == pytest.approx(scored_again(place / "again", live=False), rel=1e-4)
        assert found != pytest.approx(scored_again(place / "again", live=True), rel=1e-2)

    def test_result_and_tensorboard_carry_the_protocol(self, with_scores):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        scores = result(with_scores)["scores"]
        assert list(scores) == ["sliced-wasserstein", "fid", "coverage"]
        fid = scores["fid"]["protocol"]
        assert fid["features"] == "classifier" and len(fid["weights"]) == 16 and fid["accuracy"] > 0.9
        assert fid["ema"] is True and fid["seed"] == 0 and {"torch", "ganrun"} <= fid["versions"].keys()
        assert scores["fid"]["better"] == "lower" and scores["coverage"]["better"] == "higher"
        events = EventAccumulator(str(with_scores / "tensorboard")).Reload()
        assert "protocol/fid/text_summary" in events.Tags()["tensors"]
        assert "score/coverage" in events.Tags()["scalars"]

    def test_best_by_a_metric_of_which_more_is_better(self, by_coverage):
        lines = [json.loads(line) for line in (by_coverage / "metrics.jsonl").read_text().splitlines()]
        courses = {
            name: {one["step"]: one[f"score/{name}"] for one in lines if "score/fid" in one}
            for name in ("fid", "coverage")
        }
        scores = result(by_coverage)["scores"]
        best = torch.load(by_coverage / "checkpoints" / "best.ckpt", weights_only=True)
        assert scores["coverage"]["best"] == max(courses["coverage"].values())
        for name, score in scores.items():  # of every metric the score of the weights that are kept
            assert score["best_step"] == best["global_step"] and score["best"] == courses[name][best["global_step"]]
            assert score["best_by"] == "coverage" and score["every"] == [4]

    def test_no_best_score_without_its_weights(self, place, by_coverage):
        shutil.copytree(by_coverage, place / "weightless")
        (place / "weightless" / "checkpoints" / "best.ckpt").unlink()
        before = result(by_coverage)["scores"]["coverage"]
        ganrun("resume=weightless", "steps=41", "evaluate.every=0", "evaluate.best_by=coverage", cwd=place)
        after = result(place / "weightless")["scores"]["coverage"]
        assert (after["best"], after["best_step"]) == (None, None) or after["best"] > before["best"]
        assert after["every"] == [0, 4]

    def test_the_best_generator_is_that_of_the_best_checkpoint(self, by_coverage):
        import yaml

        best = torch.load(by_coverage / "checkpoints" / "best.ckpt", weights_only=True)
        trained = yaml.safe_load((by_coverage / "best.yaml").read_text())["trained"]
        assert trained["steps"] == best["global_step"] and trained["ema"] is True
        generator = load_generator(by_coverage / "best.safetensors").generator.state_dict()
        averages = {
            key.removeprefix("ema.average.0."): value
            for key, value in best["state_dict"].items()
            if key.startswith("ema.")
        }
        assert averages and all(torch.equal(value, averages[key]) for key, value in generator.items())

    def test_an_unknown_best_by_is_refused(self, place):
        done = ganrun(*RUN, "evaluate.best_by=fid", "run_dir=no", cwd=place, check=2)
        assert "evaluate.best_by=fid" in done.stderr and "valid: sliced-wasserstein" in done.stderr
        assert not (place / "no").exists()


WORSE = [*RUN, "steps=100", "evaluate.every=5", "evaluate.patience=2", "optimizer.lr=1e-9", "ema=none"]


@pytest.fixture(scope="module")
def out_of_patience(place):
    """A run that patience has ended, and what it printed."""
    settings = ["metric=[coverage]", "metric/features=none"]  # which stays at its first value
    done = ganrun(*WORSE, *settings, "run_dir=patience", cwd=place)
    return place / "patience", done.stdout


def copied(run: Path, name: str) -> Path:
    return Path(shutil.copytree(run, run.with_name(name)))


class TestPatience:
    def test_it_ends_the_run_and_says_so(self, out_of_patience):
        run, said = out_of_patience
        found = result(run)
        assert found["status"] == "finished" and found["steps"] == 15 and found["goal"] == 100
        assert found["ended"] == "no better coverage than at step 5 in 2 scores"
        assert found["ended"] in said
        last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert last["global_step"] == 15

    def test_a_resume_has_nothing_to_do_until_it_is_given_more(self, place, out_of_patience):
        run = copied(out_of_patience[0], "more")
        done = ganrun("resume=more", cwd=place)
        assert "nothing to do: no better coverage" in done.stdout and "evaluate.patience=" in done.stdout
        ganrun("resume=more", "evaluate.patience=4", cwd=place)
        assert result(run)["steps"] == 25
        ganrun("resume=more", "evaluate.patience=null", "steps=30", cwd=place)
        assert result(run)["steps"] == 30 and result(run)["ended"] is None

    def test_the_same_patience_again_changes_nothing(self, place, out_of_patience):
        run = copied(out_of_patience[0], "same")
        for patience in ("evaluate.patience=2", "evaluate.patience=1"):
            assert "nothing to do" in ganrun("resume=same", patience, "steps=200", cwd=place).stdout
        assert result(run)["steps"] == 15

    def test_a_kill_before_it_is_written_down_changes_nothing(self, place, out_of_patience):
        run = copied(out_of_patience[0], "killed")
        before, found = weights(run), result(run)
        (run / "result.json").write_text(json.dumps({"status": "running", "goal": 100}))
        ganrun("resume=killed", cwd=place)
        after = result(run)
        assert {key: after[key] for key in ("status", "steps", "goal", "ended", "scores")} == {
            key: found[key] for key in ("status", "steps", "goal", "ended", "scores")
        }
        assert all(torch.equal(value, before[key]) for key, value in weights(run).items())

    def test_a_sweep_counts_it_as_finished(self, place):
        done = ganrun("-m", *WORSE, "metric=[coverage]", "metric/features=none", "seed=1,2", "run_dir=sweep", cwd=place)
        assert done.stdout.count("finished") >= 2


def test_a_best_score_of_another_protocol_counts_no_more(place):
    settings = [*RUN, "evaluate.every=4", "run_dir=changed"]
    ganrun(*settings, cwd=place)
    ganrun("resume=changed", "steps=20", "evaluate.num_samples=32", cwd=place)
    assert (
        "its protocol differs: num_real 64 and 32; num_fake 64 and 32" in (place / "changed" / "train.log").read_text()
    )
    score = result(place / "changed")["scores"]["sliced-wasserstein"]
    assert score["best_step"] in (16, 20) and score["protocol"]["num_fake"] == 32


def test_another_best_by_starts_anew(place):
    settings = ["dataset=ring", "model=mlp", "metric=[fid,high-quality]", "metric/features=none", "evaluate.every=4"]
    ganrun(*RUN, *settings, "evaluate.best_by=high-quality", "run_dir=rechosen", cwd=place)
    ganrun("resume=rechosen", "steps=20", "evaluate.best_by=fid", "evaluate.patience=9", cwd=place)
    assert "best.ckpt was chosen by high-quality" in (place / "rechosen" / "train.log").read_text()
    best = torch.load(place / "rechosen" / "checkpoints" / "best.ckpt", weights_only=True)
    score = result(place / "rechosen")["scores"]["fid"]
    assert score["best_step"] == best["global_step"] >= 16


def test_offline_inception_is_refused_before_a_run_exists(place, monkeypatch):
    done = ganrun(
        *RUN,
        "metric=[fid]",
        "metric/features=inception",
        "metric.features.weights=nothing.pth",
        "run_dir=off",
        cwd=place,
        check=2,
    )
    assert done.stderr == "ganrun: metric.features.weights=nothing.pth: there is no such file\n"
    assert not (place / "off").exists()
