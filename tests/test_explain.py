"""`ganrun explain`: each rule on curves just above and below its threshold, recorded runs, every proposed command."""

import json
import math
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT, ganrun
from courses import CONFIG, LOOK, PLAYER, kinds, rows, told, write_run

from ganrun import cli
from ganrun.config.check import check
from ganrun.config.hydra_main import composed
from ganrun.explaining.chance import LOG_2
from ganrun.explaining.finding import ALARMS
from ganrun.explaining.findings import findings, proposal
from ganrun.files.record import Record
from ganrun.files.run_dir import may_change
from ganrun.training.changes import WHEN_ASKED


@pytest.fixture
def explained(tmp_path):
    """The findings by kind of a run with these series, result and settings."""

    def explain(num=20, every=50, result=None, words=None, config=None, **series):
        return told(write_run(tmp_path / "run", rows(num, every, **series), result, words, **(config or {})))

    return explain


def test_a_healthy_run_raises_no_alarm(explained):
    found = explained()
    assert set(found) == {"finished", "improving", "best", "diverse", "balanced", "noise"}
    assert found["improving"].command.endswith("steps=1500") and "p < 0.001" in found["improving"].text


# the score


def zigzag(level, slope, noise):
    """Scores that are learned in three rows, and go on from there."""
    return lambda i: 2 * level if i < 3 else level + slope * i + noise * (-1) ** i


@pytest.mark.parametrize(
    ("series", "kind"),
    [
        (zigzag(1, -0.02, 0), "improving"),
        (zigzag(1, -0.0005, 0), "flat"),  # 0.35 % over the window: below BETTER
        (zigzag(1, -0.002, 0.05), "flat"),  # below its noise
        (zigzag(1, 0.01, 0), "worsening"),  # 7 scores on: 7 of 119 %
        (zigzag(1, 0.005, 0), "flat"),  # 3.5 of 109 %: below WORSE
        (zigzag(1, 0, 0.1), "flat"),
    ],
)
def test_trend_of_the_last_third(series, kind, explained):
    assert kind in explained(score_sliced__wasserstein=series)


def test_direction_of_the_score(explained):
    found = explained(score_sliced__wasserstein=None, score_psnr=lambda i: 20 + 0.1 * i)
    assert "improving" in found and "the highest of 20" in found["best"].text
    told_so = {"scores": {"own": {"better": "higher", "best_by": "own"}}}
    assert "improving" in explained(score_sliced__wasserstein=None, score_own=lambda i: i + 1.0, result=told_so)


@pytest.mark.parametrize(("num", "kind"), [(3, "too-few"), (4, "improving"), (7, "improving")])
def test_few_scores(num, kind, explained):
    found = explained(num=num)
    assert kind in found and ("improving" in found) == (kind == "improving")
    assert "too-few" in explained(num=7, score_sliced__wasserstein=zigzag(1, 0, 0.1)), "no trend in seven says little"


def test_no_score(explained):
    found = explained(score_sliced__wasserstein=None, config={"metric": {}, "evaluate": {"every": 0}})
    words = "ganrun resume={} evaluate.every=50 'metric=[sliced-wasserstein]' change=true steps=1500"
    assert "nobody can tell" in found["no-score"].text and "improving" not in found
    assert found["no-score"].command.split(" ", 2)[2] == words.split(" ", 2)[2]


def test_the_best_state_is_not_the_last(explained):
    late = explained(score_sliced__wasserstein=lambda i: 0.5 if i == 5 else 0.56)
    assert "12% worse" in late["past-best"].text and late["past-best"].steps == (300,)
    assert "best" in explained(score_sliced__wasserstein=lambda i: 0.5 if i == 5 else 0.54), "8 % is below PAST"
    noisy = explained(score_sliced__wasserstein=lambda i: 0.5 if i == 5 else 0.6 + 0.06 * (-1) ** i)
    assert "hardly differ" in noisy["best"].text, "within twice a noise of 0.09"


def test_a_lost_score(explained):
    lost = explained(score_sliced__wasserstein=lambda i: 1.0 if i == 0 else 0.2 if i < 15 else 0.61)
    assert lost["score-lost"].steps == (800,) and not {"worsening", "past-best"} & set(lost)
    assert "score-lost" not in explained(score_sliced__wasserstein=lambda i: 1.0 if i == 0 else 0.2 if i < 15 else 0.59)
    assert "score-lost" not in explained(score_sliced__wasserstein=lambda i: 1.0 if i in (0, 18, 19) else 0.2)


def test_a_run_that_has_not_learned(explained):
    assert "not-learning" in explained(score_sliced__wasserstein=lambda i: 1 - 0.09 * (i > 3))
    assert "not-learning" not in explained(score_sliced__wasserstein=lambda i: 1 - 0.11 * (i > 3))
    assert "not-learning" not in explained(num=6, score_sliced__wasserstein=1.0), "the first score came late"


