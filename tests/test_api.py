"""From Python: overrides to the letter, the command line's bits, one class of errors, and a process left as it was."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, ganrun, own_loss
from forked import run as run_forked
from hydra.core.override_parser.overrides_parser import OverridesParser
from test_runs import assert_same_state

import ganrun as package
from ganrun.api.calls import turn
from ganrun.api.run import Run
from ganrun.api.words import override, words_of
from ganrun.config.places import quoted
from ganrun.errors import UserError

SHORT = [*TINY, "steps=4", "log_every=2", "sample_every=2", "dataset.limit=64"]
VALUES = [None, True, False, 3, -7, 1e-4, 1e-05, 2.5, float("inf"), [0.0, 0.9], ["r1", "r2"], [], {}, "wgan-gp", "a,b"]
VALUES += ["null", "NULL", "true", "nan", "12", "1e3", "003", "", " a ", "it's", 'say "x"', "back\\", "\\'", "[a]", "~"]
VALUES += ["{a:1}", "a=b", "a:b", "ä ö", "(x)", "two\nlines"]
VALUES += [{"start": 10, "over": {"_target_": "x.Y", "to": [1, None]}}]
STATE = """
import logging, os, random, signal, sys, threading, warnings
import numpy, pytorch_lightning, torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.utilities import rank_zero_only
import ganrun

