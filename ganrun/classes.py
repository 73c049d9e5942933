"""The order in which classes are shown."""

import re


def natural_order(classes: list[str]) -> list[int]:
    """Class indices in the order to show them: by number where all names are whole numbers, else as they are."""
    if not all(re.fullmatch(r"[+-]?\d+", name, re.A) for name in classes):
        return list(range(len(classes)))
    return sorted(range(len(classes)), key=lambda index: int(classes[index]))