# the players


@pytest.mark.parametrize(
    ("share", "kind"),
    [(0.0049, "discriminator-sure"), (0.0051, "discriminator-leads"), (0.24, "discriminator-leads"),
     (0.26, "balanced"), (0.89, "balanced"), (0.91, "generator-leads")],
)  # fmt: skip
def test_who_leads(share, kind, explained):
    assert kind in explained(discriminator_adversarial=share * 2 * LOG_2)


def test_since_when_the_discriminator_has_won(explained):
    found = explained(discriminator_adversarial=lambda i: 0.9 if i < 10 else 1e-4)
    assert found["discriminator-sure"].steps == (550, 1000)


def test_a_critic_has_no_chance(explained):
    found = explained(config={"loss": {"_target_": "ganrun.losses.Wasserstein"}}, discriminator_adversarial=-3.0)
    assert "estimate of the distance is 3 at the end" in found["no-lead"].text
    unknown = explained(config={"loss": {"_target_": "own_losses.Mine"}})
    assert "not known" in unknown["no-lead"].text


def test_each_of_two_discriminators(explained):
    losses = {"discriminator_adversarial_a": 0.2, "discriminator_adversarial_b": 0.01}
    two = losses | {f"discriminator_{side}_logits_{name}": 0.5 for side in ("real", "fake") for name in "ab"}
    gone = dict.fromkeys(("discriminator_adversarial", "discriminator_real_logits", "discriminator_fake_logits"))
    found = explained(config={"loss": {"_target_": "ganrun.losses.LeastSquaresOfCycleGAN"}}, **gone, **two)
    assert "discriminator a's loss is 0.8" in found["balanced"].text
    assert "discriminator b's loss is 0.04" in found["discriminator-leads"].text


def test_a_vanished_gradient(explained):
    assert "gradient-vanished" in explained(generator_gradient_norm=lambda i: 1.0 if i < 10 else 0.0009)
    assert "gradient-vanished" not in explained(generator_gradient_norm=lambda i: 1.0 if i < 10 else 0.0011)


def test_divergence(explained):
    assert "diverging" in explained(generator_weight_norm=lambda i: 2.0 ** (i / 6))
    assert "diverging" not in explained(generator_weight_norm=lambda i: 2.0 ** (i / 20))
    assert "diverging" not in explained(generator_weight_norm=lambda i: 8.0 if i < 8 else 100.0), "a jump, then rest"
    assert (
        "mean logits of the discriminator reach 1,001" in explained(discriminator_real_logits=1001.0)["diverging"].text
    )
    assert "diverging" not in explained(discriminator_real_logits=999.0)
    grown = explained(discriminator_gradient_norm=lambda i: 10.0**i)
    assert "discriminator/gradient_norm grew" in grown["diverging"].text


def test_numbers_that_are_not_finite(explained):
    found = explained(discriminator_adversarial=lambda i: 0.9 if i < 19 else math.nan)
    assert found["not-finite"].steps == (1000,) and proposal(list(found.values())).kind == "not-finite"
    reason = "generator/adversarial (move 2 of 2) is nan at step 3"
    failed = explained(num=0, result={"status": "failed", "reason": reason, "steps": 3})
    assert set(failed) == {"not-finite"} and reason in failed["not-finite"].text
    assert failed["not-finite"].command == "ganrun optimizer.lr=2e-05"


# the fakes


def looks(**changed):
    """Series of looks: numbers, or functions of the row."""
    return {f"collapse_{name}": value for name, value in changed.items()}


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"pixel_spread": lambda i: 0.9 if i < 17 else 0.12}, "collapsed"),
        ({"pixel_spread": lambda i: 0.9 if i < 17 else 0.13}, "narrow"),
        ({"pixel_spread": lambda i: 0.9 if i < 18 else 0.12}, "narrow"),  # two looks, patience 3
        ({"twins": lambda i: 0.0 if i < 17 else 0.81}, "collapsed"),
        ({"twins": 0.79}, "diverse"),
        ({"pixel_spread": 2.1}, "scattered"),
        ({"pixel_spread": 0.12}, "collapsed"),
        ({"pixel_spread": lambda i: 0.12 if i < 11 else 0.9}, "diverse"),  # 11 looks from the start, of 4 x 3
        ({"pixel_spread": lambda i: 0.12 if 5 < i < 11 else 0.9}, "recovered"),
    ],
)
def test_fakes_that_are_alike(changed, kind, explained):
    found = explained(**looks(**changed))
    assert kind in found and ("collapsed" in found) == (kind == "collapsed")
    assert kind != "recovered" or found[kind].steps == (350, 550)


