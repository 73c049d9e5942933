"""hf://<owner>/<name>: files of a repository on the Hugging Face Hub, of one commit; once cached, from the cache.

The package huggingface_hub does the transfers and finds the token; an address elsewhere is $HF_ENDPOINT.
"""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ganrun.errors import Failure, UserError, one_of, require_extra

SCHEME = "hf://"
FILE = "generator.safetensors"  # what an address without a file means
ADDRESS = re.compile(r"([\w.-]+/[\w.-]+)(?:@(refs/pr/\d+|[^/@]+))?(?:/([^@]+))?", re.A)
COMMIT = re.compile(r"[0-9a-f]{40}")


class Address(NamedTuple):
    """revision: a branch, a tag or a commit, None = the repository's main branch. file: a .safetensors in it."""

    repo: str
    revision: str | None
    file: str


def is_address(place: object) -> bool:
    return isinstance(place, str) and place.startswith(SCHEME)


def parsed(text: str) -> Address:
    """hf://<owner>/<name>[@<revision>][/<file>]; a / within a revision is written %2F. Raises UserError."""
    match = ADDRESS.fullmatch(text.removeprefix(SCHEME).rstrip("/"))
    file = (match and match[3]) or FILE
    if not match or not file.endswith(".safetensors") or ".." in file.split("/"):
        raise UserError(f"{text}; expected hf://<owner>/<name>[@<revision>][/<file>.safetensors]")
    return Address(match[1], match[2] and unquote(match[2]), file)


def fetched(text: str) -> Path:
    """The .safetensors file of an address, in the hub's cache, with its .yaml beside it; both of one commit.

    A revision that may move is resolved to its commit, which is said on stderr; without the hub, to the last known one.
    Contents are compared with the hashes that the hub names them by. Raises UserError, Failure.
    """
    require_extra("hf://", "hub", "huggingface_hub")
    address = parsed(text)
    with told(text), quietly():
        pinned = bool(COMMIT.fullmatch(address.revision or ""))
        known, paths = None, pair(address, cached=True) if pinned else None
        if paths is None:
            known = files_of(address)
            check_there(text, address, known)
            paths = pair(address, cached=known is None)
        if paths is None:
            raise Failure(f"{text}: {OFFLINE}, and it is not in the cache")
    for path in paths:
        check(path)
    if not pinned:
        commit, when = snapshot(paths[0]), "" if known else ", when the hub was last reached"
        same = f"{SCHEME}{address.repo}@{commit}" + ("" if address.file == FILE else f"/{address.file}")
        print(f"note: {address.revision or 'main'} is commit {commit}{when}; {same} stays the same", file=sys.stderr)
    return paths[1]


def pair(address: Address, *, cached: bool) -> tuple[Path, Path] | None:
    """The .yaml and the .safetensors, of one commit. cached: do not ask the hub; None if they are not both there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    header = str(Path(address.file).with_suffix(".yaml"))
    try:
        first = Path(hf_hub_download(address.repo, header, revision=address.revision, local_files_only=cached))
        commit = snapshot(first)  # also of the other file, should the branch move meanwhile
        return first, Path(hf_hub_download(address.repo, address.file, revision=commit, local_files_only=cached))
    except LocalEntryNotFoundError:
        if not cached:
            raise
        return None


def files_of(address: Address) -> list[str] | None:
    """The files of a revision, as the hub says; None if it cannot be reached."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(address.repo, revision=address.revision, timeout=10)
    except Exception as error:
        if not is_offline(error):
            raise
        return None
    return [file.rfilename for file in info.siblings or []]


def check_there(text: str, address: Address, known: list[str] | None) -> None:
    """Raises UserError for a file that is not among the known ones."""
    header = str(Path(address.file).with_suffix(".yaml"))
    if known is not None and not {header, address.file} <= set(known):
        there = [name for name in known if name.endswith(".safetensors")]
        raise UserError(f"{text}: there is no {address.file} with its .yaml there; {one_of(there, address.file)}")


def snapshot(path: Path) -> str:
    """The commit in whose folder of the cache a file lies."""
    return path.parts[len(path.parts) - path.parts[::-1].index("snapshots")]


def check(path: Path) -> None:
    """Raises UserError unless a file has the hash that it is named by in the cache: SHA-256, or git's of small files.

    Where a cache has no links, names say nothing, and nothing is compared.
    """
    from huggingface_hub.utils.sha import git_hash, sha_fileobj

    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        with blob.open("rb") as file:
            found = sha_fileobj(file).hex()
    elif COMMIT.fullmatch(blob.name):
        found = git_hash(blob.read_bytes())
    else:
        return
    if found != blob.name:
        raise UserError(f"{path}: damaged, its hash is not the hub's; remove {blob}, and it is downloaded again")


@contextmanager
def quietly() -> Iterator[None]:
    """Bars of transfers on a terminal only, and no warnings of the packages that carry requests about each other."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hides = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hides:
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="huggingface_hub|" + "|".join(NETWORK))
            yield
    finally:
        if hides:
            enable_progress_bars()


TOKEN = "log in with `hf auth login`, or set HF_TOKEN"
OFFLINE = "the hub cannot be reached"
KINDS = {  # of errors, by the names of their classes
    "GatedRepoError": (UserError, "its owner wants to be asked first, on its page on the hub"),
    "RepositoryNotFoundError": (UserError, f"no such repository, or it is private; {TOKEN}"),
    "RevisionNotFoundError": (UserError, "there is no such branch, tag or commit"),
    "LocalEntryNotFoundError": (Failure, f"{OFFLINE}, and it is not in the cache"),
    "EntryNotFoundError": (UserError, "no such file there"),
}
REFUSED = {401: f"no token, or not a valid one; {TOKEN}", 403: "this token has no right to it",
           409: "this name is taken", 429: "too many requests; try again later"}  # fmt: skip
NETWORK = ("httpx", "httpcore", "requests", "urllib3")  # names of packages, or their beginnings, that carry requests


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turns what the hub's package raises into one line. what: the address or setting that was asked for.

    Raises UserError for what the user can mend: no token, no right, a name that is not there; Failure for a network.
    """
    try:
        yield
    except Failure:
        raise
    except Exception as error:
        found = failure(what, error)
        if found is None:
            raise
        raise found from error


def failure(what: str, error: Exception) -> Failure | None:
    """The error in one line; None for one that has nothing to do with the hub."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    for kind in type(error).__mro__:
        if kind.__name__ in KINDS:
            failed, text = KINDS[kind.__name__]
            return failed(f"{what}: {text}")
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # of a thread that uploads
        return failure(what, error.__cause__)
    if isinstance(error, HFValidationError):
        return UserError(f"{what}: {' '.join(str(error).split())}")
    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        text = REFUSED.get(status) or f"the hub refused: {error.server_message or ' '.join(str(error).split())[:200]}"
        return (UserError if status in REFUSED else Failure)(f"{what}: {text}")
    if isinstance(error, OSError) and error.filename:  # a disk, not a network
        return Failure(f"{what}: {error.filename}: {error.strerror}")
    return Failure(f"{what}: {OFFLINE}") if is_offline(error) else None


def is_offline(error: Exception) -> bool:
    """Does it say that the hub cannot be reached, in the words of whatever carries requests, or cannot answer?"""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code >= 500
    return isinstance(error, OSError) or type(error).__module__.startswith(NETWORK)
