"""The settings of `ganrun serve`, checked before anything heavy is imported."""

import os
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from omegaconf import DictConfig

from ganrun.commands.sample.request import checked, find_generator
from ganrun.config.typed import check_maximum, check_minimum
from ganrun.errors import UserError

KEYS = {"from": str, "host": str, "port": int, "device": str | int, "batch_size": int, "wait": float, "queue": int,
        "most": int, "max_bytes": int, "max_pixels": int, "watch": float | None, "trust": str | list[str]}  # fmt: skip
MINIMUM = {"port": 0, "batch_size": 1, "wait": 0, "queue": 1, "most": 1, "max_bytes": 1024, "max_pixels": 1}
MAXIMUM = {"port": 65535, "batch_size": 10**4, "wait": 1000, "queue": 10**6, "most": 10**5, "max_bytes": 2**30}
SHORTEST = 16  # characters of a token
TOKEN = "GANRUN_TOKEN"


@dataclass(frozen=True)
class Settings:
    """source: the value of from=. wait: in seconds. token: None = no request needs one. Others: see serve.yaml."""

    source: str
    host: str
    port: int
    device: str
    batch_size: int
    wait: float
    queue: int
    most: int
    max_bytes: int
    max_pixels: int
    watch: float | None
    trust: str | list[str]
    token: str | None

    @property
    def local(self) -> bool:
        """Can only this machine reach it?"""
        return is_loopback(self.host)


def check_serve(cfg: DictConfig) -> Settings:
    """Raises UserError for the first error."""
    keys = checked(cfg, KEYS)
    check_minimum(cfg, MINIMUM)
    check_maximum(cfg, MAXIMUM)
    if keys["watch"] is not None and keys["watch"] < 0.1:
        raise UserError(f"watch={keys['watch']}; expected at least 0.1 seconds, or null")
    if keys["most"] > keys["queue"]:
        raise UserError(f"most={keys['most']} queue={keys['queue']}: a request of so many images would never find room")
    find_generator(keys["from"], tell=False)
    token = check_token(os.environ.get(TOKEN))
    if token is None and not is_loopback(keys["host"]):
        told = f"set {TOKEN} to a secret that clients then send as `Authorization: Bearer <token>`, or use 127.0.0.1"
        raise UserError(
            f"host={keys['host']}: other machines may reach this address, and nothing asks who they are; {told}"
        )
    return Settings(keys.pop("from"), **keys | {"wait": keys["wait"] / 1000}, token=token)


def check_token(token: str | None) -> str | None:
    """The token, None if there is none. Raises UserError for one that can be guessed or cannot be sent."""
    if not token:
        return None
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise UserError(f"{TOKEN}: expected printable ASCII characters without spaces, which a header can hold")
    if len(token) < SHORTEST:
        raise UserError(f"{TOKEN}: {len(token)} characters can be guessed; expected at least {SHORTEST}")
    return token


def is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