def test_without_looks_nobody_can_tell(explained):
    assert "unwatched" in explained(**looks(**dict.fromkeys(LOOK)))


@pytest.mark.parametrize(
    ("share", "floor", "kind"),
    [(0.89, None, "no-copies"), (0.91, None, "memorised"), (0.71, 0.4, "memorised"), (0.69, 0.4, "no-copies")],
)
def test_copies(share, floor, kind, explained):
    result = {"evaluations": [{"metric": "memorisation", "floor": floor}]} if floor else {}
    found = explained(score_memorisation=lambda i: share if i > 9 else 0.1, result=result)
    assert kind in found and (kind == "no-copies" or found[kind].steps == (550,))


def test_points_without_a_floor_are_not_called_copies(explained):
    assert "copies-unknown" in explained(score_memorisation=0.95, config={"dataset": {"resolution": None}})


def test_copies_that_become_more(explained):
    assert "copies-rise" in explained(score_memorisation=lambda i: 0.02 * i)
    assert "copies-rise" not in explained(score_memorisation=lambda i: 0.01 * i), "0.09 in the last half is below RISE"


def test_few_images_without_a_score_for_copies(explained):
    config = {"dataset": {"resolution": 16, "limit": 50}}
    assert "metric=[sliced-wasserstein,memorisation]" in explained(config=config)["copies-unknown"].command
    assert "copies-unknown" not in explained(config={"dataset": {"limit": 2000}})


# learning rates and augmentation


@pytest.mark.parametrize(
    ("player", "kind"),
    [
        ({"lr_schedule": "linear", "decay_steps": 300}, "rate-over"),
        ({"lr_schedule": "cosine", "decay_steps": 940}, "rate-over"),
        ({"lr_schedule": "linear", "decay_steps": 1000}, "rate-ends"),
        ({"lr": {"start": 1e-3, "end": 0.0, "over": 9600, "unit": "images"}}, "rate-over"),  # 300 steps of 32
        ({"lr": {"start": 1e-3, "end": 1e-4, "over": 300, "unit": "steps"}}, None),
        ({"decay_steps": 300}, None),
    ],
)
def test_rates_that_reach_zero(player, kind, explained):
    found = explained(config={"optimizer": CONFIG["optimizer"] | {"generator": PLAYER | player}})
    assert {"rate-over", "rate-ends"} & set(found) == ({kind} if kind else set())
    if kind == "rate-over":
        assert "lr.over=32000" in found[kind].command or "generator.decay_steps=1000" in found[kind].command


@pytest.mark.parametrize(
    ("p", "sign", "kind"),
    [(0.81, 0.7, "augmentation-leaks"), (0.79, 0.7, "augmentation-rises"), (0.3, 0.5, "augmentation-holds"),
     (0.0, 0.2, "augmentation-idle")],
)  # fmt: skip
def test_adas_p(p, sign, kind, explained):
    config = {"augment": {"ada": {"target": 0.6, "start": 0.0, "over": 4000, "every": 4}}}
    assert kind in explained(discriminator_ada_p=p, discriminator_ada_sign=sign, config=config)


# the story


@pytest.mark.parametrize(
    ("result", "kind", "word"),
    [
        ({"status": "finished"}, "finished", "1,000 steps"),
        ({"status": "running", "goal": 2000}, "interrupted", "1,000 of 2,000 steps"),
        ({"status": "failed", "reason": "No space left"}, "failed", "No space left"),
        ({"status": "finished", "ended": "no better fid"}, "patience", "no better fid"),
        ({"status": "collapsed", "reason": "seen"}, "stopped", "collapsed after 1,000 steps: seen"),
        ({"status": "stopped by SIGTERM", "goal": 2000}, "stopped", "stopped by SIGTERM"),
    ],
)
def test_how_it_ended(result, kind, word, explained):
    assert word in explained(result=result)[kind].text


def test_a_run_in_training_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("ganrun.explaining.course.is_owned", lambda path: True)
    found = findings(write_run(tmp_path, rows(), {"status": "running", "goal": 2000}))
    assert "running" in kinds(found) and not any("resume=" in (finding.command or "") for finding in found)


def test_changes_and_rollbacks_are_told(tmp_path):
    back = {"step": 400, "action": "rollback", "text": "x", "kind": "score"}
    record = write_run(tmp_path, rows(), {"collapse": [back]})
    (tmp_path / ".hydra" / "changes.yaml").write_text("- {step: 500, key: optimizer.lr, had: 0.0002, got: 0.0001}\n")
    found = told(record)
    assert "optimizer.lr=0.0001" in found["changed"].text and found["changed"].steps == (500,)
    assert "1 times, at step 400" in found["rolled-back"].text and "0.5 of what" in found["rolled-back"].text


