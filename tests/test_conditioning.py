"""Every way to condition: losses against numbers by hand, and a covering array of all choices of a game."""

import math
from itertools import chain, combinations, product
from random import Random

import pytest
import torch
from test_configs import SMALL, composed
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
from ganrun.training.build import build

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
    "stylegan2": ["model=stylegan2", "generator.w_dim=8"],
    "fastgan": ["model=fastgan", "generator.reach=2", "discriminator.reach=2", "dataset.resolution=32"],
    "projected-gan": ["model=projected-gan", "generator.reach=2", "discriminator.side=64", "dataset.resolution=32"],
}  # fmt: skip
PUBLISHED = ["label", "projection", "auxiliary", "twin", "adc", "d2d-ce", "2c", "multi-hinge", "semi-supervised"]
REGULARISERS = {
    "penalty": ["", "r1", "r2", "gradient", "dragan"],
    "further": ["", "lecam", "bcr", "zero-centred", "max-gradient", "finite-r1"],
    "term": ["", "zcr", "top-k", "historical-averaging", "infogan", "logan"],
    "logits": ["", "minibatch", "san", "gradient-norm"],
}
FACTORS = {
    "network": list(NETWORKS),
    "conditional": [*PUBLISHED, "none"],
    "loss": ["non-saturating", "hinge", "lsgan", "wgan", "relativistic-average", "relativistic-pairing", "minimax",
             "dual-contrastive"],
    **REGULARISERS,
    "augment": ["", "ada", "diffaugment", "r3gan"],
    "ema": ["average", "half-life", "power", "none"],
}  # fmt: skip
SETTINGS = {  # of some values
    "top-k": [],
    "historical-averaging": ["term.historical-averaging.weight=0.1"],
    "infogan": ["noise.categorical=[3]", "noise.continuous=1"],
    "gradient-norm": ["critic.gradient_norm=true"],
    "ada": ["augment.ada.p=0.5"],
    "r3gan": ["augment.r3gan.p=0.5"],
    "semi-supervised": ["labelled=20"],
}
LIGHT = ("fastgan", "projected-gan")
PAIRWISE = ("relativistic-average", "relativistic-pairing", "dual-contrastive")
REFUSED = {  # two factors, and those of their values that do not go together
    "no such head": ("network", "conditional",
                     [("fastgan", c) for c in PUBLISHED if c != "label"]
                     + [("projected-gan", c) for c in PUBLISHED if c != "projection"]),
    "no single last layer, and batch norm": ("network", "logits", list(product(LIGHT, REGULARISERS["logits"][1:]))),
    "no layer to tell a code from": ("network", "term", [(network, "infogan") for network in LIGHT]),
    "one size of fakes": ("network", "term", [("fastgan", "logan")]),
    "no mean over samples": ("loss", "term", [("relativistic-average", "top-k"), ("dual-contrastive", "top-k")]),
    "both replace the adversarial loss": ("conditional", "term", [("multi-hinge", "top-k")]),
    "no rising function of each logit": ("loss", "logits", [(loss, "san") for loss in ("lsgan", *PAIRWISE)]),
    "the logit follows from those of classes": ("conditional", "logits", [("multi-hinge", "minibatch"),
                                                ("multi-hinge", "san"), ("semi-supervised", "san")]),
}  # fmt: skip
TINY = ["dataset.resolution=16", "dataset.limit=32", "batch_size=8", "steps=2", "metric=[]", "metric/features=none",
        "generator.width=4", "discriminator.width=4", "on_collapse=null", "sample_every=0", "checkpoint.every=0",
        "schedule.discriminator=1", "precision=32-true"]  # fmt: skip
Row = tuple[str, ...]  # a value of each factor, in their order
Pair = tuple[str, str, str, str]  # a factor, another one, and a value of each


def refused() -> set[Pair]:
    return {(f, g, a, b) for f, g, values in REFUSED.values() for a, b in values}


def pairs(rows: list[Row]) -> set[Pair]:
    """The pairs of values of two factors that meet in a row; the earlier factor first."""
    found = [[(f, g, row[f], row[g]) for f, g in combinations(FACTORS, 2)] for row in map(named, rows)]
    return set(chain.from_iterable(found))


def named(row: Row) -> dict[str, str]:
    return dict(zip(FACTORS, row, strict=True))


def wanted() -> set[Pair]:
    """All pairs that the tool allows. Light networks alone need also be unconditional: others are so in all tests."""
    every = {(f, g, a, b) for f, g in combinations(FACTORS, 2) for a, b in product(FACTORS[f], FACTORS[g])}
    others = {("network", "conditional", network, "none") for network in FACTORS["network"] if network not in LIGHT}
    blocked = {
        ("conditional", g, "none", b) for _, g, _, b in refused() for a in LIGHT if ("network", g, a, b) in refused()
    }
    return every - refused() - others - blocked


