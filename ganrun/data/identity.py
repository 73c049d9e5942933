"""How resumes, scores and caches identify a data set: by the very samples that are trained on and scored."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from torch import Tensor

# num, shape, classes, and digests of samples and labels (None = unlabelled); attributes, if there are any, as networks
# see them, and the digest of their values; source and paired of two-sided data; depth of pixels of more than 8 bits
Fingerprint = dict[str, Any]


def digest_of(parts: Iterable[Tensor]) -> str:
    """A digest of samples (num, ...) that come in parts of any size, memory format and device. About 1 s a GiB."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        last = part.movedim(1, -1) if part.dim() > 1 else part  # the memory order of images in channels_last
        found.update(last.cpu().contiguous().numpy().reshape(-1))
    return found.hexdigest()


def identity_of(fingerprint: Fingerprint) -> str:
    """A fingerprint as one word."""
    return hashlib.blake2b(json.dumps(fingerprint, sort_keys=True).encode(), digest_size=8).hexdigest()


def changes(got: Fingerprint, had: Fingerprint) -> list[str]:
    """What differs between two fingerprints, in words; empty if nothing does."""
    said = _form_changes(got, had)
    alike = not said  # otherwise the digests differ anyway
    if got["classes"] != had["classes"]:
        said += _class_changes(got["classes"], had["classes"])
    elif alike and got["labels"] != had["labels"]:
        said.append("other labels for the same classes")
    if (seen := got.get("attributes")) != (before := had.get("attributes")):
        said.append(f"attributes {_as_words(seen)}, they were {_as_words(before)}")
    elif alike and got.get("values") != had.get("values"):
        said.append("other values of the same attributes")
    if alike and got["samples"] != had["samples"]:
        said.append("other contents: an edited file, or another version of what decodes it")
    return said + _source_changes(got.get("source"), had.get("source"), alike=not said)


def _form_changes(got: Fingerprint, had: Fingerprint) -> list[str]:
    """Differences in the number and the form of samples, in words."""
    said = []
    if got["num"] != had["num"]:
        said.append(f"{got['num']:,} samples, it had {had['num']:,}")
    if got["shape"] != had["shape"]:
        said.append(f"samples of shape {got['shape']}, they had {had['shape']}")
    if got.get("depth", 8) != had.get("depth", 8):
        said.append(f"pixels of {got.get('depth', 8)} bits, they had {had.get('depth', 8)}")
    return said


def _as_words(attributes: list[tuple[str, float, float]] | None) -> str:
    named = [f"{name} ((value - {zero:.6g}) / {scale:.6g})" for name, zero, scale in attributes or ()]
    return ", ".join(named) or "none"


def _source_changes(got: Fingerprint | None, had: Fingerprint | None, *, alike: bool) -> list[str]:
    """Differences in the source of two-sided data, in words. alike: are the real sides the same?"""
    if (got is None) != (had is None):
        return ["samples without a source image, they had one" if got is None else "samples with a source image"]
    return [f"source: {text}" for text in changes(got, had)] if got and alike else []


def _class_changes(got: list[str], had: list[str]) -> list[str]:
    new, gone = ([name for name in one if name not in other] for one, other in ((got, had), (had, got)))
    said = [f"{what}: {', '.join(names[:10])}" for what, names in (("new classes", new), ("no more", gone)) if names]
    return said or ["its classes are in another order"]