SPOILT = [("metrics.jsonl", "[1]\n{"), ("metrics.jsonl", '{"step": 1, "score/fid": "x"}'), ("result.json", "[]"),
          ("result.json", '{"scores": [1], "collapse": 3, "steps": "x"}'), (".hydra/config.yaml", "a: [1"),
          (".hydra/config.yaml", "optimizer: 3\nloss: []"), (".hydra/changes.yaml", "- 1\n- {step: x}"),
          (".hydra/overrides.yaml", "{a: 1}")]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), SPOILT)
def test_spoilt_files_are_no_reason_to_fail(name, text, tmp_path):
    record = write_run(tmp_path, rows())
    (tmp_path / name).write_text(text)
    assert findings(record)


# recorded runs

RECORDED = ROOT / "tests" / "recorded"
FATES = json.loads((RECORDED / "fates.json").read_text())


@pytest.mark.parametrize("fate", FATES)
def test_recorded_run_is_judged_rightly(fate):
    found = {finding.kind: finding for finding in findings(Record(RECORDED / fate))}
    wanted = FATES[fate]
    alarms = sorted(kind for kind in found if kind in ALARMS)
    assert alarms == sorted(wanted["alarms"]), found
    assert set(wanted["also"]) <= set(found) and not set(wanted.get("never", [])) & set(found), found
    for kind, words in wanted.get("told", {}).items():
        assert all(word in found[kind].text for word in words), found[kind]
    assert (chosen := proposal(list(found.values()))) is None or chosen.kind == wanted["next"]


# the commands


def every_command():
    """Each command that a recorded run leads to, and each that the rules make of settings which none of them has."""
    yield from (f.command for fate in FATES for f in findings(Record(RECORDED / fate)) if f.command)


def test_every_proposed_command_is_valid():
    for line in {*every_command()}:
        program, *words = shlex.split(line)
        assert program == "ganrun"
        if words[0] in ("sample", "evaluate"):
            assert composed(words[0], words[1:])
        elif words[0].startswith("resume="):
            keys = [word.partition("=")[0] for word in words[1:] if word != "change=true"]
            asked = "change=true" in words
            assert all(may_change(key) or (asked and WHEN_ASKED.fullmatch(key)) for key in keys), line
        else:
            check(composed("train", [*words, "run_dir=anew"]), words)


# the command


def test_command(tmp_path):
    place = tmp_path / "läufe und mehr"
    write_run(place / "one", rows(), words=["loss=minimax"], loss={"_target_": "ganrun.losses.Minimax"})
    write_run(place / "two", [])
    done = ganrun("explain", f"of={place}", cwd=tmp_path)
    assert "- sliced-wasserstein is still improving over the last 8 scores" in done.stdout
    assert f"next (improving): ganrun 'resume={place}/one' steps=1500" in done.stdout
    assert f"{place}/one/explained.png" in done.stdout and not (place / "two" / "explained.png").exists()
    assert (place / "one" / "explained.png").read_bytes().startswith(b"\x89PNG")
    (said,) = json.loads(ganrun("explain", f"of={place}/one", "json=true", "out=x.png", cwd=tmp_path).stdout)
    assert said["next"] == "improving" and said["findings"][0]["kind"] == "finished" and (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [("of=nowhere", "no run there"), ("of=. out=x.png", "one picture, and 2 runs"), ("of=a out=x.pdf", "ends in .png"),
     ("of=a out=b/x.png", "there is no folder b"), ("of=a by=fid", "there is no such key"), ("", "of must be given"),
     ("of=[]", "it names no run")],
)  # fmt: skip
def test_mistakes_are_one_line(words, said, tmp_path, monkeypatch, capfd):
    for name in "ac":
        write_run(tmp_path / name, rows(1))
    monkeypatch.chdir(tmp_path)
    assert cli.run(["explain", *words.split()]) == 2
    err = capfd.readouterr().err
    assert said in err and err.count("\n") == 1


def test_neither_help_nor_commands_that_read_runs_need_torch(tmp_path):
    write_run(tmp_path / "run", rows(1))
    code = """
import sys
from ganrun.cli import run
assert run(["explain", "--help"]) == 0 and "hydra" not in sys.modules
for words in (["explain"], ["ls"], ["clean"], ["report", "neighbours=null"], ["rank", "by=fid"]):
    code = run([*words, "of=run"])
    heavy = {"torch", "pytorch_lightning"} & set(sys.modules)
    assert code == (2 if "rank" in words else 0) and not heavy, (words, code, heavy)  # there is no score
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "who leads" in done.stdout, done.stderr
