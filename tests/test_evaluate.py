"""`ganrun evaluate` and `ganrun rank` as whole commands."""

import json
import shutil
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, ganrun
from PIL import Image

from ganrun.files.run_dir import RunDir
from ganrun.training.run_config import load_config

RUN = [*TINY, "steps=4", "checkpoint.every=0", "sample_every=0", "on_collapse=null"]
FEW = ["num_samples=200", "metric.kid.subset_size=100"]


def result(path: Path) -> dict:
    return json.loads((path / "result.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A digits run, a conditional one, and a ring run."""
    path = tmp_path_factory.mktemp("evaluate")
    ganrun(*RUN, "run_dir=run", cwd=path)
    ganrun(*RUN, "conditional=label", "run_dir=conditional", cwd=path)
    ganrun(*RUN, "dataset=ring", "model=mlp", "run_dir=ring", cwd=path)
    return path


def digits(num: int = 300) -> list[Image.Image]:
    from sklearn.datasets import load_digits

    pixels = np.rint(load_digits().images[:num] * (255 / 16)).astype(np.uint8)
    return [Image.fromarray(one).resize((16, 16)) for one in pixels]


class TestGenerator:
    def test_scores_go_into_the_run_with_their_protocol(self, place):
        done = ganrun("evaluate", "from=run", *FEW, "seeds=3", cwd=place)
        every = result(place / "run")["evaluations"]
        found = {one["metric"]: one for one in every if one["protocol"]["num_fake"] == 200}
        assert list(found) == ["fid", "kid", "precision", "recall"]
        fid = found["fid"]
        assert len(fid["values"]) == 3 and len(set(fid["values"])) == 3
        assert fid["mean"] == pytest.approx(np.mean(fid["values"])) and fid["std"] == pytest.approx(
            np.std(fid["values"], ddof=1)
        )
        protocol = fid["protocol"]
        assert protocol["features"] == "classifier" and protocol["num_fake"] == 200 and protocol["num_real"] == 1797
        assert protocol["seed"] == [0, 1, 2] and protocol["ema"] is True and protocol["split"] == "training data"
        assert fid["of"]["from"] == "generator.safetensors" and fid["of"]["steps"] == 4 and fid["floor"] is None
        assert found["kid"]["within"] > 0 and fid["within"] is None
        assert "±" in done.stdout and "200 fake, 1,797 real (training data), 8 bit" in done.stdout

    def test_more_seeds_are_not_replaced_by_fewer(self, place):
        shutil.copytree(place / "run", place / "seeds")
        words = ["evaluate", "metric=[fid]", "num_samples=60", "metric/features=none"]
        for source, seeds in (("seeds", 3), ("./seeds", 1), ("seeds/", 3)):
            ganrun(*words, f"from={source}", f"seeds={seeds}", cwd=place)
        kept = [one for one in result(place / "seeds")["evaluations"] if one["protocol"]["num_fake"] == 60]
        assert sorted(len(one["values"]) for one in kept) == [3]

    def test_a_score_takes_the_place_of_one_like_it(self, place):
        shutil.copytree(place / "run", place / "copy")
        before = len(result(place / "copy").get("evaluations", []))
        words = ["evaluate", "from=copy", "metric=[fid]", "metric/features=none"]
        ganrun(*words, "num_samples=100", cwd=place)
        ganrun(*words, "num_samples=100", "seeds=2", cwd=place)
        ganrun(*words, "num_samples=150", cwd=place)
        kept = result(place / "copy")["evaluations"][before:]
        assert [(one["protocol"]["num_fake"], len(one["values"])) for one in kept] == [(100, 2), (150, 1)]

    def test_scores_stay_when_the_run_goes_on(self, place):
        shutil.copytree(place / "run", place / "longer")
        ganrun("evaluate", "from=longer", "metric=[fid]", "num_samples=100", cwd=place)
        before = result(place / "longer")["evaluations"]
        ganrun("resume=longer", "steps=6", cwd=place)
        assert result(place / "longer")["evaluations"] == before and result(place / "longer")["steps"] == 6

    def test_batches_and_training_give_one_score(self, place):
        """The score is that of the samples, whatever the number that are made at once."""
        scores = []
        for size in (7, 64):
            ganrun(
                "evaluate",
                "from=run",
                "metric=[sliced-wasserstein]",
                "num_samples=100",
                f"batch_size={size}",
                "out=one.json",
                "overwrite=true",
                cwd=place,
            )
            scores.append(json.loads((place / "one.json").read_text())[0]["mean"])
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)

    def test_a_lone_generator_needs_a_data_set(self, place, tmp_path):
        for name in ("generator.safetensors", "generator.yaml"):
            shutil.copy(place / "run" / name, tmp_path)
        words = ["evaluate", "from=generator.safetensors", "metric=[fid]", "num_samples=100"]
        done = ganrun(*words, cwd=tmp_path, check=2)
        assert "no run beside it that names a data set; give dataset=<name>" in done.stderr
        ganrun(*words, "dataset=digits", "out=scores.json", "overwrite=true", cwd=tmp_path)
        (found,) = json.loads((tmp_path / "scores.json").read_text())
        assert found["protocol"]["dataset"] == "digits" and found["of"]["steps"] == 4
        assert not list(tmp_path.glob("*.lock"))

    def test_the_best_generator_is_scored_by_its_file(self, place):
        ganrun("evaluate", "from=run/best.safetensors", "metric=[fid]", "num_samples=100", cwd=place)
        assert result(place / "run")["evaluations"][-1]["of"]["from"] == "best.safetensors"

    def test_conditional_metrics(self, place):
        ganrun("evaluate", "from=conditional", "metric=[class-accuracy,intra-fid]", "num_samples=200", cwd=place)
        found = {one["metric"]: one for one in result(place / "conditional")["evaluations"]}
        assert 0 <= found["class-accuracy"]["mean"] < 0.6 and found["intra-fid"]["mean"] > 10
        assert found["intra-fid"]["protocol"]["labels"] == "as in the data"

    def test_points_and_their_floor(self, place):
        metrics = "metric=[fid,high-quality,modes-covered,sliced-wasserstein]"
        done = ganrun("evaluate", "from=ring", metrics, "num_samples=2000", cwd=place)
        found = {one["metric"]: one for one in result(place / "ring")["evaluations"]}
        assert found["high-quality"]["floor"] == pytest.approx(0.989, abs=0.01) and found["modes-covered"]["floor"] == 8
        assert found["fid"]["mean"] > 100 * found["fid"]["floor"]
        assert "the floor under this protocol" in done.stdout

    def test_other_data_than_the_runs(self, place):
        words = [
            "evaluate",
            "from=run",
            "metric=[fid]",
            "metric/features=none",
            "num_samples=100",
            "out=few.json",
            "overwrite=true",
        ]
        ganrun(*words, "dataset.limit=50", cwd=place)
        assert json.loads((place / "few.json").read_text())[0]["protocol"]["num_real"] == 50

    def test_a_run_in_training_is_scored_and_left_alone(self, place):
        from ganrun.files.storage import owning

        before = (place / "run" / "result.json").read_bytes()
        with owning(place / "run"):
            done = ganrun("evaluate", "from=run", "metric=[fid]", "num_samples=77", cwd=place)
        assert "warning: not written into" in done.stderr and "fid" in done.stdout
        assert (place / "run" / "result.json").read_bytes() == before

    def test_a_run_that_knows_settings_by_older_names(self, place):
        shutil.copytree(place / "run", place / "older")
        config = place / "older" / ".hydra" / "config.yaml"
        saved = yaml.safe_load(config.read_text())
        saved["metric"]["sliced-wasserstein"]["most"] = saved["metric"]["sliced-wasserstein"].pop("max_samples")
        saved["metric"]["own"] = {"_target_": "forked.Run", "most": 7}
        config.write_text(yaml.safe_dump(saved))
        cfg, _ = load_config(RunDir(place / "older"), ["forked"])
        assert cfg.metric["sliced-wasserstein"].max_samples == 10_000 and "most" not in cfg.metric["sliced-wasserstein"]
        assert cfg.metric.own.most == 7  # a user's own class calls it what it likes
        del saved["metric"]["own"]
        config.write_text(yaml.safe_dump(saved))
        ganrun("evaluate", "from=older", "num_samples=60", "metric=[sliced-wasserstein]", cwd=place)
        assert result(place / "older")["evaluations"][-1]["metric"] == "sliced-wasserstein"

    def test_classes_of_ones_own_need_trust(self, place):
        shutil.copytree(place / "run", place / "foreign")
        config = place / "foreign" / ".hydra" / "config.yaml"
        saved = yaml.safe_load(config.read_text())
        saved["metric"]["features"]["_target_"] = "os.system"
        config.write_text(yaml.safe_dump(saved))
        done = ganrun("evaluate", "from=foreign", cwd=place, check=2)
        assert "metric.features._target_ names os.system" in done.stderr


@pytest.fixture(scope="module")
def folder(place):
    for i, image in enumerate(digits()):
        (place / "images" / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        image.save(place / "images" / f"{i % 3}" / f"{i:04}.png")
    return "images"


class TestImages:
    def scores(self, place, *words) -> dict:
        ganrun("evaluate", "from=images", "dataset=digits", "out=images.json", "overwrite=true", *words, cwd=place)
        return {one["metric"]: one for one in json.loads((place / "images.json").read_text())}

    def test_folder_zip_and_array_score_alike(self, place, folder):
        shutil.make_archive(str(place / "images"), "zip", place / "images")
        stacked = np.stack([np.asarray(image) for image in digits()])[..., None]
        np.savez(place / "images.npz", arr_0=stacked)
        words = ["metric=[fid,coverage]", "metric/features=none"]
        first = self.scores(place, "path=images", *words)
        for path in ("images.zip", "images.npz"):
            other = self.scores(place, f"path={path}", *words)
            assert other["fid"]["mean"] == pytest.approx(first["fid"]["mean"], rel=1e-6)
            assert other["coverage"]["mean"] == first["coverage"]["mean"]
        assert first["fid"]["protocol"]["num_fake"] == 300

    def test_class_folders_are_labels(self, place, folder):
        found = self.scores(place, "path=images", "metric=[class-accuracy]")
        assert found["class-accuracy"]["mean"] < 0.6  # digit i lies in folder i modulo 3

    def test_labels_of_an_array_without_names_are_those_of_the_data(self, place):
        from sklearn.datasets import load_digits

        stacked = np.stack([np.asarray(image) for image in digits()])[..., None]
        np.savez(place / "labelled.npz", arr_0=stacked, labels=load_digits().target[:300])
        found = self.scores(place, "path=labelled.npz", "metric=[class-accuracy]")["class-accuracy"]
        assert found["mean"] > 0.9 and found["protocol"]["labels"] == "their own"

    def test_real_digits_score_near_nothing(self, place, folder):
        found = self.scores(place, "path=images", "metric=[fid,precision]")
        noise = self.scores(place, f"path={self.noise(place)}", "metric=[fid,precision]")
        assert found["precision"]["mean"] > 0.6 and noise["precision"]["mean"] < 0.1
        assert noise["fid"]["mean"] > 5 * found["fid"]["mean"]

    def noise(self, place) -> str:
        array = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 1), dtype=np.uint8)
        np.savez(place / "noise.npz", arr_0=array)
        return "noise.npz"

    def test_another_size_is_refused(self, place):
        (place / "large").mkdir()
        for i, image in enumerate(digits(4)):
            image.resize((32, 32)).save(place / "large" / f"{i}.png")
        done = ganrun("evaluate", "from=images", "path=large", "dataset=digits", "metric=[fid]", cwd=place, check=2)
        assert "32x32 pixels; expected 16x16" in done.stderr

    def test_what_is_no_array_of_images_is_refused(self, place):
        np.savez(place / "floats.npz", arr_0=np.zeros((4, 16, 16, 1)))
        np.savez(place / "pickled.npz", arr_0=np.array([{}], dtype=object))
        np.savez(place / "other.npz", images=np.zeros(3))
        (place / "torn.npz").write_bytes(b"PK\x03\x04 torn")
        for name, reason in {
            "floats": "float64",
            "pickled": "objects",
            "other": "arr_0",
            "torn": "cannot be read",
        }.items():
            words = ["from=images", f"path={name}.npz", "dataset=digits", "metric=[fid]"]
            done = ganrun("evaluate", *words, cwd=place, check=2)
            assert reason in done.stderr and done.stderr.count("\n") == 1


