"""Which values of InfoGAN's codes a user asks for: label="c1=3,c2=0.5"."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ganrun.attributes import Attribute, Wanted, parsed
from ganrun.errors import UserError
from ganrun.noise import Codes

COLUMNS = 8  # values of a continuous code that a grid shows


def asked(label: Wanted | Sequence[Wanted] | None, noise: Codes) -> Tensor | None:
    """The codes (num, width) that a label asks for, NaN where they stay as drawn; None = all stay so.

    A code without a value, as in "c1", is taken through its values. Raises UserError.
    """
    if label is None:
        return None
    known = [Attribute(name, "number", 0.0, 1.0, -1.0, 1.0) for name in noise.names]
    rows = []
    for given in parsed(label, known):
        swept = next((name for name, value in given.items() if value is None), None)
        for value in values(swept, noise) if swept else [None]:
            rows.append(row(given | ({swept: value} if swept else {}), noise))
    return torch.stack(rows)


def values(name: str, noise: Codes) -> list[float]:
    """All values of a categorical code; some of a continuous one, from -1 to 1."""
    index = noise.names.index(name)
    if index < len(noise.categorical):
        return list(range(noise.categorical[index]))
    return [2 * i / (COLUMNS - 1) - 1 for i in range(COLUMNS)]


def row(given: dict[str, float], noise: Codes) -> Tensor:
    """The code (width,) with these values by name."""
    parts = [torch.full((num,), math.nan) for num in noise.sizes]
    for name, value in given.items():
        index = noise.names.index(name)
        if index >= len(noise.categorical):
            parts[index][0] = value
        elif value in range(noise.sizes[index]):
            parts[index].zero_()[int(value)] = 1
        else:
            raise UserError(f"label={name}={value:g}; expected one of its values, 0 to {noise.sizes[index] - 1}")
    return torch.cat(parts)


def headings(rows: Tensor, noise: Codes) -> list[str]:
    """What tells codes (num, width) apart, briefly: the values that differ."""
    texts = [[said(each) for each in part] for part in rows.split(noise.sizes, 1)]
    differing = [each for each in texts if len(set(each)) > 1]
    return [", ".join(each) for each in zip(*differing, strict=True)] or [""] * len(rows)


def said(part: Tensor) -> str:
    """The value of one code, (values,) or (1,)."""
    if part.isnan().any():
        return "any"
    return str(int(part.argmax())) if len(part) > 1 else f"{part.item():.2g}"


def put(z: Tensor, rows: Tensor) -> Tensor:
    """z (num, z_dim) with the codes (num, width) in its last numbers, where they are not NaN."""
    width = rows.shape[1]
    return torch.cat([z[:, :-width], torch.where(rows.isnan(), z[:, -width:], rows)], 1)
