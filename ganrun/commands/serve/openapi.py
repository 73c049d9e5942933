"""What the OpenAPI document says beyond the routes themselves, from the table that checks requests."""

from typing import Any, Literal, get_args, get_origin

from ganrun.commands.serve.translating import ABOUT_QUERY, FIELD
from ganrun.commands.serve.wanted import KEYS, Key

DESCRIPTION = """Samples and translations of a generator that ganrun has trained. Sample i depends only on the seed and
on i, whichever requests share a forward pass. Every error is one line: {"detail": "..."}."""
NAMES = {int: "integer", float: "number", str: "string", list: "array", dict: "object", type(None): "null"}
LINE = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
ANSWER = {"application/json": {"schema": LINE}}
ASKED: dict[str, Any] = {"description": "One line: what was got, what was expected.", "content": ANSWER}
BUSY = {"description": "The queue is full; Retry-After says for how many seconds.", "content": ANSWER}


def schema_of(key: Key) -> dict[str, Any]:
    """A key of a body in JSON Schema."""
    about: dict[str, Any] = {"description": key.told, "default": key.default}
    about |= {"minimum": key.least} if key.least is not None else {}
    about |= {"maximum": key.largest} if key.largest is not None else {}
    if get_origin(key.type) is Literal:
        return {"enum": list(get_args(key.type)), **about}
    kinds = get_args(key.type) if get_origin(key.type) not in (None, Literal) else (key.type,)
    names = [NAMES[kind] for kind in kinds]
    return {"type": names[0] if len(names) == 1 else names, **about}


def responses(kinds: dict[str, str]) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    made = {"description": "The file.", "content": dict.fromkeys(kinds, binary)}
    return {"200": made, "413": ASKED, "415": ASKED, "422": ASKED, "429": BUSY}


OBJECT = {
    "type": "object",
    "additionalProperties": False,
    "properties": {name: schema_of(key) for name, key in KEYS.items()},
    "example": {"num": 16, "seed": 0, "format": "grid"},
}
SAMPLE = {
    "requestBody": {"content": {"application/json": {"schema": OBJECT}}},
    "responses": responses({"image/png": "", "application/x-npz": ""}),
}
FILE = {"type": "string", "format": "binary"}
FORM = {"type": "object", "properties": {FIELD: FILE}, "required": [FIELD]}
TRANSLATE = {
    "parameters": ABOUT_QUERY,
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": FILE},
            "application/octet-stream": {"schema": FILE},
            "multipart/form-data": {"schema": FORM},
        },
    },
    "responses": responses({"image/png": ""}),
}