def test_real_test_data_score_at_the_floor(place, data_dir):
    words = ["evaluate", "from=test", "dataset=mnist", f"data_dir={data_dir}", "metric=[fid,sliced-wasserstein]"]
    done = ganrun(
        *words,
        "metric/features=none",
        "num_real=3000",
        "num_samples=3000",
        "out=test.json",
        "overwrite=true",
        cwd=place,
    )
    found = {one["metric"]: one for one in json.loads((place / "test.json").read_text())}
    assert "test samples: the floor" in done.stdout
    assert found["sliced-wasserstein"]["mean"] < 0.05 and found["fid"]["protocol"]["num_fake"] == 3000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "from must be given: from=<value>"),
        ("from=nothing", "from=nothing: there is no such run directory, .safetensors file or checkpoint"),
        ("from=run/train.log", "expected a run directory, a .safetensors file, a checkpoint (.ckpt) or hf:"),
        ("from=test", "give dataset=<name>"),
        ("from=images dataset=digits", "from=images needs path="),
        ("from=images dataset=digits path=nothing", "there is no such folder or .zip"),
        ("from=images dataset=ring path=.", "dataset ring has points, not images"),
        ("from=test dataset=digits", "dataset digits has no test split"),
        ("from=test dataset=ring seeds=2", "seeds=2: nothing is drawn"),
        ("from=test dataset=ring split=test", "the same samples on both sides"),
        ("from=run path=x", "path=x: it is for from=images"),
        ("from=run split=test", "has no test split"),
        ("from=run split=val", "split=val; expected one of train, test"),
        ("from=run seeds=0", "seeds=0; expected at least 1"),
        ("from=run num_samples=1", "num_samples=1; expected at least 2"),
        ("from=run num_samples=many", "num_samples=many; expected an integer"),
        ("from=run nonsense=1", "nonsense: there is no such key"),
        ("from=run metric=[nonsense]", "metric=nonsense: there is no such option"),
        ("from=run metric=[]", "metric=[]: nothing to score"),
        ("from=run metric.features=none", "metric.features: it is chosen by metric/features=<option>"),
        ("from=run metric/features=nonsense", "metric/features=nonsense: there is no such option"),
        ("from=run metric.kid.subset_size=1000 num_samples=100", "subsets of 1000 from 100 samples"),
        ("from=run metric.fid.k=3", "metric.fid.k"),
        ("from=run metric=[intra-fid]", "needs fakes that are made for classes"),
        ("from=run metric=[modes-covered]", "no known modes"),
        ("from=run dataset=ring", "the generator makes images, but dataset ring has points"),
        ("from=conditional dataset=mnist metric=[fid]", "classes"),
        ("from=run dataset.nonsense=1", "dataset.nonsense: there is no such key"),
        ("from=run device=warp", "device=warp; valid: auto, cpu, cuda"),
        ("-m from=run", "-m"),
        ("from=run out=nowhere/x.json", "out=nowhere/x.json: there is no folder nowhere to put it in"),
        ("from=run out=run/generator.safetensors", "expected the name of a .json file"),
        ("from=run out=run/result.json", "out=run/result.json exists; overwrite=true writes over it"),
        ("from=run loss=hinge", "loss: there is no such key"),
        ("from=run metric=[fid] metric.fid.features=none", "chosen by metric/features=<option>"),
        (
            "from=run metric=[coverage] metric.coverage.max_samples=4 num_samples=64",
            "k=5: 4 samples have no 5 neighbours",
        ),
        ("from=run metric.features.weights=x", "choose metric/features=<option> too"),
        ("from=run data_dir=nowhere", "lies in no folder"),
        ("from=images dataset=digits path=one.npz metric=[fid]", "images of one.npz: 1 samples; expected at least 2"),
        ("from=images dataset=digits path=strings.npz metric=[fid]", "labels are <U1 (3,); expected 3 integers"),
        ("from=images dataset=digits path=beyond.npz metric=[fid]", "labels from 0 to 12; there are 10 classes"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(place, data_dir, words, said):
    three = np.zeros((3, 16, 16, 1), dtype=np.uint8)
    for name, labels in {"strings": ["a", "b", "c"], "beyond": [0, 5, 12], "one": [0]}.items():
        np.savez(place / f"{name}.npz", arr_0=three[: len(labels)], labels=np.array(labels))
    data = ["dataset.data_dir=" + str(data_dir)] if "dataset=mnist" in words else []
    done = ganrun("evaluate", *words.split(), *data, cwd=place, check=2)
    assert done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


@pytest.fixture(scope="module")
def runs(place):
    for seed in (1, 2, 3):
        ganrun(*RUN, f"seed={seed}", "steps=2", f"run_dir=ranked/{seed}", cwd=place)
    return place


class TestHostile:
    @pytest.mark.parametrize(
        "change",
        [{"dataset": None}, {"dataset": [1]}, {"metric": None}, {"metric": {"features": {"_target_": "os.system"}}}],
    )
    def test_a_run_config_with_something_else(self, place, tmp_path, change):
        shutil.copytree(place / "run", tmp_path / "run")
        config = tmp_path / "run" / ".hydra" / "config.yaml"
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | change))
        done = ganrun("evaluate", "from=run", "metric=[fid]", cwd=tmp_path, check=2)
        assert done.stderr.count("\n") == 1 and next(iter(change)) in done.stderr

    @pytest.mark.parametrize("entries", [7, [5], [{"metric": "fid"}], [{"of": 1, "protocol": 2}]])
    def test_a_result_with_something_else(self, place, tmp_path, entries):
        shutil.copytree(place / "run", tmp_path / "run")
        path = tmp_path / "run" / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"evaluations": entries}))
        ganrun("evaluate", "from=run", "metric=[fid]", "metric/features=none", "num_samples=50", cwd=tmp_path)
        assert [one["metric"] for one in result(tmp_path / "run")["evaluations"]] == ["fid"]

    @pytest.mark.parametrize(
        "score", [{"final": "x"}, {"final": None}, {"protocol": 5}, {"step": "x"}, {"better": "?"}, 3, None]
    )
    def test_a_score_that_is_none(self, place, tmp_path, score):
        shutil.copytree(place / "run", tmp_path / "run")
        path = tmp_path / "run" / "result.json"
        found = json.loads(path.read_text())
        old = found["scores"]["sliced-wasserstein"]
        found["scores"]["sliced-wasserstein"] = old | score if isinstance(score, dict) else score
        path.write_text(json.dumps(found))
        done = ganrun("rank", "of=run", "by=sliced-wasserstein", "source=final", cwd=tmp_path, check=2)
        assert done.stderr.count("\n") == 1, done.stderr


