"""Schedules: who moves when, on which batch, and which generation carries a graph."""

import pytest

from ganrun.errors import UserError
from ganrun.schedule import Move, Schedule

GAN = {"D": False, "G": True}
FRESH = {  # as PLANS, with share=False: a batch and a generation of its own for every move
    "alternate": ({"D": 1, "G": 1}, [("D", 0, True, False), ("G", 1, True, True)]),
    "n-critic": ({"D": 2, "G": 1}, [("D", 0, True, False), ("D", 1, True, False), ("G", 2, True, True)]),
    "generator-first": ({"G": 1, "D": 2}, [("G", 0, True, True), ("D", 1, True, False), ("D", 2, True, False)]),
}
PLANS = {  # moves a player, who generates, reuse_stale, [(player, batch, generate, graph)]
    "alternate": ({"D": 1, "G": 1}, GAN, False, [("D", 0, True, True), ("G", 0, False, False)]),
    "generator-first": ({"G": 1, "D": 1}, GAN, False, [("G", 0, True, True), ("D", 0, True, False)]),
    "stale": ({"G": 1, "D": 1}, GAN, True, [("G", 0, True, True), ("D", 0, False, False)]),
    "n-critic": (
        {"D": 5, "G": 1},
        GAN,
        False,
        [*(("D", i, True, False) for i in range(4)), ("D", 4, True, True), ("G", 4, False, False)],
    ),
    "n-critic-last": (
        {"G": 1, "D": 3},
        GAN,
        False,
        [("G", 0, True, True), ("D", 0, True, False), ("D", 1, True, False), ("D", 2, True, False)],
    ),
    "two-and-two": (
        {"D": 2, "G": 2},
        GAN,
        False,
        [("D", 0, True, False), ("D", 1, True, True), ("G", 1, False, False), ("G", 2, True, True)],
    ),
    "generator-twice-first": (
        {"G": 2, "D": 1},
        GAN,
        False,
        [("G", 0, True, True), ("G", 1, True, True), ("D", 1, True, False)],
    ),
    "two-critics": (
        {"D_A": 1, "D_B": 1, "G": 1},
        {"D_A": False, "D_B": False, "G": True},
        False,
        [("D_A", 0, True, True), ("D_B", 0, False, False), ("G", 0, False, False)],
    ),
    "two-critics-after": (
        {"G": 1, "D_A": 1, "D_B": 1},
        {"D_A": False, "D_B": False, "G": True},
        False,
        [("G", 0, True, True), ("D_A", 0, True, False), ("D_B", 0, False, False)],
    ),
    "cyclegan": (
        {"G": 1, "D_A": 1, "D_B": 1},
        {"D_A": False, "D_B": False, "G": True},
        True,
        [("G", 0, True, True), ("D_A", 0, False, False), ("D_B", 0, False, False)],
    ),
    "two-generators": (
        {"G_A": 1, "G_B": 1, "D": 1},
        {"D": False, "G_A": True, "G_B": True},
        False,
        [("G_A", 0, True, True), ("G_B", 0, True, True), ("D", 0, True, False)],
    ),
    "nobody-generates": ({"D": 2}, {"D": False}, False, [("D", 0, True, False), ("D", 1, True, False)]),
}


@pytest.mark.parametrize(("moves", "generates", "reuse_stale", "expected"), PLANS.values(), ids=PLANS)
def test_plan(moves, generates, reuse_stale, expected):
    schedule = Schedule(moves, reuse_stale=reuse_stale)
    assert schedule.plan(generates) == [Move(*move) for move in expected]
    assert schedule.num_batches == 1 + max(batch for _, batch, _, _ in expected)


@pytest.mark.parametrize(("moves", "expected"), FRESH.values(), ids=FRESH)
def test_plan_without_sharing(moves, expected):
    schedule = Schedule(moves, share=False)
    assert schedule.plan(GAN) == [Move(*move) for move in expected]
    assert schedule.num_batches == len(expected)


@pytest.mark.parametrize("name", ["share", "reuse_stale"])
def test_refuses_what_is_neither_true_nor_false(name):
    with pytest.raises(UserError, match=f"schedule.{name}=1; expected true or false"):
        Schedule({"D": 1, "G": 1}, **{name: 1})


def test_order_of_generates_does_not_matter():
    schedule = Schedule({"G": 1, "D": 2})
    assert schedule.plan({"D": False, "G": True}) == schedule.plan({"G": True, "D": False})


@pytest.mark.parametrize("moves", [{"D": 0, "G": 1}, {"D": -1, "G": 1}, {"D": 1.5, "G": 1}, {"D": "two", "G": 1}])
def test_refuses_counts(moves):
    with pytest.raises(UserError, match=r"schedule\.D=.*; expected at least 1 move"):
        Schedule(moves)


@pytest.mark.parametrize(
    ("moves", "message"),
    [({"D": 1}, "schedule.G: every player moves"), ({"D": 1, "G": 1, "critic": 1}, "schedule.critic: .* valid: D, G")],
)
def test_players_and_schedule_name_the_same(moves, message):
    with pytest.raises(UserError, match=message):
        Schedule(moves).plan(GAN)
