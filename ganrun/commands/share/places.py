"""Takes the paths of a machine, and with them the names of its users, out of what is shared."""

import re
from typing import Any

from ganrun.config.places import is_place

KNOWN = {"data_dir": "data", "cache_dir": "cache", "cache": "cache", "run_dir": "run"}  # places that need a name
PATH = re.compile(r"""(?:^|(?<=[\s=,:;'"\[{(]))(?:/(?!/)|~|\.\./|[A-Za-z]:\\)[^,;'"\]})]*""")
HIDDEN = "<path>"


def hidden(node: Any) -> Any:
    """The same plain containers, without absolute paths in any text."""
    if isinstance(node, dict):
        return {key: hidden(value) for key, value in node.items()}
    if isinstance(node, list):
        return [hidden(value) for value in node]
    return PATH.sub(HIDDEN, node) if isinstance(node, str) else node


def hidden_config(node: Any, key: str = "") -> Any:
    """A config without paths: a key that names a place has none at all, not even a relative one."""
    if isinstance(node, dict):
        return {name: hidden_config(value, f"{key}.{name}".lstrip(".")) for name, value in node.items()}
    if isinstance(node, list):
        return [hidden_config(value, key) for value in node]
    if isinstance(node, str) and node and is_place(key):
        return KNOWN.get(key.rpartition(".")[2], HIDDEN)
    return hidden(node)


def hidden_word(word: str) -> str:
    """An override without paths."""
    key, _, value = word.partition("=")
    place = is_place(key.lstrip("+")) and value.lower() not in ("", "null")
    return f"{key}={KNOWN.get(key.rpartition('.')[2], HIDDEN)}" if place else hidden(word)