class TestRank:
    def test_in_the_order_of_a_score(self, runs):
        done = ganrun("rank", "of=ranked", "by=sliced-wasserstein", cwd=runs)
        values = {seed: result(runs / "ranked" / seed)["scores"]["sliced-wasserstein"]["final"] for seed in "123"}
        order = [line.split("ranked/")[1][0] for line in done.stdout.splitlines() if "ranked/" in line]
        assert order == sorted(values, key=values.get)
        assert "the final score in training; lower is better" in done.stdout

    def test_over_seeds_each_setting_is_a_line(self, runs):
        for seed in (1, 2):
            ganrun(*RUN, f"seed={seed}", "steps=2", "loss=lsgan", f"run_dir=others/{seed}", cwd=runs)
        done = ganrun("rank", "of=[ranked,others]", "by=sliced-wasserstein", "group=seed", cwd=runs)
        values = {
            name: [result(path)["scores"]["sliced-wasserstein"]["final"] for path in (runs / folder).iterdir()]
            for name, folder in {"all": "ranked", "loss=lsgan": "others"}.items()
        }
        for name, some in values.items():
            (line,) = (line for line in done.stdout.splitlines() if "│" in line and name in line)
            assert f"{mean(some):.5g} ± {stdev(some):.2g}" in line and str(len(some)) in line.split("│")[3]
        assert "Welch's t = " in done.stdout and ("(n = 3 and 2)" in done.stdout or "(n = 2 and 3)" in done.stdout)

    def test_the_best_of_more_looks_is_not_ranked_beside_that_of_fewer(self, runs):
        for name in ("often", "often-too"):
            ganrun(*RUN, "evaluate.every=1", f"run_dir={name}", "steps=2", cwd=runs)
        words = ["by=sliced-wasserstein", "source=best"]
        done = ganrun("rank", "of=[ranked/1,often]", *words, cwd=runs, check=2)
        assert "evaluate.every [500] and [1]; source=final" in done.stderr and done.stderr.count("\n") == 1
        done = ganrun("rank", "of=[often,often-too]", *words, cwd=runs)
        assert "the best in training, by evaluate.every=[1], evaluate.best_by=sliced-wasserstein" in done.stdout
        ganrun("rank", "of=[ranked/1,often]", "by=sliced-wasserstein", cwd=runs)

    def test_unlike_protocols_are_refused(self, runs):
        ganrun(*RUN, "evaluate.num_samples=32", "steps=2", "run_dir=unlike", cwd=runs)
        done = ganrun("rank", "of=[ranked/1,unlike]", "by=sliced-wasserstein", cwd=runs, check=2)
        assert (
            "sliced-wasserstein of ranked/1 and unlike do not compare: num_real 64 and 32; num_fake 64 and 32"
            in done.stderr
        )

    def test_evaluations_come_first_where_all_have_them(self, runs):
        for seed, seeds in (("1", 2), ("2", 2)):
            words = [f"from=ranked/{seed}", "metric=[sliced-wasserstein]", "num_samples=100", f"seeds={seeds}"]
            ganrun("evaluate", *words, cwd=runs)
        done = ganrun("rank", "of=[ranked/1,ranked/2]", "by=sliced-wasserstein", cwd=runs)
        assert "±" in done.stdout and "100 fake" in done.stdout
        done = ganrun("rank", "of=[ranked/1,ranked/2]", "by=sliced-wasserstein", "source=final", cwd=runs)
        assert "64 fake" in done.stdout

    def test_an_evaluation_counts_for_the_generator_that_it_was_of(self, runs):
        shutil.copytree(runs / "ranked" / "1", runs / "gone-on")
        words = ["metric=[sliced-wasserstein]", "num_samples=90"]
        ganrun("evaluate", "from=gone-on", *words, cwd=runs)
        ganrun("evaluate", "from=gone-on/best.safetensors", *words, cwd=runs)
        assert "90 fake" in ganrun("rank", "of=gone-on", "by=sliced-wasserstein", cwd=runs).stdout
        ganrun("resume=gone-on", "steps=3", cwd=runs)
        assert "64 fake" in ganrun("rank", "of=gone-on", "by=sliced-wasserstein", cwd=runs).stdout
        done = ganrun("rank", "of=gone-on", "by=sliced-wasserstein", "source=evaluation-best", cwd=runs)
        assert "90 fake" in done.stdout and "`ganrun evaluate` of best.safetensors" in done.stdout
        done = ganrun("rank", "of=[gone-on,gone-on/../gone-on]", "by=sliced-wasserstein", cwd=runs)
        assert done.stdout.count("gone-on") == 1

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("of=ranked by=nonsense", "by=nonsense: ranked/1 has no such score"),
            ("of=nothing by=fid", "of=nothing: no run there"),
            ("by=fid", "of must be given"),
            ("of=ranked by=fid source=x", "source=x"),
            ("of=[] by=fid", "of=[]: it names no run"),
        ],
    )
    def test_mistakes_are_one_line(self, runs, words, said):
        done = ganrun("rank", *words.split(), cwd=runs, check=2)
        assert said in done.stderr and done.stderr.count("\n") == 1


