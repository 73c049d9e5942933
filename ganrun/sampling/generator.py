"""A generator with its noise: each sample depends only on a seed and its own number."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ganrun.attributes import Attribute, Wanted, as_seen, asked, drawn, remarks
from ganrun.classes import ambiguities, index_of
from ganrun.errors import UserError, is_out_of_memory, one_of, require
from ganrun.noise import Codes, Noise
from ganrun.sampling import codes
from ganrun.seeding import derive, rng_for
from ganrun.standing import BATCH, batch_norms, measure, said

CHUNK = 256  # samples a forward pass
Label = int | str | Sequence[int | str] | Tensor  # a class's index or name; one for all, or several


class SamplingGenerator(nn.Module):
    """A generator with its noise.

    value_range: of the generator's output, None for vectors
    classes:     their names, empty if there are none
    attributes:  labels that are numbers, empty if there are none
    depth:       bits of the pixels that it was trained on, and that its images are written with
    shown:       channels for pictures, see pictures.visible
    trained:     on which data, for how many steps, averaged or not, as far as that is known

    Example:
        sampling = SamplingGenerator(generator, Normal(z_dim=100), value_range=(-1, 1), classes=[])
        images = sampling.sample(16, seed=0)  # (16, C, H, W) in [-1, 1]
    """

    def __init__(
        self,
        generator: nn.Module,
        noise: Noise,
        *,
        value_range: Sequence[float] | None,
        classes: list[str],
        attributes: Sequence[Attribute] = (),
        depth: int = 8,
        shown: Sequence[int] | None = None,
    ):
        super().__init__()
        self.depth, self.shown = depth, shown
        self.generator = generator
        self.noise = noise
        self.value_range = value_range
        self.classes = classes
        self.attributes = list(attributes)
        self.trained: dict[str, Any] = {}

    def sample(
        self,
        num: int,
        seed: int = 0,
        label: Label | Wanted | Sequence[Wanted] | None = None,
        *,
        truncation: float | None = None,
        batch_size: int = CHUNK,
    ) -> Tensor:
        """(num, C, H, W) in [-1, 1] for images, (num, D) raw for vectors; on the CPU.

        Apart from rounding, sample i depends on (seed, i) alone, not on num or batch_size. label: index or name of one
        class for all samples, or one for each; by default a conditional generator goes through its classes in turn.
        An integer is an index, text a name; integers that are also names of other classes give a warning.
        Of attributes a label is text as "age=31,smiling=1", or a dict; those left out have their mean, or of two
        values the more frequent one; one without a value is taken through its values, by default the first.
        Of InfoGAN's codes, if there are no classes, text as "c1=3,c2=0.5"; those left out are drawn.
        truncation: see Noise.
        Raises UserError for labels that do not fit.
        """
        turn = self.turn(label)
        notes = self.ambiguities(label)
        if notes and label is not None:
            warnings.warn("; ".join(notes[:3]), stacklevel=2)
        if label is not None and _is_several(label) and len(turn) != num:
            what = "vectors" if self.attributes else "classes"
            raise UserError(f"label={label}; expected {num} {what}, one for each sample, or one for all")
        batches = self.batches(num, seed, turn, truncation=truncation, batch_size=batch_size)
        return torch.cat([samples for samples, _ in batches])

    def batches(
        self,
        num: int,
        seed: int = 0,
        turn: Tensor | None = None,
        *,
        truncation: float | None = None,
        batch_size: int = CHUNK,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Samples 0 to num - 1 as `sample` makes them, with their labels, so that they need not all fit into memory.

        turn: class indices, or vectors of attributes, that the samples go through, see `turn` below. Raises UserError
        before the first batch.
        """
        require(1, num=num, batch_size=batch_size)
        parts = (range(num)[start : start + batch_size] for start in range(0, num, batch_size))
        return (self.part(part, seed, turn, truncation) for part in parts)

    def part(
        self, numbers: Sequence[int], seed: int, turn: Tensor | None, truncation: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The samples with these numbers, and their labels."""
        labels = None if turn is None else turn[torch.tensor([number % len(turn) for number in numbers])]
        return self.decode(self.draw(numbers, seed, truncation), labels), None if self.codes else labels

    @property
    def codes(self) -> Codes | None:
        """The noise, if its codes are what labels ask for."""
        return self.noise if isinstance(self.noise, Codes) and not (self.classes or self.attributes) else None

    def stand(self, passes: int = 16, *, truncation: float | None = None) -> None:
        """Measures batch norm's statistics for these weights, over `passes` batches of 64 samples: see standing.py.

        The noise is drawn from a fixed seed, under the truncation that samples will have. Classes are drawn evenly,
        attributes with the data's means and deviations.
        Raises UserError for a generator without batch norm.
        """
        require(1, standing=passes)
        self.check_stands(passes)
        rng = rng_for("standing")
        batches = ((self.noise(BATCH, rng, truncation)["z"], self._any_labels(rng)) for _ in range(passes))
        try:
            measure([self.generator], lambda given: self.decode(*given), batches)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                text = f"standing={passes}: passes of {BATCH} samples need more memory than there is; leave it out"
                raise UserError(text) from error
            raise
        self.trained["standing"] = self.stands_by(passes)

    def stands_by(self, passes: int) -> str:
        """How `stand` measures, for a protocol."""
        return said(passes, "drawn evenly" if self.classes else "drawn as the data's" if self.attributes else None)

    def check_stands(self, passes: int) -> None:
        """Raises UserError for a generator without batch norm."""
        if not batch_norms([self.generator]):
            raise UserError(f"standing={passes}: this generator has no batch norm; leave standing= out")

    def _any_labels(self, rng: torch.Generator) -> Tensor | None:
        if self.attributes:
            return drawn(self.attributes, BATCH, rng)
        return torch.randint(len(self.classes), (BATCH,), generator=rng) if self.classes else None

    def draw(self, numbers: Iterable[int], seed: int, truncation: float | None = None) -> Tensor:
        """Noise (num, z_dim) of the samples with these numbers."""
        rng = torch.Generator()
        drawn = [self.noise(1, rng.manual_seed(derive(seed, "sample", i)), truncation)["z"] for i in numbers]
        return torch.cat(drawn)

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """One forward pass: noise (num, z_dim) -> images in [-1, 1], or vectors as they are; on the CPU."""
        if self.codes and labels is not None:
            z, labels = codes.put(z, labels), None
        device = next(self.generator.parameters()).device
        samples = self.generator(z.to(device), None if labels is None else labels.to(device)).cpu()
        if self.value_range is None:
            return samples
        low, high = self.value_range
        return (samples - low) * (2 / (high - low)) - 1

    def turn(self, label: Label | Wanted | Sequence[Wanted] | None = None) -> Tensor | None:
        """Class indices (num,) int64 that samples go through; all by default, None if unconditional.

        Of attributes, vectors (num, F) float32 as networks see them; of InfoGAN's codes, see codes.asked.

        A name comes before an index: the text "2" is the class of that name, if there is one, else the class with
        index 2. Integers are indices. Raises UserError, naming the valid classes.
        """
        if self.attributes:
            return as_seen(asked(label, self.attributes), self.attributes)
        if self.codes:
            return codes.asked(label, self.codes)
        if not self.classes:
            if label is not None:
                raise UserError(f"label={label}: this generator is unconditional, it has no classes; leave label= out")
            return None
        if label is None:
            return torch.arange(len(self.classes))
        given = _listed(label)
        indices = [index_of(item, self.classes) for item in given]
        if not indices or None in indices:
            wrong = label if not indices else given[indices.index(None)]
            last, names = len(self.classes) - 1, one_of(self.classes, str(wrong))
            if str(wrong) in self.classes:  # an integer is never taken as a name
                names = f'did you mean the name "{wrong}"? {names}'
            raise UserError(
                f"label={wrong}; expected names of classes, or indices from 0 to {last}, several in brackets; {names}"
            )
        return torch.tensor(indices)

    def ambiguities(self, label: Label | Wanted | Sequence[Wanted] | None) -> list[str]:
        """Warnings for labels that are the name of one class and the index of another, and for what they leave open."""
        if self.attributes:
            return remarks(label, self.attributes)
        indices = label is None or self.codes or isinstance(label, Tensor)
        return [] if indices else ambiguities(_listed(label), self.classes)


def _listed(label: Label) -> list[Any]:
    plain = label.tolist() if hasattr(label, "tolist") else label
    return list(plain) if _is_several(label) else [plain]


def _is_several(label: Label) -> bool:
    return bool(label.shape) if hasattr(label, "shape") else isinstance(label, (list, tuple, range))
