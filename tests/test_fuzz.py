"""Command lines that nobody would think of: each composes, or is refused in one line and leaves nothing behind."""

import io
import os
import string
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock
from urllib.error import URLError

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, ListConfig, OmegaConf

from ganrun import cli
from ganrun.commands import train
from ganrun.config import groups as configs
from ganrun.config.check import MULTI_SELECT
from ganrun.config.hydra_main import parsed
from ganrun.config.places import quoted

SMALL = ["generator.width=8", "discriminator.width=8", "dataset.limit=64", "steps=1"]
CONTEXTS = [  # command lines that together show every leaf key
    [],
    ["dataset=ring", "model=mlp", "generator.depth=1", "loss=hinge"],
    ["dataset=grid", "model=mlp", "noise=uniform", "optimizer=adamw"],
    ["dataset=swiss-roll", "model=mlp", "optimizer=sgd", "loss=lsgan"],
    ["dataset=gaussian", "model=mlp", "ema=none", "schedule=generator-first"],
    ["penalty=[r1,gradient]", "augment=[instance-noise]", "term=[feature-matching]", "critic.norm=none"],
    ["loss=wgan", "conditional=label", "trainer=ddp", "trainer.accelerator=cpu"],
]
ABSURD = [
    "1000000000000000",
    "1000000000000000000000000000000",
    "9" * 5000,
]  # fail at once; never between sane and these
NUMBERS = [
    "0", "1", "2", "3", "-1", "0.5", "1e-3", "1.0", "nan", "inf", "-inf", "1e400", "1_0", "0x10", "007", *ABSURD,
]  # fmt: skip
WORDS = [
    "", "null", "None", "NULL", "true", "True", "false", "abc", "''", '""', "'a b'", "a b", " ", "???", "~", "cpu",
]  # fmt: skip
SENSIBLE = [
    "1", "2", "3", "0.5", "true", "false", "none", "batch", "layer", "linear", "8", "[0,1]", "[0.5,0.9]", "null",
]  # fmt: skip
NESTED = [
    "[]", "[1]", "[1,2]", "[16,16]", "[r1]", "[null]", "{}", "{a:1}", "{a:{b:[1]}}", "[[]]", "[", "{a:", "'", '"',
]  # fmt: skip
INTERPOLATIONS = [
    "${steps}", "${nope}", "${", "${}", "$", "${oc.env:HOME}", "${oc.env:NOPE_NOPE}", "${oc.env:NOPE_NOPE,3}",
    "${oc.decode:'3'}", "${oc.decode:'{'}", "${oc.decode:nan}", "${hydra:runtime.choices.loss}", "${hydra:nope}",
    "${now:%Y}", "${now:}", "${nope:1}", "${.width}", "${..steps}", "${generator}", "${oc.select:nope,1}",
    "${oc.create:{a:1}}", "${oc.dict.keys:generator}", "${oc.deprecated:steps}", "\\${steps}", "${generator.width}",
]  # fmt: skip
ODD = [
    "é", "日本", "a\nb", "a\tb", "a\rb", "\x00", "\x1b[31m", "\u2028", "\udc80", "\x7f", "🙂", "a" * 300, "a" * 5000,
]  # fmt: skip
SWEEPS = [
    "1,2", "1,", ",", "range(1,3)", "choice(1,2)", "glob(*)", "interval(0,1)", "sort(1,2)", "shuffle(1,2)", "[1],[2]",
]  # fmt: skip
CASTS = [
    "int(3)", "float(1)", "str(1)", "bool(1)", "json_str({})", "extend_list(1)", "int(a)", "tag(a,1)", "nope(1)",
]  # fmt: skip
VALUES = [*NUMBERS, *WORDS, *NESTED, *INTERPOLATIONS, *ODD, *CASTS]
PATHS = [
    "", "/", ".", "..", "taken", "taken/x", "/dev/null", "/dev/null/x", "/proc/x", "a" * 300, "a/" * 100, "new",
    "new/deep", "~/\x00", "\x00", "a b", "'", "-x", "${nope}", "\udc80", "é", "new.ckpt", "null", "~nope/x",
]  # fmt: skip
TARGETS = [
    "", "nope", "ganrun.losses.Nope", "ganrun.losses.Hinge", "torch.nn.Identity", "builtins.int", "math.pi", "os",
    ".", "..a", "ganrun", "null", "3", "[1]", "ganrun.networks.mlp.Generator", "builtins.dict",
]  # fmt: skip
HYDRA = [
    "hydra.run.dir=x", "++hydra.run.dir=x", "hydra.run={dir: x}", "hydra={}", "~hydra", "hydra.output_subdir=.hydra",
    "hydra.mode=MULTIRUN", "hydra.mode=RUN", "hydra.mode=nope", "hydra.verbose=true", "hydra.job.chdir=true",
    "hydra.job.name=x", "hydra.job.num=3", "hydra/launcher=nope", "hydra/launcher=basic", "hydra/sweeper=nope",
    "hydra/sweeper=basic", "hydra/job_logging=default", "hydra/hydra_logging=default", "hydra.sweep.dir=x",
    "hydra.sweep.subdir=x", "hydra.sweeper.max_batch_size=1", "hydra.sweeper.params={seed: '1,2'}",
    "hydra.searchpath=[file:///nope]", "hydra.searchpath=3", "hydra.nope=1", "+hydra.nope=1", "hydra/output=default",
    "hydra.runtime.choices.loss=x", "hydra.runtime.output_dir=x", "+hydra.callbacks.x={_target_: nope}",
    "hydra=default", "hydra.job_logging.x=1", "hydra.help.template=x", "hydra/help=default",
    "hydra.launcher._target_=nope", "hydra/=x", "+hydra.job.env_set.A=1", "hydra.overrides.task=[]", "~hydra.run",
    "~hydra/launcher", "hydra@x=default",
]  # fmt: skip
FLAGS = [
    "-m", "--multirun", "--cfg", "--cfg job", "--cfg hydra", "--cfg nope", "-c", "-c job", "--resolve", "-p",
    "-p loss", "--cfg job -p nope", "--cfg job --resolve", "--info", "--info all", "--info nope", "-i",
    "--hydra-help", "--help", "-h", "--version", "--config-name x", "--config-path x", "-cn x", "-cp x",
    "--config-dir", "--config-dir nope", "--config-dir=nope", "-cd .", "--package", "-sc", "-sc query=bash",
    "-sc install=nope", "--shell-completion", "-r", "--run -m", "--experimental-rerun", "--experimental-rerun x",
    "--", "-", "-1", "--foo", "-m=1", "--multi", "-mr", "--cfg=job", "--run", "-cd", "--config-dir taken", "train",
    "nope", "trian",
]  # fmt: skip
OWN_KEYS = ["_target_", "_partial_", "_args_", "_recursive_", "_convert_", "foo", "0", "", "__class__", "a b", "_x"]
PREFIXES = ["", "+", "++", "~", "+++", "~~", "+~", "-", " "]