def test_generators_are_scored_as_the_images_that_a_user_gets(place):
    """The folder that `ganrun sample` writes scores as the generator itself."""
    ganrun("sample", "from=run", "num=200", "seed=5", "out=samples", cwd=place)
    words = [
        "evaluate",
        "metric=[fid,sliced-wasserstein]",
        "metric/features=none",
        "num_samples=200",
        "out=same.json",
        "overwrite=true",
    ]
    ganrun(*words, "from=run", "seed=5", cwd=place)
    direct = {one["metric"]: one["mean"] for one in json.loads((place / "same.json").read_text())}
    ganrun(*words, "from=images", "path=samples", "dataset=digits", cwd=place)
    from_files = {one["metric"]: one["mean"] for one in json.loads((place / "same.json").read_text())}
    assert direct == pytest.approx(from_files, rel=1e-6)
    assert torch.is_grad_enabled()


def test_a_classifier_is_trained_on_training_data_whichever_split_is_scored(place):
    words = [
        "evaluate",
        "from=ring",
        "metric=[fid]",
        "metric/features=classifier",
        "num_samples=100",
        "out=split.json",
        "overwrite=true",
    ]
    weights = set()
    for split in ("train", "test"):
        ganrun(*words, f"split={split}", cwd=place)
        (found,) = json.loads((place / "split.json").read_text())
        assert found["protocol"]["split"] == {"train": "training data", "test": "test data"}[split]
        weights.add(found["protocol"]["weights"])
    assert len(weights) == 1
