"""Every way to condition: losses against numbers by hand, and a covering array of networks, losses and penalties."""

import math
from itertools import product

import pytest
import torch
from test_configs import composed
from test_module import fitted

from ganrun.conditioning import (
    Auxiliary,
    AuxiliaryDiscriminative,
    Contrastive,
    DataToData,
    MultiHinge,
    TwinAuxiliary,
    crammer_singer,
)
from ganrun.errors import UserError
from ganrun.game import Verdict

Y = torch.tensor([1, 0, 1])
REAL = [[0.5, 1.0], [2.0, -1.0], [0.0, 0.0]]
FAKE = [[1.0, -1.0], [0.3, 0.1], [-2.0, 0.5]]
OTHER = [[0.2, 0.4], [-1.0, 1.0], [0.0, 3.0]]


def ce(rows, labels=Y):
    return sum(-row[y] + math.log(sum(map(math.exp, row))) for row, y in zip(rows, labels, strict=True)) / len(rows)


def told(rows, embedding=None):
    return Verdict(torch.zeros(len(rows)), torch.zeros(len(rows), 1), torch.tensor(rows), embedding)


def beside(one, other):
    return [a + b for a, b in zip(one, other, strict=True)]


def test_auxiliary():
    assert Auxiliary().discriminator(told(REAL), told(FAKE), Y).item() == pytest.approx(ce(REAL))
    both = Auxiliary(on_fakes=True).discriminator(told(REAL), told(FAKE), Y)
    assert both.item() == pytest.approx(ce(REAL) + ce(FAKE))
    assert Auxiliary().generator(told(FAKE), Y).item() == pytest.approx(ce(FAKE))


def test_twin():
    real, fake = told(beside(REAL, OTHER)), told(beside(FAKE, OTHER))
    assert TwinAuxiliary().discriminator(real, fake, Y).item() == pytest.approx(ce(REAL) + ce(OTHER))
    assert TwinAuxiliary().generator(fake, Y).item() == pytest.approx(ce(FAKE) - ce(OTHER), abs=1e-6)


def test_one_classifier_of_real_and_fake_classes():
    real, fake, later = beside(REAL, OTHER), beside(FAKE, OTHER), Y + 2
    loss = AuxiliaryDiscriminative()
    assert loss.discriminator(told(real), told(fake), Y).item() == pytest.approx(ce(real) + ce(fake, later))
    assert loss.generator(told(fake), Y).item() == pytest.approx(ce(fake) - ce(fake, later), abs=1e-6)


EMBEDDED = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [-0.5, 1.0], [1.0, 1.0]]))
COSINES = [[0.1, 0.99], [0.4, -0.2], [0.3, 0.6]]


def test_data_to_data():
    loss = DataToData(weight=1.0, temperature=0.5, margin=0.98)
    found, dots = loss.generator(told(COSINES, EMBEDDED), Y), EMBEDDED @ EMBEDDED.T
    expected = 0.0
    for i in range(3):
        own = math.exp(min(0.0, COSINES[i][Y[i]] - 0.98) / 0.5)
        others = sum(math.exp(max(0.0, dots[i, j].item() - 0.02) / 0.5) for j in range(3) if Y[j] != Y[i])
        expected -= math.log(own / (own + others)) / 3
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert loss.discriminator(told(COSINES, EMBEDDED), None, Y).item() == pytest.approx(expected, rel=1e-5)


def test_contrastive():
    found, dots = Contrastive(temperature=0.7).generator(told(COSINES, EMBEDDED), Y), EMBEDDED @ EMBEDDED.T
    expected = 0.0
    for i in range(3):
        own = math.exp(COSINES[i][Y[i]] / 0.7)
        pairs = {j: math.exp(dots[i, j].item() / 0.7) for j in range(3) if j != i}
        alike = sum(value for j, value in pairs.items() if Y[j] == Y[i])
        expected -= math.log((own + alike) / (own + sum(pairs.values()))) / 3
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_multi_hinge():
    logits = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, -1.0]])
    assert crammer_singer(logits, torch.tensor([0, 0])).item() == pytest.approx((0.5 + 3.0) / 2)
    three, y = [[1.0, 0.5, 0.0], [0.0, 2.0, -1.0]], torch.tensor([0, 0])
    loss = MultiHinge(generator_weight=0.05)
    assert loss.discriminator(told(three), told(three), y).item() == pytest.approx(1.75 + (2.0 + 4.0) / 2)
    assert loss.generator(told(three), y).item() == pytest.approx(0.05 * 1.75)