@cache
def leaves() -> list[tuple[tuple[str, ...], str, str]]:
    """(a command line, a key that it composes, the key's value)"""
    found = {}
    with initialize_config_dir(str(configs.config_dir()), version_base="1.3"):
        for context in CONTEXTS:
            cfg = compose("train", context)
            for key, value in _flat(OmegaConf.to_container(cfg, resolve=False)):
                found.setdefault(key, (tuple(context), key, value))
    return list(found.values())


def _flat(node: dict, prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            pairs += [(path, "{}"), *_flat(value, f"{path}.")]
        else:
            pairs.append((path, "null" if value is None else str(value).replace(" ", "")))
    return pairs


@cache
def choices() -> list[str]:
    """Every group=option."""
    nested = [f"optimizer/{player}" for player in ("generator", "discriminator")]
    lines = [f"{group}={option}" for group in [*configs.groups(), *nested] for option in configs.options(group)]
    return [*lines, *(f"{group}=[{option}]" for group in MULTI_SELECT for option in configs.options(group))]


@st.composite
def leaf_lines(draw: st.DrawFn) -> list[str]:
    """A key of some experiment with its own value or another."""
    context, key, own = draw(st.sampled_from(leaves()))
    if draw(st.integers(0, 9)) == 0:
        key = f"{key}.{draw(st.sampled_from(OWN_KEYS))}"
    value = draw(st.one_of(st.just(own), st.sampled_from(VALUES), st.sampled_from(SENSIBLE)))
    if "_target_" in key or key.endswith("optimizer"):
        value = draw(st.sampled_from(TARGETS))
    prefix = draw(st.sampled_from([*[""] * 12, *PREFIXES]))
    line = f"{prefix}{key}" if prefix == "~" and draw(st.booleans()) else f"{prefix}{key}={value}"
    return [*context, line]


def sane_lines() -> st.SearchStrategy[list[str]]:
    """What should compose: a key's own value, an option that needs no download."""
    kept = st.sampled_from(leaves()).map(lambda leaf: [*leaf[0], f"{leaf[1]}={leaf[2]}"])
    here = [choice for choice in choices() if not choice.startswith(("dataset=", "experiment=m", "experiment=d"))]
    return st.one_of(kept, st.sampled_from([[choice] for choice in here]))


def path_lines() -> st.SearchStrategy[list[str]]:
    keys = st.sampled_from(["run_dir", "++run_dir", "resume", "++resume", "init_from", "data_dir", "dataset.path"])
    return st.builds(lambda key, path: [f"{key}={path}"], keys, st.sampled_from(PATHS))


def sweep_lines() -> st.SearchStrategy[list[str]]:
    keys = st.sampled_from(["seed", "optimizer.lr", "loss", "penalty", "generator.width", "run_dir", "trainer.devices"])
    flags = st.sampled_from([[], ["-m"]])
    return st.builds(lambda flag, key, values: [*flag, f"{key}={values}"], flags, keys, st.sampled_from(SWEEPS))


def groups_lines() -> st.SearchStrategy[list[str]]:
    odd = st.builds(
        lambda prefix, group, value: [f"{prefix}{group}={value}"],
        st.sampled_from(PREFIXES),
        st.sampled_from(
            [*configs.groups(), "optimizer/generator", "dataset/base", "optimizer@x", "loss@y:z", "nope/x"]
        ),
        st.sampled_from(
            ["adam", "none", "ring", *NESTED, *WORDS, "${loss}", "base", "../train", "train", "/loss/wgan"]
        ),
    )
    valid = st.sampled_from([[choice] for choice in choices()])
    return st.one_of(valid, valid, odd)


MARKS = "=+~'\"[]{}(),.:$@/\\-_% \n\t\x00éaZ*?#!"


@st.composite
def mutated(draw: st.DrawFn) -> list[str]:
    """A valid line with one or two characters dropped, doubled, swapped, changed in case or put in.

    Digits stay as they are: a size must not grow to one that a machine could just hold.
    """
    line = draw(st.one_of(st.sampled_from(choices()), leaf_lines().map(lambda lines: lines[-1])))
    for _ in range(draw(st.integers(1, 2))):
        places = [i for i, character in enumerate(line) if character not in string.digits]
        if not places:
            break
        i = draw(st.sampled_from(places))
        edits = [line[:i] + line[i + 1 :], line[:i] + line[i] + line[i:], line[:i] + line[i].swapcase() + line[i + 1 :],
                 line[:i] + line[i + 1 : i + 2] + line[i] + line[i + 2 :]]  # fmt: skip
        line = draw(
            st.one_of(st.sampled_from(edits), st.sampled_from(MARKS).map(lambda c, i=i, s=line: s[:i] + c + s[i:]))
        )
    return [line]


def _flag_lines() -> st.SearchStrategy[list[str]]:
    return st.sampled_from([flag.split(" ") for flag in FLAGS])


def pieces() -> st.SearchStrategy[list[str]]:
    hydra = st.sampled_from([[line] for line in HYDRA])
    free = st.text(max_size=12).filter(lambda text: not set(text) & set(string.digits)).map(lambda text: [text])
    return st.one_of(
        sane_lines(), sane_lines(), sane_lines(), leaf_lines(), leaf_lines(), leaf_lines(), mutated(), mutated(),
        groups_lines(), groups_lines(), path_lines(), sweep_lines(), hydra, _flag_lines(), free,
    )  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """One to three pieces, among overrides that keep the run small; those that come last win."""
    number = draw(st.sampled_from([1, 1, 2, 3]))
    words = [word for piece in draw(st.lists(pieces(), min_size=number, max_size=number)) for word in piece]
    words = [word for word in words if word.lower() != "debug=true"]  # it asks for a traceback
    return [*words, *SMALL] if draw(st.integers(0, 7)) == 0 else [*SMALL, *words]


@dataclass
class Outcome:
    """What a command line came to."""

    code: int
    out: str
    err: str
    left: set[str]  # files and folders that were not there before
    runs: list[DictConfig] = field(default_factory=list)  # configs of the runs that would have trained
    choices: dict[str, str] = field(default_factory=dict)


def offline(*_, **__):
    raise URLError("no network in this test")


@contextmanager
def _apart(folder: Path, home: Path):
    """In that working directory, with nothing of a command's effect on the process left afterwards."""
    before, path = Path.cwd(), [*sys.path]
    variables = {"GANRUN_DATA": str(folder / "data"), "HOME": str(home)}
    with mock.patch.dict(os.environ, variables), mock.patch("urllib.request.urlopen", offline):
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
            sys.path[:] = path


def run_line(words: list[str]) -> Outcome:
    """Everything but the training itself is real."""
    outcome = Outcome(0, "", "", set())

    def record(parts, run, notes):
        outcome.runs.append(parts.cfg.copy())
        outcome.choices = dict(HydraConfig.get().runtime.choices)
        run.write_result({"status": "finished"})
        return {"status": "finished"}

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # strict, as a terminal is
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", newline="")
    with TemporaryDirectory() as box, TemporaryDirectory() as home:
        folder = Path(box) / "cwd"
        folder.mkdir()
        (folder / "taken").write_text("a file")
        before = set(Path(box).rglob("*"))
        with (
            _apart(folder, Path(home)),
            redirect_stdout(out),
            redirect_stderr(err),
            mock.patch.object(train, "_train", record),
        ):
            try:
                outcome.code = cli.run(words)
            except SystemExit as exit:
                outcome.code = exit.code or 0
        outcome.left = {str(path.relative_to(box)) for path in set(Path(box).rglob("*")) - before}
    for stream in (out, err):
        stream.flush()
    outcome.out, outcome.err = (stream.buffer.getvalue().decode() for stream in (out, err))
    return outcome


def check_line(words: list[str]) -> None:
    """The property: composed with every key in place, or refused in one line with nothing left behind."""
    outcome = run_line(words)
    told = f"ganrun {words!r}: exit {outcome.code}\n--- stdout\n{outcome.out}\n--- stderr\n{outcome.err}\n---"
    assert "Traceback" not in outcome.out + outcome.err, told
    if {"-m", "--multirun"} & set(words) and outcome.code == 1:  # jobs that failed, each told in the table
        assert "failed: " in outcome.err, told
        return
    assert outcome.code in (0, 2), told
    if outcome.code == 2:
        assert outcome.err.startswith("ganrun: ") and outcome.err.endswith("\n"), told
        assert len(outcome.err.splitlines()) == 1, told
        assert not outcome.left, f"{told} left {outcome.left}"
    elif not outcome.runs:
        assert any(word.startswith("-") for word in words), f"{told} nothing happened"
        assert not outcome.left, f"{told} left {outcome.left}"
    elif not {"-m", "--multirun"} & set(words):
        check_kept(words, outcome, told)


def check_kept(words: list[str], outcome: Outcome, told: str) -> None:
    """Each key has the value that was given last, and what was to be deleted is gone."""
    overrides = [OverridesParser.create().parse_override(word) for word in parsed(cli.pick(quoted(words))[1]).overrides]
    (cfg,) = outcome.runs
    for i, override in enumerate(overrides):
        if any(_touches(later, override) for later in overrides[i + 1 :]):
            continue
        assert _kept(override, cfg, outcome.choices), f"{told} {override.input_line} was ignored"


def _touches(later: Override, earlier: Override) -> bool:
    """May the later one change what the earlier one set?"""
    a, b = (f"{override.key_or_group.replace('/', '.')}." for override in (later, earlier))
    return a.startswith(b) or b.startswith(a)


def _kept(override: Override, cfg: DictConfig, chosen: dict[str, str]) -> bool:
    key = override.key_or_group
    if key.split(".")[0].split("/")[0] == "hydra":
        return True  # its effect is Hydra's own matter
    groups = [*configs.groups(), "optimizer/generator", "optimizer/discriminator"]
    if key in groups and not isinstance(override.value(), dict):
        return _chosen(override, cfg, chosen)
    found = OmegaConf.select(cfg, key)
    if override.is_delete():
        return found is None
    return _same(override.value(), found, key)


def _chosen(override: Override, cfg: DictConfig, chosen: dict[str, str]) -> bool:
    group, value = override.key_or_group, override.value()
    if override.is_delete():
        return chosen.get(group) is None
    if group in MULTI_SELECT:
        names = [name for name in cfg[group] if name != "features"]
        return names == (value if isinstance(value, list) else [value])
    return chosen.get(group) == value


PLACES = ("run_dir", "data_dir", "init_from", "dataset.path")


def _same(given, found, key: str) -> bool:
    """A node takes over the keys that it is given; places become absolute; interpolations resolve."""
    if isinstance(given, str) and ("${" in given or key in PLACES):
        return True
    if isinstance(given, dict):
        return isinstance(found, DictConfig) and all(_same(v, found.get(k), f"{key}.{k}") for k, v in given.items())
    if isinstance(given, list):
        return (
            isinstance(found, ListConfig)
            and len(given) == len(found)
            and all(map(_same, given, found, [key] * len(given)))
        )
    text = str(given) if type(given).__name__ == "QuotedString" else given
    return found == getattr(text, "text", text) or str(found) == str(getattr(text, "text", text))


FOUND = """\
++resume=x
++term={a:{b:[1]}}
+dataset=[]
+dataset=[1,2]
++optimizer.generator.optimizer.0=1
++discriminator._partial_=true
term.feature-matching._target_=3 term=[feature-matching]
metric.sliced-wasserstein._target_=nope
metric.sliced-wasserstein.num_projections=0
recipe._target_=torch.nn.Identity
~recipe._target_
~noise._target_
~discriminator=''
loss.discriminator_factor=nan
generator.slope=inf
++optimizer.discriminator.momentum=nan
generator.base_blocks=1000000000000000
model=mlp generator.depth=1000000000000000
schedule.discriminator=1000000000000000
batch_size=1000000000000000
num_samples=1000000000000000000000000000000
hydra.output_subdir=.hydra
++hydra.run.dir=x
hydra.mode=MULTIRUN
hydra/job_logging=default
hydra.verbose=true
--cfg nope
--cfg job -p nope
-p
-p loss
--run -m
-m optimizer.lr=glob(*)
-m seed=interval(0,1)
loss=hinge -m seed=1,2 optimizer.lr=1e-3
steps=2 --cfg job loss=hinge
data_dir=~nope/x
init_from=~nope/x
run_dir=~nope/x""".splitlines()  # what random lines, such as those below, once got wrong

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@settings(max_examples=70, derandomize=True, deadline=None, database=None, suppress_health_check=QUIET,
          phases=[Phase.explicit, Phase.generate])  # fmt: skip
@given(command_lines())
def test_any_command_line_composes_or_is_refused_in_one_line(words):
    check_line(words)


@pytest.mark.parametrize("line", FOUND)
def test_what_once_went_wrong(line):
    check_line([*SMALL, *line.split(" ")])


@pytest.mark.parametrize("word", [f"init_from={'a' * 300}", "run_dir='\udc80'"])
def test_place_that_no_file_can_have(word):
    check_line([*SMALL, word])


@pytest.mark.soak
@settings(max_examples=500, deadline=None, database=None, suppress_health_check=QUIET)
@given(command_lines())
def test_many_more_command_lines(words):
    check_line(words)
