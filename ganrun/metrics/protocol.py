"""What made a score. Scores of unlike protocols do not compare: the same checkpoint has scored FID 13.2 and 10.2."""

from collections.abc import Mapping
from typing import Any

NOTED = ("seed", "ema", "versions", "accuracy")  # said of a score; others may differ in them and still compare

WHY = ("resolution", "channels", "fit")  # say why `data` differs; of the same data they make no difference


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """How two protocols differ, if they do: every key with both values."""
    noted = NOTED + (WHY if one.get("data") == other.get("data") else ())
    keys = [key for key in {**one, **other} if key not in noted and one.get(key) != other.get(key)]
    return "; ".join(f"{key} {one.get(key, 'not said')} and {other.get(key, 'not said')}" for key in keys) or None


def short(protocol: Mapping[str, Any]) -> str:
    """In one line."""
    weights = f" {protocol['weights'][:8]}" if protocol.get("weights") else ""
    reals = f", {protocol['num_real']:,} real ({protocol['split']})" if protocol.get("num_real") else ""
    pairs = f", each against its {protocol['against']} ({protocol['split']})" if protocol.get("against") else ""
    bits = ", 8 bit" if protocol.get("values") == "8 bit" else ""
    return f"{protocol['features']}{weights}: {protocol['num_fake']:,} fake{reals}{pairs}{bits}"
