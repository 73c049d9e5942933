"""Refusals in the user's words: the key in full, what is true, and commands that can be pasted."""

import shlex

import pytest
from conftest import ganrun
from omegaconf import OmegaConf
from test_configs import composed

from ganrun.commands.rank.ranking import row_of
from ganrun.commands.sample.request import check_device
from ganrun.config.groups import bringers
from ganrun.config.hydra_main import refuse_flags
from ganrun.config.typed import check_parent, check_type
from ganrun.errors import CannotWrite, UserError
from ganrun.files.run_dir import RunDir
from ganrun.training.build import build
from ganrun.training.nodes import open_data
from ganrun.training.refusing import known_as, refusing, told
from ganrun.training.resume import Asked
from ganrun.training.trainer import chosen_settings

SMALL = ["generator.width=8", "discriminator.width=8", "dataset.limit=64", "metric=[]"]


@pytest.mark.parametrize(
    ("key", "reason", "line"),
    [
        ("penalty.r1", "weight=-1; expected more than 0", "penalty.r1.weight=-1; expected more than 0"),
        ("ema", "ema.std=1 ema.gamma=2; expected one", "ema.std=1 ema.gamma=2; expected one"),
        ("penalty.cr", "penalty: consistency is of images", "penalty: consistency is of images"),
        ("generator", "dataset.resolution=9: no network", "dataset.resolution=9: no network"),
        ("generator", "mlp is for points", "generator: mlp is for points"),
        ("path", "dataset.path=x: no such folder", "dataset.path=x: no such folder"),
    ],
)
def test_a_reason_with_its_key(key, reason, line):
    assert told(key, reason) == line


def test_the_key_of_what_a_recipe_refers_to():
    root = OmegaConf.create({"penalty": {"r1": {"weight": 1}}, "recipe": {"adversary": {"penalties": "${penalty}"}}})
    assert known_as("recipe.adversary.penalties.r1", root) == "penalty.r1"
    assert known_as("metric.fid.features.weights", None) == "metric.features.weights"
    root.recipe.generator = {"own": 1}  # of a user's recipe, with a network of its own
    assert known_as("recipe.generator.own", root) == "recipe.generator.own"


def test_outer_parts_leave_the_line_of_an_inner_one_alone():
    def fail():
        raise UserError("lr=-1; expected more than 0")

    with pytest.raises(UserError, match=r"^optimizer\.generator\.lr=-1; expected"):
        refusing("recipe", refusing("optimizer.generator", fail))()


BUILT = {
    "penalty=[r1] penalty.r1.weight=-1": "penalty.r1.weight=-1; expected more than 0",
    "augment=[ada] augment.ada.p=2": "augment.ada.p=2; expected 0 to 1",
    "conditional=auxiliary conditional.terms.auxiliary.weight=-1": "conditional.terms.auxiliary.weight=-1; ",
    "head=[minibatch] head.minibatch.kernels=0": "head.minibatch.kernels=0; expected at least 1",
    "loss=hinge loss.margin=-1": "loss.margin=-1; ",
    "ema.decay=2": "ema.decay=2; ",
    "optimizer.generator.lr=-1": "optimizer.generator.lr=-1; ",
    "schedule.discriminator=0": "schedule.discriminator=0; expected at least 1",
    "term=[historical-averaging] term.historical-averaging.players=[x]": "term.historical-averaging.players=[x]: ",
}


@pytest.mark.parametrize("line", BUILT)
def test_what_is_built_names_the_key_as_it_is_typed(line):
    with pytest.raises(UserError) as refused:
        build(composed(*SMALL, *line.split())[0])
    assert str(refused.value).startswith(BUILT[line])


CHECKED = {
    "head=[minibatch] recipe=fastgan": "head=[minibatch]: the discriminator of recipe=fastgan takes none; leave it out",
    "conditional=semi-supervised labelled=abc": "labelled=abc; expected an integer",
    "augment=[diffaugment] augment.diffaugment.policy=color": "augment.diffaugment.policy=color; expected a list of "
    "texts, as augment.diffaugment.policy=[color]",
}


@pytest.mark.parametrize("line", CHECKED)
def test_what_is_checked_names_the_key_as_it_is_typed(line):
    with pytest.raises(UserError) as refused:
        composed(*SMALL, *line.split())
    assert str(refused.value) == CHECKED[line]