def state():
    loggers = [logging.root, *filter(lambda one: hasattr(one, "level"), logging.root.manager.loggerDict.values())]
    cudnn = torch.backends.cudnn
    return {
        "environ": dict(os.environ), "cwd": os.getcwd(), "path": sys.path[:], "argv": sys.argv[:],
        "filters": warnings.filters[:], "show": warnings.showwarning, "hooks": (threading.excepthook, sys.excepthook),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "loggers": {id(one): (one.level, one.handlers[:], one.propagate) for one in loggers},
        "hydra": (GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
        "random": (random.getstate(), repr(numpy.random.get_state()), torch.get_rng_state().tolist()),
        "rank": rank_zero_only.rank, "threads": (torch.get_num_threads(), threading.active_count()),
        "torch": (torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.is_grad_enabled(),
                  torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.allow_tf32),
        "default device": torch.get_default_device(),
    }

def assert_same(before, after):
    after["loggers"] = {key: after["loggers"][key] for key in before["loggers"]}  # imports make new ones
    assert not [key for key in before if before[key] != after[key]], [
        (key, before[key], after[key]) for key in before if before[key] != after[key]]
"""
FAILS = """
import os, signal, time
from ganrun.losses import AdversarialLoss

class Fails(AdversarialLoss):
    def __init__(self, how: str):
        super().__init__()
        self.how, self.calls = how, 0

    def discriminator(self, real, fake):
        self.calls += 1  # once before the first step
        if self.calls == 4 and self.how == "error":
            raise RuntimeError("two\\nlines")
        if self.calls == 4 and self.how == "nan":
            return (real / 0 - fake / 0).mean()
        if self.calls == 4 and self.how.startswith("ctrl-c"):
            os.kill(os.getpid(), signal.SIGINT)
        return (fake - real).mean()

    def generator(self, real, fake):
        if self.calls == 4 and self.how == "ctrl-c twice":
            time.sleep(0.6)
            os.kill(os.getpid(), signal.SIGINT)
        return -fake.mean()
"""


def script(folder: Path, code: str, **settings):
    (folder / "script.py").write_text(STATE + code)
    return run_forked(cwd=folder, script=folder / "script.py", **settings)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_arrives_as_it_is(value):
    word = override("key", value)
    got = OverridesParser.create().parse_override(quoted([word])[0])
    assert not got.is_sweep_override()
    assert plain(got.value()) == value and type(plain(got.value())) is type(value)
    if isinstance(value, str):  # where paths are taken literally anyway
        got = OverridesParser.create().parse_override(quoted([override("data_dir", value)])[0])
        assert plain(got.value()) == value


def plain(value):
    return value.text if hasattr(value, "quote") else value


def test_paths_references_and_numbers_of_numpy():
    assert override("data_dir", Path("/a b/${c}")) == r"data_dir='/a b/\${c}'"
    assert override("steps", "${batch_size}") == "steps='${batch_size}'"
    assert override("optimizer.betas", np.array([0, 0.5])) == "optimizer.betas=[0.0,0.5]"
    assert override("seed", np.int64(3)) == "seed=3"


def test_names_of_keys():
    assert override("optimizer__lr", 1) == override("optimizer.lr", 1) == "optimizer.lr=1"
    assert override("penalty__r1___target_", "x.Y") == "penalty.r1._target_=x.Y"
    assert words_of("train", (), {"optimizer/discriminator": "rmsprop", "penalty": None}, None) == [
        "optimizer/discriminator=rmsprop", "penalty=[]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "keys", "said"),
    [
        (["--cfg", "job"], {}, "flags are for the command line"),
        (["hinge"], {}, "hinge: expected key=value"),
        ([{"loss": "hinge"}], {}, "expected text"),
        (["seed = 3"], {}, "seed=3"),
        ([], {"seed": object()}, "seed: got a object; expected None, True"),
        ([], {"a b": 1}, "it cannot be a key"),
        ([], {"x": {1: 2}}, "1 cannot be a key of a dict"),
    ],
)
def test_mistakes_in_words(words, keys, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        words_of("train", words, keys, None)


def test_a_call_within_a_call_is_refused():
    with turn(), pytest.raises(UserError, match="within another one"), turn():
        pass
    with turn():
        pass


def test_import_is_cheap_and_help_is_useful():
    code = (
        "import sys, ganrun\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'rich', 'numpy', 'pandas', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "ganrun.Run, ganrun.train, ganrun.Error\n"
        "assert not heavy & set(sys.modules) - {'numpy'}, heavy & set(sys.modules)\n"
        "assert set(ganrun.__all__) <= set(dir(ganrun))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    for name in package.__all__:
        assert name == "__version__" or getattr(package, name).__doc__


def test_same_bits_as_the_command_line_and_nothing_left_behind(tmp_path):
    """Twice in a process with settings of its own, once more in threads, then resumed."""
    words = [*SHORT, "augment=[ada]", "augment.ada.over=500", "dataset.flip=true"]
    ganrun(*words, "run_dir=cli", cwd=tmp_path)
    code = f"""
words = {words}
torch.set_default_dtype(torch.float64)
torch.use_deterministic_algorithms(True)
torch.set_grad_enabled(False)
torch.manual_seed(7)
before = state()
for name in ("one", "two"):
    run = ganrun.train(*words, run_dir=name)
    assert_same(before, state())
    assert run.status == "finished" and run.path.name == name and run.steps == 4
threads = [threading.Thread(target=ganrun.train, args=words, kwargs={{"run_dir": name}}) for name in ("three", "four")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert_same(before, state())
assert run.resume(steps=6) == run and run.steps == 6
config = ganrun.compose(*words, run_dir="nowhere")
assert config.augment.ada.over == 500 and not os.path.exists("nowhere")
(score,) = run.evaluate(metric=["sliced-wasserstein"], num_samples=64)
assert score.mean > 0 and len(run.result["evaluations"]) == 1
assert_same(before, state())
assert [one.path.name for one in ganrun.runs(".")[-4:-2]] == ["one", "two"]
"""
    script(tmp_path, code)
    for name in ("one", "three", "four"):
        assert_same_state(tmp_path / "cli", tmp_path / name)


def test_what_another_thread_sets_while_it_is_at_work_does_not_stay(monkeypatch):
    """The second call waits for its turn meanwhile."""
    waiting = threading.Thread(target=package.compose, args=["seed=1"])
    with turn():
        monkeypatch.setenv("GANRUN_AT_WORK", "1")
        waiting.start()
        time.sleep(0.2)
        monkeypatch.delenv("GANRUN_AT_WORK")
    waiting.join()
    assert "GANRUN_AT_WORK" not in os.environ


def test_failures_have_one_class_and_their_run(tmp_path):
    own_loss(tmp_path, FAILS, how="error")
    code = f"""
settings = dict(config_dir="my", loss="own", checkpoint__every=2)
words = {SHORT}

def fails(kind, how, name):
    try:
        ganrun.train(*words, loss__how=how, run_dir=name, **settings)
    except kind as error:
        return error
    raise AssertionError("no error")

before = state()
error = fails(ganrun.Error, "error", "error")
assert str(error) == "RuntimeError: two lines; go on from step 2 with: ganrun resume=error", error
assert error.run.status == "failed" and isinstance(error.__cause__, RuntimeError)
error = fails(ganrun.Error, "nan", "nan")
assert "\\n" not in str(error) and "nan" in str(error).lower() and error.run == ganrun.Run("nan")
error = fails(ganrun.UserError, "x", "error")
assert "exists and is not empty" in str(error) and error.run is None
error = fails(KeyboardInterrupt, "ctrl-c", "stopped")
assert isinstance(error, ganrun.Interrupted) and "ganrun.Run('stopped').resume()" in str(error)
assert error.run.status == "stopped by SIGINT" and error.run.steps == 3
error = fails(KeyboardInterrupt, "ctrl-c twice", "twice")
assert not isinstance(error, ganrun.Interrupted)
for kind, call in [
    (ganrun.UserError, lambda: ganrun.train(loss="wgann")),
    (ganrun.UserError, lambda: ganrun.compose(steps=None)),
    (ganrun.UserError, lambda: ganrun.Run("nothing")),
    (ganrun.UserError, lambda: ganrun.runs("my")),
    (ganrun.UserError, lambda: ganrun.train("seed=1,2")),
    (ganrun.UserError, lambda: ganrun.Run("stopped").grid(step=1)),
    (ganrun.UserError, lambda: ganrun.Run("stopped").generator(at=1)),
]:
    try:
        call()
    except kind as error:
        assert "\\n" not in str(error), error
    else:
        raise AssertionError(call)
assert_same(before, state())
"""
    script(tmp_path, code)


def test_a_run_shows_what_it_has(tmp_path):
    path = tmp_path / "läuft <b>"
    ganrun(*SHORT, "checkpoint.every=2", f"run_dir={path}", cwd=tmp_path)
    run = Run(path)
    assert run.config.dataset.limit == 64 and "dataset.limit=64" in run.overrides and run.scores.keys()
    table = run.metrics()
    assert list(table.index) == [2, 4] and table["generator/adversarial"].notna().all()
    assert [row["step"] for row in run.rows()] == [2, 4]
    assert run.grid().size == run.grid(2).size
    assert run.sample(3, seed=1).shape == (3, 1, 16, 16)
    assert (
        (run.sample(2, at=4) == run.sample(2)).all()
        and (run.sample(2, at=2) != run.sample(2)).any()
        and run.generator("best").trained["steps"] == 4
    )
    page = run._repr_html_()
    assert "l\u00e4uft &lt;b&gt;" in page and "data:image/png;base64," in page and "is better" in page
    assert repr(run).startswith(f"<Run {path}: finished, 4 steps, sliced-wasserstein ")
    for file in (*path.glob("samples/*"), path / "result.json", path / "metrics.jsonl"):
        file.unlink()
    assert (run.status, run.scores, run.steps, run.rows()) == ("no result", {}, 0, [])
    assert "img" not in run._repr_html_() and len(run.metrics()) == 0
    with pytest.raises(UserError, match="no picture of samples yet"):
        run.grid()


def test_a_run_explains_itself():
    kinds = [finding.kind for finding in Run(Path(__file__).parent / "recorded" / "not-finite").explain()]
    assert "not-finite" in kinds and "improving" not in kinds


def test_a_sweep_returns_its_runs(tmp_path):
    code = f"""
before = state()
runs = ganrun.sweep(*{SHORT}, "loss=hinge,wgan", metric=[], run_dir="both")
assert [run.status for run in runs] == ["finished"] * 2 and {{run.config.loss._target_ for run in runs}} == {{
    "ganrun.losses.Hinge", "ganrun.losses.Wasserstein"}}
assert ganrun.sweep(resume="both") == runs
assert_same(before, state())
"""
    script(tmp_path, code)
