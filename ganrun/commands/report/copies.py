"""Is a generator copying? Its samples beside their nearest training images, and how many lie too near to one."""

from math import prod
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ganrun.commands.report.pictures import Measure, inline
from ganrun.commands.sample.neighbours import beside_neighbours
from ganrun.commands.sample.request import find_generator
from ganrun.config.places import command
from ganrun.data.base import Data
from ganrun.depth import largest
from ganrun.errors import UserError, first_line
from ganrun.files.record import Record
from ganrun.pictures import grid
from ganrun.sampling.generator import SamplingGenerator
from ganrun.training.of_checkpoint import open_generator
from ganrun.training.saved_run import config_of, data_of

SAMPLES, SHOWN, NEIGHBOURS = 64, 8, 4
MOST_VALUES = 2 * 10**9  # of the training images; above, a report would take minutes
MEASURE = Measure(640, 75)


class Unsuited(UserError):
    """A generator whose samples no training image can be near to."""


class Copies(NamedTuple):
    """picture: a data URI, empty if there is none. command: what draws or scores more."""

    lines: list[str]
    picture: str = ""
    alt: str = ""
    command: str = ""


def copies(record: Record, *, trust: str | list[str], data_dir: str | None) -> Copies:
    """What can be said; where generator or data cannot be opened, why not."""
    again = command("sample", f"from={record.path}", "neighbours=5")
    try:
        samples, data = opened(record, trust, data_dir)
        rows, distances = beside_neighbours(samples, data, min(NEIGHBOURS, len(data)))
        near = too_near(rows[:, 1], distances[:, 0], data)
    except Exception as error:  # of a user's own classes too; the page is made all the same
        why = f"Nearest training images are not shown: {' '.join(first_line(error).split())}"
        return Copies([why], command="" if isinstance(error, Unsuited) else again)
    pixels = rows[:SHOWN].flatten(0, 1)
    names = ["sample", "nearest", *(f"{i}." for i in range(2, rows.shape[1]))]
    drawn = grid(pixels / largest(pixels), columns=rows.shape[1], names=names, shown=data.shown)
    score = command("evaluate", f"from={record.path}", "metric=[memorisation]", "seeds=3")
    lines = [told(near, len(samples)), "Each row: a sample, then the training images nearest to it, by pixels."]
    alt = f"{len(rows[:SHOWN])} samples, each beside its {rows.shape[1] - 1} nearest training images"
    return Copies(lines, inline(drawn, MEASURE), alt, score)


def opened(record: Record, trust: str | list[str], data_dir: str | None) -> tuple[Tensor, Data]:
    """Samples (SAMPLES, C, H, W) of the run's generator, and its data set. Raises UserError if there are none."""
    file, run = find_generator(str(record.path))
    sampling = open_generator(file, run, trust=trust)
    if not isinstance(sampling, SamplingGenerator):
        raise Unsuited("this generator turns images into images, and its pictures show each target beside its output")
    if sampling.value_range is None:
        raise Unsuited("this generator makes points, not images")
    check_there(record, trust, data_dir)
    data = data_of(record.run, trust=trust, data_dir=data_dir)
    if len(data) * prod(data.shape) > MOST_VALUES:
        raise UserError(f"to look through {len(data):,} images takes minutes; the command below does it")
    return sampling.sample(SAMPLES, seed=0), data


def check_there(record: Record, trust: str | list[str], data_dir: str | None) -> None:
    """Raises UserError where opening the data set would download it."""
    dataset = config_of(record.run, trust=trust, data_dir=data_dir).dataset
    if str(dataset.get("_target_")).startswith("ganrun.data.torchvision_sets."):
        from ganrun.data.torchvision_sets import torchvision_class

        try:
            torchvision_class(dataset.dataset)(root=dataset.data_dir, download=False, **dataset.arguments)
        except (RuntimeError, FileNotFoundError) as error:
            place = Path(dataset.data_dir).absolute()
            raise UserError(f"{dataset.name} is not in {place}; data_dir= says where it is") from error


def too_near(real: Tensor, distances: Tensor, data: Data) -> int:
    """Samples that lie at least as near to their nearest training image as that lies to the next one; see memorised.

    real: those images as stored pixels (num, C, H, W); distances (num,) of the samples to them.
    """
    if len(data) < 2:
        return 0
    low, high = data.value_range
    scaled = real.float() / largest(real) * (high - low) + low
    _, apart = beside_neighbours(scaled, data, 2)  # the first is the image itself
    return int((distances <= apart[:, 1]).sum())


def told(near: int, samples: int) -> str:
    share = near / samples
    verdict = (
        "That is what copies look like." if share > 0.5
        else "That is much; compare it with the floor." if share > 0.2
        else "Copies would be all of them."
    )  # fmt: skip
    return (
        f"{near} of {samples} samples ({share:.0%}) lie nearer to a training image than that image lies to any other. "
        f"{verdict} Real images that were never trained on do not score 0: the command gives their share as the floor."
    )
