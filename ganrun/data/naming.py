"""What the labels of samples mean: class numbers, or names."""

from collections.abc import Sequence
from typing import Any

from ganrun.classes import listed
from ganrun.data.files import printable
from ganrun.data.labels import MOST, by_file
from ganrun.data.table import whole_of
from ganrun.errors import UserError

Numbered = tuple[list[int] | None, list[str], str]  # of each sample, None = no classes; the names; a note


class Naming:
    """Labels -> class numbers. known: names of the classes, by number; None = they are found.

    A number means the class of that number. Text means the class of that name, else that of the number it spells;
    where names are found, they are the numbers if every label is one, else all texts, sorted.
    """

    def __init__(self, known: Sequence[str] | None):
        self.known = None if known is None else [str(name) for name in known]
        self._at = {name: number for number, name in enumerate(self.known or ())}
        if len(self._at) < len(self.known or ()):
            raise UserError(f"dataset.class_names={self.known[:10]}: a name is there twice; expected each once")

    def fault(self, label: Any) -> str | None:
        """Why a label is none; None if it is one."""
        if label is None or label == "":
            return "it has no label"
        number, shown = whole_of(label), printable(str(label))[:40]
        if isinstance(label, list | dict) or (isinstance(label, float) and number is None):
            return f"its label is {shown}; expected a class: text or a whole number"
        if self.known is not None:
            return f"its label {shown} is none of {len(self.known)} classes" if self._known(label) is None else None
        return None if number is None or 0 <= number < MOST else f"its label is {shown}; expected 0 to {MOST - 1:,}"

    def numbered(self, labels: Sequence[Any], place: str) -> Numbered:
        """place: what holds them, for the note."""
        if self.known is not None:
            numbers = [self._known(label) for label in labels]
            empty = sorted(set(range(len(self.known))) - set(numbers))
            without = f"; without images: {listed([self.known[number] for number in empty])}" if empty else ""
            return numbers, self.known, printable(f"classes: {listed(self.known)} from {place}{without}")
        whole = [whole_of(label) for label in labels]
        if None not in whole:
            samples = list(map(str, range(len(whole))))
            return by_file(samples, dict(zip(samples, whole, strict=True)), place)
        texts = [str(label) for label in labels]
        found = sorted(set(texts))
        if not 1 < len(found) <= MOST:
            return None, [], printable(f"no classes: {place} has {len(found):,} different labels, such as {found[0]}")
        at = {text: number for number, text in enumerate(found)}
        return [at[text] for text in texts], found, printable(f"classes: {listed(found)} from {place}")

    def _known(self, label: Any) -> int | None:
        """Its number among the names."""
        text = str(label) if isinstance(label, str | bool) else None
        if text in self._at:
            return self._at[text]
        number = whole_of(label)
        return number if number is not None and 0 <= number < len(self._at) else None
