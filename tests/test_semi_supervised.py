"""Few labels: which are known, that no other is seen, what the discriminator loses on them, its test accuracy."""

import json
import math
import shutil

import pytest
import torch
from conftest import TINY, ganrun
from sklearn.datasets import load_digits
from test_configs import composed
from test_data_rounds import numbered, same
from test_module import fitted
from test_runs import assert_same_state, state

from ganrun.conditioning import SemiSupervised
from ganrun.data.datamodule import Rounds
from ganrun.data.few_labels import FewLabels, drawn
from ganrun.data.images import Digits
from ganrun.errors import UserError
from ganrun.game import Verdict
from ganrun.losses import NonSaturating
from ganrun.metrics.test_accuracy import TestAccuracy
from ganrun.networks.heads import Head
from ganrun.training.build import build, with_hidden_labels

FEW = ["conditional=semi-supervised", "dataset.limit=100", "labelled=20"]
FAST = ["metric=[]", "on_collapse=null", "sample_every=0", "steps=3"]
TOLD = {"labelled": torch.tensor([[1.0, -0.5, 0.2], [0.0, 2.0, 0.3]]), "real": torch.tensor([[9.0, 9.0, 9.0]] * 2)}


def judge(x):
    return Verdict(x.logsumexp(1), x, x)


def test_the_loss_is_the_cross_entropy_of_labelled_images_alone():
    batch = TOLD | {"label": torch.tensor([2, 0])}
    found = SemiSupervised(weight=0.5)(None, judge, batch, {"fake": TOLD["real"]})
    rows = zip(TOLD["labelled"].tolist(), [2, 0], strict=True)
    expected = sum(math.log(sum(map(math.exp, row))) - row[y] for row, y in rows) / 2
    assert found.item() == pytest.approx(0.5 * expected, rel=1e-6)


def test_the_logistic_loss_is_that_of_one_more_class():
    """Section 5: softmax over K + 1 classes with the last logit fixed at 0."""
    torch.manual_seed(0)
    head = Head(5, "classes-alone", 3)
    real, fake = head(torch.randn(4, 5)), head(torch.randn(4, 5))
    of_fake = [torch.cat([one.classes, torch.zeros(4, 1)], 1).softmax(1)[:, 3] for one in (real, fake)]
    expected = -(1 - of_fake[0]).log().mean() - of_fake[1].log().mean()
    assert NonSaturating().discriminator(real.logits, fake.logits).item() == pytest.approx(expected.item(), rel=1e-5)


def test_known_labels_are_balanced_drawn_by_seed_and_grow():
    labels = torch.randint(10, (1000,), generator=torch.Generator().manual_seed(1))
    chosen = drawn(labels, 100, seed=0)
    assert labels[chosen].bincount().tolist() == [10] * 10 and len(chosen.unique()) == 100
    assert torch.equal(chosen, drawn(labels, 100, seed=0)) and not torch.equal(chosen, drawn(labels, 100, seed=1))
    assert set(chosen.tolist()) < set(drawn(labels, 130, seed=0).tolist())
    assert labels[drawn(labels, 23, seed=0)].bincount().tolist() == [3] * 3 + [2] * 7  # the first classes have more


def test_a_class_that_has_no_more_images_is_passed_over():
    labels = torch.tensor([0] * 50 + [2] * 2 + [3] * 50)  # no image of class 1
    assert labels[drawn(labels, 20, seed=3)].bincount().tolist() == [9, 0, 2, 9]
    assert torch.equal(drawn(labels, 102, seed=3), torch.arange(102))


def data(num=12, labelled=6, **settings):
    return FewLabels(labelled)(numbered(num, **settings))  # image i has the label i % 3


def test_a_batch_holds_known_labels_and_as_many_unlabelled_images():
    few = data()
    known = set(few.labelled.indices.tolist())
    rounds = Rounds(few, batch_size=5, num_batches=2, seed=0)
    raw = [rounds[i] for i in range(6)]
    assert all(set(one) == {"real", "labelled/real", "labelled/label"} for one in raw)
    batches = [few.complete(one) for one in raw]
    real, labelled, label = (torch.cat([one[key] for one in batches]) for key in ("real", "labelled", "label"))
    real, labelled = real.flatten(1).amin(1).tolist(), labelled.flatten(1).amin(1).tolist()
    assert [sorted(real[i : i + 12]) for i in range(0, 60, 12)] == [list(range(12))] * 5
    assert [sorted(labelled[i : i + 6]) for i in range(0, 60, 6)] == [sorted(known)] * 10
    assert label.tolist() == [i % 3 for i in labelled]
    plain = Rounds(numbered(12), batch_size=5, num_batches=2, seed=0)
    assert real[:10] == plain[0]["real"].flatten(1).amin(1).tolist()  # the order of the data alone


