"""What made a score. Scores with different protocols do not compare: one checkpoint has had FID 13.2 and 10.2."""

from collections.abc import Mapping
from typing import Any

NOTED = ("seed", "ema", "versions", "accuracy")  # for information; scores that differ in them still compare

WHY = ("resolution", "channels", "fit")  # these explain why `data` differs; for the same data they do not matter


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """How two protocols differ: every key with both values; None if they do not."""
    noted = NOTED + (WHY if one.get("data") == other.get("data") else ())
    keys = [key for key in {**one, **other} if key not in noted and one.get(key) != other.get(key)]
    return "; ".join(f"{key} {one.get(key, 'not said')} and {other.get(key, 'not said')}" for key in keys) or None


def short(protocol: Mapping[str, Any]) -> str:
    """A protocol in one line."""
    weights = f" {protocol['weights'][:8]}" if protocol.get("weights") else ""
    reals = f", {protocol['num_real']:,} real ({protocol['split']})" if protocol.get("num_real") else ""
    pairs = f", each against its {protocol['against']} ({protocol['split']})" if protocol.get("against") else ""
    values = protocol.get("values", "")
    bits = f", {values}" if values.endswith(" bit") else ""
    drawn = f", truncation {protocol['truncation']}{truncated(protocol)}" if protocol.get("truncation") else ""
    drawn += "".join(f", {key} {protocol[key]}" for key in ("standing", "sampler") if protocol.get(key))
    if not protocol["num_fake"]:  # it scores the discriminator
        return f"{protocol['features']}: {protocol['num_real']:,} real ({protocol['split']}){bits}"
    return f"{protocol['features']}{weights}: {protocol['num_fake']:,} fake{drawn}{reals}{pairs}{bits}"


def truncated(protocol: Mapping[str, Any]) -> str:
    """What a truncation acts on, if not on the noise: " in w", " in w of the first 8 styles"."""
    space, cutoff = protocol.get("truncation_in"), protocol.get("truncation_cutoff")
    return (f" in {space}" if space else "") + (f" of the first {cutoff} styles" if cutoff else "")