def test_a_discriminator_without_classes_is_refused():
    with pytest.raises(UserError, match="this discriminator has no classes of the label"):
        fitted("conditional=auxiliary", "discriminator.condition=concatenate")
    with pytest.raises(UserError, match="needs a discriminator with condition=classes"):
        Auxiliary()(None, lambda x: Verdict(x, x), {"real": Y, "label": Y}, {"fake": Y}, "generator")


NETWORKS = {
    "mlp": ["model=mlp"],
    "dcgan": ["model=dcgan"],
    "dcgan, all options": ["model=dcgan", "generator.spectral=true", "generator.condition=batch-norm",
                           "generator.attention=8", "discriminator.attention=8", "critic.norm=spectral"],
    "resnet": ["model=resnet"],
    "sagan": ["model=sagan", "generator.condition=concatenate"],
    "biggan": ["model=biggan", "generator.z_dim=12"],
    "biggan-deep": ["model=biggan-deep"],
    "r3gan": ["model=r3gan"],
}  # fmt: skip
LOSSES = ["non-saturating", "hinge", "lsgan", "wgan", "relativistic-average", "relativistic-pairing", "minimax"]
CONDITIONS = ["label", "projection", "auxiliary", "twin", "adc", "d2d-ce", "2c", "multi-hinge", "semi-supervised"]
PENALTIES = ["", "r1", "r2", "gradient", "dragan"]
FACTORS = (list(NETWORKS), LOSSES, PENALTIES, CONDITIONS)
TINY = ["dataset.resolution=16", "dataset.limit=32", "batch_size=8", "steps=2", "metric=[]", "metric/features=none",
        "generator.width=4", "discriminator.width=4", "on_collapse=null", "sample_every=0", "checkpoint.every=0",
        "schedule.discriminator=1", "precision=32-true"]  # fmt: skip


def missing(rows):
    """The pairs of values of two factors that meet in no row."""
    pairs = {(a, b, x, y) for a in range(4) for b in range(a) for x in FACTORS[a] for y in FACTORS[b]}
    return pairs - {(a, b, row[a], row[b]) for row in rows for a in range(4) for b in range(a)}


ROWS = [
    (list(NETWORKS)[(i + j) % 7], loss, PENALTIES[(i + 2 * j) % 5], condition)
    for (i, loss), (j, condition) in product(enumerate(LOSSES), enumerate(CONDITIONS))
]
ROWS += [("r3gan", LOSSES[i % 7], PENALTIES[i % 5], condition) for i, condition in enumerate(CONDITIONS)]


def test_the_array_covers_all_pairs():
    assert len(ROWS) <= 72 and not missing(ROWS)


def trained(network, loss, penalty, condition):
    """Two steps: everything is finite, every weight moves, and in a move only those of its player."""
    moves, seen = [], []

    def probe(module):
        play = module._move
        seen.append(module)

        def watched(index, *args):
            before = {name: p.detach().clone() for name, p in module.recipe.named_parameters()}
            play(index, *args)
            moved = {name for name, p in module.recipe.named_parameters() if not torch.equal(before[name], p)}
            moves.append((module.moves[index].player, moved))

        module._move = watched

    words = [f"loss={loss}", f"penalty=[{penalty}]", f"conditional={condition}", *NETWORKS[network], *TINY]
    words += ["labelled=20"] if condition == "semi-supervised" else []
    fitted(*words, probe=probe)
    names = {name for name, p in seen[0].recipe.named_parameters() if p.requires_grad}
    assert all(p.isfinite().all() for p in seen[0].recipe.parameters())
    for player, moved in moves:
        prefix = "generator." if player == "generator" else "adversary.discriminator."
        assert all(name.startswith(prefix) for name in moved)
    return names - set().union(*(moved for _, moved in moves))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row))
def test_networks_losses_penalties_and_conditions_compose(row):
    left = trained(*row)
    # WGAN's logits do not see the head's bias; attention starts at scale 0, so its weights move a step later
    assert all(name.endswith("head.bias") for name in left if ".attention." not in name or "scale" in name), left


@pytest.mark.soak
@pytest.mark.parametrize("row", list(product(*FACTORS)), ids=lambda row: "-".join(row))
def test_the_whole_product(row):
    trained(*row)


def test_no_condition_is_left_out():
    from ganrun.config.groups import options

    assert set(options("conditional")) == {*CONDITIONS, "none", "attributes"}  # for attributes see test_table.py
    assert composed("conditional=projection")[0].discriminator.condition == "projection"
