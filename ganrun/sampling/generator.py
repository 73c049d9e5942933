"""A generator with its noise: each sample depends only on a seed and its own number."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ganrun.attributes import Attribute, Wanted, as_seen, asked, drawn, remarks
from ganrun.classes import ambiguities, index_of
from ganrun.errors import UserError, is_out_of_memory, one_of, require
from ganrun.noise import Codes, Noise
from ganrun.sampling import codes
from ganrun.sampling.samplers import Sampler
from ganrun.seeding import derive, rng_for
from ganrun.standing import BATCH, batch_norms, measure, said
from ganrun.styles import StyleBased, style_based

CHUNK = 256  # samples a forward pass
Label = int | str | Sequence[int | str] | Tensor  # a class's index or name; one for all, or several


class Given(Protocol):
    """Latents that are given instead of drawn, as in latents.py."""

    labels: Tensor | None

    def __getitem__(self, rows: Any) -> "Given": ...

    def images(
        self, sampling: "SamplingGenerator", truncation: float | None = None, truncation_cutoff: int | None = None
    ) -> Tensor: ...


class SamplingGenerator(nn.Module):
    """A generator with its noise.

    value_range: of the generator's output, None for vectors
    classes:     their names, empty if there are none
    attributes:  labels that are numbers, empty if there are none
    depth:       bits of the pixels that it was trained on, and that its images are written with
    shown:       channels for pictures, see pictures.visible
    trained:     on which data, for how many steps, averaged or not, as far as that is known
    latents:     what sample 0, 1, ... is made of, in place of noise; None = noise is drawn
    sampler:     chooses the noise of samples by what a discriminator thinks of them; None = as it is drawn

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
        self.sampler: Sampler | None = None
        self.latents: Given | None = None

    def sample(
        self,
        num: int,
        seed: int = 0,
        label: Label | Wanted | Sequence[Wanted] | None = None,
        *,
        truncation: float | None = None,
        truncation_cutoff: int | None = None,
        batch_size: int = CHUNK,
    ) -> Tensor:
        """(num, C, H, W) in [-1, 1] for images, (num, D) raw for vectors; on the CPU.

        Apart from rounding, sample i depends on (seed, i) alone, not on num or batch_size. label: index or name of one
        class for all samples, or one for each; by default a conditional generator goes through its classes in turn.
        An integer is an index, text a name; integers that are also names of other classes give a warning.
        Of attributes a label is text as "age=31,smiling=1", or a dict; those left out have their mean, or of two
        values the more frequent one; one without a value is taken through its values, by default the first.
        Of InfoGAN's codes, if there are no classes, text as "c1=3,c2=0.5"; those left out are drawn.
        truncation: of a style-based generator, psi: styles are w_mean + psi (w - w_mean), the first truncation_cutoff
        of them, None = all; see StyleBased. Of others the largest coordinate of their noise; see Noise. None = off.
        Raises UserError for labels and truncations that do not fit.
        """
        turn = self.turn(label)
        notes = self.ambiguities(label)
        if notes and label is not None:
            warnings.warn("; ".join(notes[:3]), stacklevel=2)
        if label is not None and _is_several(label) and len(turn) != num:
            what = "vectors" if self.attributes else "classes"
            raise UserError(f"label={label}; expected {num} {what}, one for each sample, or one for all")
        truncated = {"truncation": truncation, "truncation_cutoff": truncation_cutoff}
        batches = self.batches(num, seed, turn, **truncated, batch_size=batch_size)
        return torch.cat([samples for samples, _ in batches])

    def batches(
        self,
        num: int,
        seed: int = 0,
        turn: Tensor | None = None,
        *,
        truncation: float | None = None,
        truncation_cutoff: int | None = None,
        batch_size: int = CHUNK,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Samples 0 to num - 1 as `sample` makes them, with their labels, so that they need not all fit into memory.

        turn: class indices, or vectors of attributes, that the samples go through, see `turn` below; None = as `sample`
        does by itself. Raises UserError before the first batch.
        """
        require(1, num=num, batch_size=batch_size)
        turn = self.turn(None) if turn is None else turn
        self.check_cutoff(truncation, truncation_cutoff)
        parts = (range(num)[start : start + batch_size] for start in range(0, num, batch_size))
        return (self.part(part, seed, turn, truncation, truncation_cutoff) for part in parts)

    def part(
        self,
        numbers: Sequence[int],
        seed: int,
        turn: Tensor | None,
        truncation: float | None = None,
        truncation_cutoff: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The samples with these numbers, and their labels."""
        if self.latents is not None:
            given = self.latents[list(numbers)]
            return given.images(self, truncation, truncation_cutoff), given.labels
        labels = None if turn is None else turn[torch.tensor([number % len(turn) for number in numbers])]
        if self.sampler and truncation is not None:
            raise UserError(f"truncation={truncation}: sampler={self.sampler.name} chooses the noise; leave one out")
        if self.sampler and self.codes and labels is not None:
            raise UserError(f"sampler={self.sampler.name} chooses the noise, and with it the code; leave label= out")
        z = self.sampler.draw(numbers, seed, labels) if self.sampler else self.draw(numbers, seed, truncation)
        return self.decode(z, labels, truncation, truncation_cutoff), None if self.codes else labels

    @property
    def codes(self) -> Codes | None:
        """The noise, if its codes are what labels ask for."""
        return self.noise if isinstance(self.noise, Codes) and not (self.classes or self.attributes) else None

    @property
    def in_w(self) -> bool:
        """Is it the generator that can truncate, in w? Otherwise it is the noise."""
        return isinstance(self.generator, StyleBased)

    def check_cutoff(self, truncation: float | None, truncation_cutoff: int | None) -> None:
        """Raises UserError for a cutoff that cannot act."""
        if truncation_cutoff is None:
            return
        asks = f"truncation_cutoff={truncation_cutoff}"
        most = style_based(self.generator, asks, "leave it out").num_styles
        if truncation is None:
            raise UserError(f"{asks}: nothing is truncated; add truncation=<psi>, or leave it out")
        if not 1 <= truncation_cutoff <= most:
            raise UserError(f"{asks}; expected 1 to {most}, the number of styles, or null for all")

    def truncated_by(self, truncation: float | None, truncation_cutoff: int | None) -> dict[str, Any]:
        """How samples are truncated, for a protocol; {} if they are not."""
        if truncation is None:
            return {}
        about = {"truncation": truncation} | ({"truncation_in": "w"} if self.in_w else {})
        return about if truncation_cutoff is None else about | {"truncation_cutoff": truncation_cutoff}

    def stand(self, passes: int = 16, *, truncation: float | None = None, truncation_cutoff: int | None = None) -> None:
        """Measures batch norm's statistics for these weights, over `passes` batches of 64 samples: see standing.py.

        The noise is drawn from a fixed seed, under the truncation that samples will have. Classes are drawn evenly,
        attributes with the data's means and deviations.
        Raises UserError for a generator without batch norm.
        """
        require(1, standing=passes)
        self.check_stands(passes)
        self.check_cutoff(truncation, truncation_cutoff)
        rng, tails = rng_for("standing"), None if self.in_w else truncation
        batches = ((self.noise(BATCH, rng, tails)["z"], self.any_labels(BATCH, rng)) for _ in range(passes))
        try:
            measure([self.generator], lambda given: self.decode(*given, truncation, truncation_cutoff), batches)
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

    def any_labels(self, num: int, rng: torch.Generator) -> Tensor | None:
        """Labels (num, ...): classes evenly, attributes with the data's means and deviations; None if unconditional."""
        if self.attributes:
            return drawn(self.attributes, num, rng)
        return torch.randint(len(self.classes), (num,), generator=rng) if self.classes else None

    def draw(self, numbers: Iterable[int], seed: int, truncation: float | None = None) -> Tensor:
        """Noise (num, z_dim) of the samples with these numbers, truncated unless that is done in w."""
        rng, tails = torch.Generator(), None if self.in_w else truncation
        drawn = [self.noise(1, rng.manual_seed(derive(seed, "sample", i)), tails)["z"] for i in numbers]
        return torch.cat(drawn)

    def decode(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        truncation: float | None = None,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """One forward pass: noise (num, z_dim) -> images in [-1, 1], or vectors as they are; on the CPU.

        truncation, truncation_cutoff: in w; other generators have truncated noise instead, from `draw`.
        """
        if self.codes and labels is not None:
            z, labels = codes.put(z, labels), None
        if truncation is not None and self.in_w:
            return self.synthesise(self.styles(z, labels, truncation, truncation_cutoff))
        return self._made(self.generator, z, labels)

    @torch.no_grad()
    def styles(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        truncation: float | None = None,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Noise (num, z_dim) -> styles (num, num_styles, w_dim) of a style-based generator, on its device."""
        found = self.generator.styles(*self._there(z, labels))
        return found if truncation is None else self.generator.truncated(found, truncation, truncation_cutoff)

    def synthesise(self, styles: Tensor) -> Tensor:
        """Styles (num, num_styles, w_dim) -> images in [-1, 1], on the CPU."""
        return self._made(self.generator.synthesis, styles)

    @torch.no_grad()
    def _made(self, network: Callable[..., Tensor], *given: Tensor | None) -> Tensor:
        samples = network(*self._there(*given)).cpu()
        if self.value_range is None:
            return samples
        low, high = self.value_range
        return (samples - low) * (2 / (high - low)) - 1

    def _there(self, *given: Tensor | None) -> list[Tensor | None]:
        """The same on the generator's device."""
        device = next(self.generator.parameters()).device
        return [None if each is None else each.to(device) for each in given]

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
