"""What the body of POST /sample asks for: checked with the words of the command line, and turned into jobs."""

import json
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ganrun.commands.sample.draw import Layout, layout
from ganrun.commands.serve.batching import Job
from ganrun.commands.serve.served import Served
from ganrun.config.typed import check_finite, check_known, check_type
from ganrun.errors import UserError
from ganrun.sampling import codes
from ganrun.sampling.files import CHANNELS
from ganrun.sampling.generator import SamplingGenerator
from ganrun.sampling.translator import Translator

LARGEST_SEED = 2**63 - 1
MOST_SAMPLES = 10**9
MOST_VALUES = 2**26  # numbers in the images of one answer
LONGEST_LABEL = 300  # characters
MOST_LABELS = 1000  # in one request
LABEL = str | int | list | dict | None


class Key(NamedTuple):
    """Of the body. told: for the API's page."""

    type: Any
    default: Any
    least: float | None
    largest: float | None
    told: str


KEYS = {
    "num": Key(int, 1, 1, None, "How many samples."),
    "seed": Key(int, 0, 0, LARGEST_SEED, "Sample i depends only on the seed and on i."),
    "first": Key(int, 0, 0, MOST_SAMPLES, "The number i of the first sample; the others follow it."),
    "label": Key(
        LABEL, None, None, None,
        'A class by its name as text or by its index as an integer; attributes as "age=31,smiling=1" or as an object; '
        'codes as "c1=3"; or a list of these, to go through in turn. null = all classes in turn.',
    ),
    "truncation": Key(
        float | None, None, None, None,
        "Largest coordinate of normal noise; of style-based generators psi, in w. Less variety. null = off.",
    ),
    "truncation_cutoff": Key(
        int | None, None, 1, None, "Of style-based generators: only the first so many styles are truncated."
    ),
    "to": Key(int | None, None, 0, LARGEST_SEED, "A second seed: each sample moves towards its namesake there."),
    "at": Key(float | None, None, 0, 1, "With `to`: how far on that way, 0 to 1. null = 0.5."),
    "format": Key(
        Literal["png", "grid", "npz"], "png", None, None,
        "png: one image as it is. grid: a picture of all, or a scatter plot of points. npz: arrays, see README.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A checked request for samples of one generator.

    turn: what labels go through, None if there are none. layout: of a grid. notes: remarks for the user.
    usual: are these samples as the generator draws them, neither truncated nor on a way to others?
    """

    served: Served
    num: int
    first: int
    format: str
    turn: Tensor | None
    layout: Layout | None
    notes: list[str]
    jobs: list[Job]
    usual: bool

    @property
    def labels(self) -> Tensor | None:
        """Of all samples; None where there are none, or they are codes."""
        if self.turn is None or self.served.made.codes:
            return None
        return self.turn[torch.arange(self.first, self.first + self.num) % len(self.turn)]


def parsed(content: bytes) -> dict[str, Any]:
    """The JSON object of a body; an empty body is an empty one. Raises UserError."""
    if not content.strip():
        return {}
    try:
        body = json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # no JSON, not UTF-8, a number of thousands of digits; too deep
        if isinstance(error, UserError):
            raise
        raise UserError(f'the body is no JSON: {error}; expected an object, as {{"num": 4}}') from error
    if not isinstance(body, dict):
        raise UserError('the body is JSON, but no object; expected one, as {"num": 4}')
    return body


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises UserError for keys that are given twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UserError(f"{name}: it is given twice in one object; leave one of them out")
        found[name] = value
    return found


def checked(body: dict[str, Any]) -> dict[str, Any]:
    """All keys, with their defaults. Raises UserError."""
    check_known(body, KEYS)
    for name, value in body.items():
        key = KEYS[name]
        if name == "label":
            check_label(value)
            continue
        check_type(name, value, key.type)
        check_finite(value, name)
        if value is not None and key.least is not None and value < key.least:
            raise UserError(f"{name}={value}; expected at least {key.least}")
        if value is not None and key.largest is not None and value > key.largest:
            raise UserError(f"{name}={value}; expected at most {key.largest:,}")
    keys = {name: key.default for name, key in KEYS.items()} | body
    if keys["at"] is not None and keys["to"] is None:
        raise UserError(f"at={keys['at']}: it acts with to= only; add it, or leave at= out")
    return keys


def check_label(label: Any) -> None:
    """Raises UserError unless it is text, an integer, numbers by name, or a list of these, of bounded size."""
    items = label if isinstance(label, list) else [] if label is None else [label]
    if len(items) > MOST_LABELS:
        raise UserError(f"label=: {len(items):,} labels; expected at most {MOST_LABELS:,}")
    for item in items:
        values = [*item.values()] if isinstance(item, dict) else [item]
        kinds = str | int | float | None if isinstance(item, dict) else str | int
        if not all(isinstance(value, kinds) and not isinstance(value, bool) for value in values):
            raise UserError(f"label={short(label)}; expected text, an integer, attributes, or a list of these")
        if any(len(str(text)) > LONGEST_LABEL for text in (*values, *(item if isinstance(item, dict) else ()))):
            raise UserError(f"label=: more than {LONGEST_LABEL:,} characters in a name or number; expected fewer")


def short(value: Any) -> str:
    return text if len(text := str(value)) <= 80 else f"{text[:80]}..."


def wanted(body: dict[str, Any], served: Served, *, most: int, batch_size: int) -> Wanted:
    """What the body asks of this generator, with its noise drawn. most: samples a request. Raises UserError."""
    keys, made, notes = checked(body), served.made, []
    if isinstance(made, Translator):
        raise UserError("this generator turns images into images; use POST /translate")
    num, label, format = keys["num"], keys["label"], keys["format"]
    check_number(num, served, most)
    check_format(format, num, served)
    made.check_cutoff(keys["truncation"], keys["truncation_cutoff"])
    notes += made.ambiguities(label)
    asked = made.turn(label)
    plan = None
    if format == "grid" and made.value_range is not None:
        plan = layout(made, label, num, served.shape[-2:], notes.append)
        asked, num = plan.turn, plan.num
        if plan.names and keys["first"] % len(asked):
            raise UserError(f"first={keys['first']}: it would shift the columns; expected a multiple of {len(asked)}")
    jobs = jobs_of(keys, served, range(keys["first"], keys["first"] + num), asked, batch_size)
    usual = keys["truncation"] is None and keys["to"] is None
    return Wanted(served, num, keys["first"], format, asked, plan, notes, jobs, usual)


def jobs_of(keys: dict[str, Any], served: Served, numbers: range, turn: Tensor | None, batch_size: int) -> list[Job]:
    """The forward passes for the samples with these numbers, each with its noise. turn: what labels go through."""
    made, truncated, jobs = served.made, (keys["truncation"], keys["truncation_cutoff"]), []
    for start in range(0, len(numbers), batch_size):
        some = numbers[start : start + batch_size]
        z = drawn(made, some, keys["seed"], keys["to"], keys["at"], truncated[0])
        rows = None if turn is None else turn[torch.tensor([number % len(turn) for number in some])]
        if made.codes and rows is not None:
            z, rows = codes.put(z, rows), None
        jobs.append(Job(*how(served, truncated, rows is None), (z, rows), len(some)))
    return jobs


def check_number(num: int, served: Served, most: int) -> None:
    values = max(1, torch.Size(served.shape).numel())
    most = min(most, max(1, MOST_VALUES // values))
    if num > most:
        raise UserError(f"num={num}; expected at most {most:,} samples of this size in a request; first= goes on")


def check_format(format: str, num: int, served: Served) -> None:
    """Raises UserError for samples that the format cannot hold."""
    if format != "png":
        return
    if len(served.shape) != 3:
        raise UserError("format=png: this generator makes vectors; valid: grid (scatter plot), npz")
    if num > 1:
        raise UserError(f"format=png: one image, but num={num}; valid: grid, npz")
    if served.shape[0] not in CHANNELS:
        raise UserError(f"format=png: the images have {served.shape[0]} channels, a PNG at most 4; valid: grid, npz")


def drawn(
    made: SamplingGenerator, numbers: range, seed: int, to: int | None, at: float | None, truncation: float | None
) -> Tensor:
    """Noise (num, z_dim) of the samples with these numbers; with `to`, on the noise's own path between two seeds."""
    z = made.draw(numbers, seed, truncation)
    if to is None:
        return z
    return made.noise.between(z, made.draw(numbers, to, truncation), 0.5 if at is None else at)


def how(
    served: Served, truncated: tuple[float | None, int | None], unlabelled: bool
) -> tuple[Hashable, Callable[..., Tensor]]:
    """Which jobs share a forward pass, and what it does. Without styles truncation has already acted on the noise."""
    truncated = truncated if served.made.in_w else (None, None)
    return (id(served), *truncated, unlabelled), lambda z, labels: served.made.decode(z, labels, *truncated)