def test_a_key_that_only_some_options_bring_is_told_with_them(tmp_path):
    assert bringers("labelled") == ["conditional=semi-supervised"] and bringers("nope") == []
    line = ganrun("labelled=10", "run_dir=run", cwd=tmp_path, check=2).stderr
    assert line == "ganrun: labelled: it comes with conditional=semi-supervised; nothing reads it here\n"


def test_what_pairs_makes_of_a_set_changes_nothing_in_the_sets_own_config():
    """Else a run between two classes could not be resumed or scored: its data set would promise no classes."""
    words = "model=cyclegan pairs=classes pairs.a=3 pairs.b=8 generator.blocks=1 discriminator.layers=1 batch_size=1"
    cfg = composed(*SMALL, *words.split())[0]
    cfg.dataset.num_classes = None  # as of a folder, in which they are found
    data = open_data(cfg)
    assert data.classes == [] and cfg.dataset.num_classes == 10
    assert open_data(cfg).identity == data.identity


def test_a_new_run_is_proposed_with_the_settings_of_the_old_one():
    asked = Asked("a b", ["batch_size=8"], False, ["dataset=mnist", "batch_size=16", "run_dir=a b", "resume=null"])
    line = str(asked.refusal(["batch_size: got 8, had 16"], needs_change=False)).rpartition("weights: ")[2]
    assert shlex.split(line) == ["ganrun", "dataset=mnist", "init_from='a b'", "batch_size=8"]


def test_a_digit_at_the_start_of_a_name_is_no_riddle():
    with pytest.raises(UserError) as refused:
        refuse_flags(["conditional=2c", "conditional.terms.2c.temperature=0.5"], sweeps=True)
    (word,) = shlex.split(str(refused.value).partition("; give ")[2])
    assert composed("conditional=2c", word)[0].conditional.terms["2c"].temperature == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"devices": "auto"}, "trainer.devices=auto: all devices that there are need trainer=ddp; without it expected"),
        ({"devices": 2}, "trainer.devices=2: several devices need trainer=ddp"),
        ({"accelerator": "cuda"}, "trainer.accelerator=cuda: torch can use none on this machine; expected auto or cpu"),
        ({"accelerator": "cp"}, "trainer.accelerator=cp; did you mean cpu?"),
    ],
)
def test_devices_that_are_not_there(words, said, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError) as refused:
        chosen_settings(OmegaConf.create({"trainer": {"accelerator": "cpu", "devices": 1} | words}))
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(("name", "near"), [("gpu", "cuda"), (0, "cuda:0"), ("1", "cuda:1")])
def test_a_device_has_a_nearest_name(name, near):
    with pytest.raises(UserError, match=rf"device={name}; did you mean {near}\? valid: auto, cpu"):
        check_device(name)


def test_one_value_for_a_list_says_how_to_write_it():
    with pytest.raises(UserError, match=r"layers=3; expected a list of integers or null, as layers=\[3\]"):
        check_type("layers", 3, list[int] | None)


def test_a_place_that_cannot_be_written_is_told_before_anything_is_computed(tmp_path):
    check_parent(tmp_path / "new.png")
    with pytest.raises(UserError, match="there is no folder"):
        check_parent(tmp_path / "gone" / "new.png")
    with pytest.raises(CannotWrite, match=r"out=/proc/x: cannot write in /proc: .*; out=<path> names another place"):
        check_parent(type(tmp_path)("/proc/x"))


def test_samples_as_they_are_drawn_are_ranked_before_chosen_ones(tmp_path):
    def entry(value, **protocol):
        of = {"from": "generator.safetensors", "steps": 1}
        return {"metric": "fid", "mean": value, "std": None, "values": [value], "better": "lower", "of": of} | {
            "protocol": protocol
        }

    chosen = [entry(3.0, sampler="drs"), entry(1.0, truncation=0.5)]
    found = [row_of({"evaluations": some}, RunDir(tmp_path), "fid", "evaluation") for some in (
        [entry(2.0), *chosen], [entry(9.0), entry(2.0), chosen[0]], chosen,
    )]  # fmt: skip
    assert [row.value for row in found] == [2.0, 2.0, 1.0]  # the newest; a chosen one only where there is no other