def test_every_way_to_read_gives_the_same():
    few, rounds = data(flip=True), {}
    for only_index in (False, True):
        at = Rounds(few, batch_size=4, num_batches=1, seed=0, only_index=only_index)
        rounds[only_index] = [few.complete(at[i]) for i in range(5)]
    assert all(same(one, other) for one, other in zip(rounds[False], rounds[True], strict=True))
    ranks = [Rounds(few, batch_size=4, num_batches=2, seed=0, rank=rank, world_size=2) for rank in (0, 1)]
    whole = few.complete(Rounds(few, batch_size=4, num_batches=2, seed=0)[3])
    one, other = (few.complete(part[3]) for part in ranks)
    for key, value in whole.items():
        assert torch.equal(
            torch.stack([one[key], other[key]]).unflatten(1, (2, 2)).transpose(0, 1).flatten(0, 2), value
        )


def weights(*words, spoil=None):
    def probe(module):
        if spoil:
            spoil(module)

    return fitted(*FEW, *FAST, *words, probe=probe).recipe.state_dict()


def test_no_other_label_can_be_seen(monkeypatch):
    """Labels that are not known are replaced by nonsense; the weights stay equal to the bit."""
    clean = weights()

    def spoiled(known):
        def hidden(cfg, data):
            few = with_hidden_labels(cfg, data)
            chosen = torch.zeros(len(few), dtype=torch.bool)
            chosen[few.labelled.indices] = True
            labels = few.base.held["label"]
            labels[chosen == known] = (labels[chosen == known] + 1) % 10 if known else -(10**6)
            return few

        monkeypatch.setattr("ganrun.training.build.with_hidden_labels", hidden)
        return weights()

    found = spoiled(known=False)
    assert all(torch.equal(value, found[key]) for key, value in clean.items())
    assert any(not torch.equal(value, spoiled(known=True)[key]) for key, value in clean.items())


def test_labels_alone_train_the_discriminator_as_a_classifier():
    alone = "conditional.terms.semi-supervised.labels_alone=true"
    parts = build(composed(*FEW, "metric=[]", alone)[0])
    batch = parts.datamodule.reals(4)
    generated = {"fake": torch.rand_like(batch["real"])}
    losses = parts.module.players["discriminator"].losses(batch, generated)
    assert set(losses.terms) == {"semi-supervised"} and "adversarial" in losses.stats
    logits = parts.module.recipe.adversary.discriminator(batch["labelled"]).classes
    expected = torch.nn.functional.cross_entropy(logits, batch["label"])
    assert losses.total().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "words", ["model=deep-conv loss=hinge", "model=mlp dataset=ring loss=lsgan labelled=9",
              "schedule.generator_batch=8", "micro_batch=2", "loss=wgan-gp"]
)  # fmt: skip
def test_it_runs_with(words):
    fitted(*FEW, *FAST, "steps=2", *words.split())


CLASSES = ["semi-supervised", "auxiliary", "twin", "adc", "d2d-ce", "2c", "multi-hinge"]


@pytest.mark.parametrize("conditional", CLASSES)
def test_test_accuracy_is_the_share_of_right_classes(conditional):
    few = ["labelled=30"] if conditional == "semi-supervised" else []
    cfg = composed(f"conditional={conditional}", *few, "metric=[test-accuracy]", "dataset.num_test=97", *TINY)[0]
    parts = build(cfg)
    parts.scorer.prepare(torch.device("cpu"))
    before = {key: value.clone() for key, value in parts.module.state_dict().items()}
    found = parts.scorer.score(iter(()), classify=parts.module.classify)["test-accuracy"].value
    assert all(torch.equal(value, before[key]) for key, value in parts.module.state_dict().items())
    assert parts.module.training
    digits = Digits(name="all", resolution=16, channels=1)
    images, labels = digits.to_range(digits.held["real"][-97:]), load_digits().target[-97:]
    network = parts.module.recipe.adversary.discriminator.eval()
    with torch.no_grad():
        logits = network(images, torch.full((97,), 3)).classes[:, :10]
    assert found == (logits.argmax(1).numpy() == labels).mean()
    assert len(parts.data) == 1700
    about = parts.scorer.protocols["test-accuracy"]
    assert (about["split"], about["num_real"], about["num_fake"]) == ("test data", 97, 0)