def array(seed: int, tries: int = 3) -> list[Row]:
    """Rows that hold all wanted pairs, each the best of a few that begin with a missing one."""
    missing, rng, rows = wanted(), Random(seed), []
    while missing:
        first = min(missing, key=lambda pair: (pair[:2] != ("network", "conditional"), pair))
        rows.append(
            max((grown(first, missing, rng) for _ in range(tries)), key=lambda row: len(missing & pairs([row])))
        )
        missing -= pairs(rows[-1:])
    return rows


def grown(first: Pair, missing: set[Pair], rng: Random) -> Row:
    """A row with this pair, and in each further factor the value that adds most of what is missing."""
    f, g, a, b = first
    row, rest, no = {f: a, g: b}, [name for name in FACTORS if name not in (f, g)], refused()
    for name in rng.sample(rest, len(rest)):
        met = {value: met_by(row, name, value) for value in rng.sample(FACTORS[name], len(FACTORS[name]))}
        row[name] = max((value for value in met if not no & met[value]), key=lambda value: len(met[value] & missing))
    return tuple(row[name] for name in FACTORS)


def met_by(row: dict[str, str], name: str, value: str) -> set[Pair]:
    """The pairs that a further value makes with those of a row."""
    order = list(FACTORS)
    ends = [((name, value), (other, row[other])) for other in row]
    return {(f, g, a, b) for ends in ends for (f, a), (g, b) in [sorted(ends, key=lambda end: order.index(end[0]))]}


ROWS = array(seed=142)


def test_the_array_covers_all_pairs():
    assert len(ROWS) <= 100 and not wanted() - pairs(ROWS) and not refused() & pairs(ROWS)


def words_of(row: Row) -> list[str]:
    """What to type for a row."""
    of = named(row)
    listed = {"penalty": [of["penalty"], of["further"]], "term": [of["term"]], "augment": [of["augment"]],
              "head": [of["logits"]] if of["logits"] in ("minibatch", "san") else []}  # fmt: skip
    words = [f"{group}=[{','.join(filter(None, names))}]" for group, names in listed.items()]
    words += [f"{name}={of[name]}" for name in ("conditional", "loss", "ema")]
    if of["logits"] == "gradient-norm" and of["network"] in ("dcgan", "resnet", "sagan", "biggan", "biggan-deep"):
        words += ["critic.norm=none"]
    if (of["network"], of["loss"]) == ("stylegan2", "wgan"):  # whose weights are around 1, as they are scaled later
        words += ["optimizer.discriminator.clip_weights=1.0"]
    settings = chain.from_iterable(SETTINGS.get(value, ()) for name, value in of.items() if name != "network")
    return [*words, *TINY, *NETWORKS[of["network"]], *settings]


def trained(row: Row) -> set[str]:
    """Two steps: everything is finite, every weight moves, and in a move only those of its player. What did not."""
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

    fitted(*words_of(row), probe=probe)
    names = {name for name, p in seen[0].recipe.named_parameters() if p.requires_grad}
    assert all(p.isfinite().all() for p in seen[0].recipe.parameters())
    for player, moved in moves:
        prefix = "generator." if player == "generator" else "adversary.discriminator."
        assert all(name.startswith(prefix) for name in moved)
    return names - set().union(*(moved for _, moved in moves))


def may_stay(name: str) -> bool:
    """WGAN's logits do not see the head's bias; attention starts at scale 0, so its weights move a step later; only
    term=reconstruction learns from decoders.
    """
    return name.endswith("head.bias") or (".attention." in name and "scale" not in name) or ".decoders." in name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(filter(None, row)))
def test_choices_compose(row):
    left = trained(row)
    assert all(map(may_stay, left)), left


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_go_together_is_refused_in_one_line(why):
    f, g, values = REFUSED[why]
    for a, b in values:
        plain = {name: "" if "" in valid else valid[0] for name, valid in FACTORS.items()}
        row = plain | {"network": "resnet", "conditional": "none", "loss": "hinge"} | {f: a, g: b}
        with pytest.raises(UserError, match=r"^[^\n]+$"):
            build(composed(*SMALL, *words_of(tuple(row.values())))[0])


@pytest.mark.soak
@pytest.mark.parametrize(
    "row", list(product(list(NETWORKS)[:-2], *[FACTORS[name] for name in ("conditional", "loss", "penalty")]))
)
def test_the_whole_product_of_networks_conditions_losses_and_penalties(row):
    trained((*row, "", "", "", "", "average"))


def test_no_condition_is_left_out():
    from ganrun.config.groups import options

    assert set(options("conditional")) == {*PUBLISHED, "none", "attributes"}  # for attributes see test_table.py
    assert composed("conditional=projection")[0].discriminator.condition == "projection"