def test_digits_split_in_two_disjoint_parts():
    whole, part = (Digits(name="digits", resolution=8, channels=1, num_test=num) for num in (0, 297))
    both = torch.cat([part.held["real"], part.held_out().held["real"]])
    assert torch.equal(both, whole.held["real"]) and len(part) == 1500
    assert whole.held_out() is None and part.held_out().held_out() is None


def test_a_resume_is_exact_and_the_best_is_the_most_accurate(tmp_path):
    words = [*TINY, "conditional=semi-supervised", "labelled=25", "dataset.limit=100", "dataset.num_test=97", "steps=8",
             "metric=[test-accuracy,sliced-wasserstein]", "evaluate.every=2", "checkpoint.every=2",
             "checkpoint.keep=null", "dataset.flip=true"]  # fmt: skip
    done = ganrun(*words, "run_dir=run", cwd=tmp_path)
    assert "labels: 25 of 100 are known, 2 to 3 of each class" in done.stdout
    assert "classes of the discriminator: 97 real (test data)" in done.stdout
    whole = tmp_path / "run"
    score = json.loads((whole / "result.json").read_text())["scores"]["test-accuracy"]
    course = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    course = {line["step"]: line["score/test-accuracy"] for line in course if "score/test-accuracy" in line}
    assert sorted(course) == [2, 4, 6, 8] and score["final"] == course[8] and score["best"] == max(course.values())
    assert score["better"] == "higher" and score["best_by"] == "test-accuracy" and score["protocol"]["ema"] is False
    shutil.copytree(whole, tmp_path / "again")
    ganrun("resume=again/checkpoints/step-000004.ckpt", cwd=tmp_path)
    assert_same_state(whole, tmp_path / "again")
    assert state(whole)["global_step"] == 8
    refused = ganrun("resume=again", "labelled=30", cwd=tmp_path, check=2)
    assert "labelled: got 30, had 25" in refused.stderr
    refused = ganrun("evaluate", "from=run", "metric=[test-accuracy]", cwd=tmp_path, check=2)
    assert refused.stderr.splitlines() == [
        "ganrun: metric=test-accuracy: it scores a discriminator, in training; leave it out"
    ]


MISTAKES = {
    "labelled=5": "labelled=5; expected 10, one of each class, to 100, the images of dataset digits",
    "labelled=101": "labelled=101; expected 10, one of each class, to 100",
    "labelled=many": "labelled=many; expected an integer",
    "dataset=gaussian model=mlp": "dataset gaussian has no classes",
    "pairs=invert": "dataset digits has two sides; expected pairs=none",
    "model=cyclegan pairs=invert": "this discriminator has no classes-alone of the label",
    "conditional.key=label": "few labels are known, so none are given; expected null",
    "discriminator.condition=concatenate": "this discriminator has no classes-alone of the label",
    "recipe=pix2pix pairs=invert noise=none": "conditional: Pix2Pix takes no loss on classes, semi-supervised",
    "metric=[test-accuracy]": "metric=test-accuracy: dataset digits has no test split",
    "metric=[class-accuracy]": "metric=class-accuracy: it needs fakes that are made for classes",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_refused(words):
    with pytest.raises(UserError) as refused:
        parts = build(composed(*FEW, *TINY, *words.split())[0])
        parts.scorer.check(torch.device("cpu"))
    assert MISTAKES[words] in str(refused.value) and "\n" not in str(refused.value)


def test_accuracy_of_a_discriminator_without_classes_is_refused():
    words = ["metric=[test-accuracy]", "dataset.num_test=97", *TINY]
    with pytest.raises(UserError, match="this discriminator tells no classes; expected conditional=semi-supervised"):
        build(composed(*words, "conditional=projection")[0])
    assert TestAccuracy.lower_is_better is False


def test_labelled_belongs_to_its_condition(tmp_path):
    refused = ganrun("conditional=label", "labelled=100", cwd=tmp_path, check=2)
    assert len(refused.stderr.splitlines()) == 1 and "labelled" in refused.stderr
