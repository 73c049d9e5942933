"""How a run fails: the reason is recorded, and the user is told from which step it can continue."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ganrun.config.places import command
from ganrun.errors import CannotWrite, Failure, NotFinite, UserError, reason_of
from ganrun.files.run_dir import RunDir
from ganrun.training.state import find_start
from ganrun.training.train_log import log


@contextmanager
def failing(run: RunDir) -> Iterator[None]:
    """Records why a run failed and tells where it can be continued; then the error is raised again."""
    try:
        yield
    except Exception as error:
        known = told_as(error, run)
        step = getattr(error, "step", getattr(error.__cause__, "step", 0))
        advice = what_now(run, known)
        with suppress(OSError, CannotWrite):  # the disk itself may have failed
            log.error("failed at step %d; %s", step, advice, exc_info=error)
        with suppress(OSError, CannotWrite):
            run.write_result(run.read_result() | {"status": "failed", "reason": reason_of(known), "steps": step})
        if not isinstance(known, Failure):
            print(f"ganrun: failed at step {step}; {advice}", file=sys.stderr)
            with suppress(AttributeError):  # a class with slots
                error.run_dir = run.path
            raise
        failure = type(known)(f"{known}; {advice}")
        failure.run_dir = run.path
        raise failure from error


def told_as(error: Exception, run: RunDir) -> Exception:
    """Turns an OSError about a file of the run, or about a full or failing disk, into CannotWrite; others stay."""
    if not isinstance(error, OSError):
        return error
    inside = os.fsdecode(error.filename or "").startswith(str(run.path))
    storage = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
    return CannotWrite.of(os.fsdecode(error.filename or run.path), error) if inside or storage else error


def died(run: RunDir, reason: str) -> str:
    """Records the failure when the training thread cannot: it waits for a dead process. Returns the last line."""
    with suppress(OSError, CannotWrite):
        run.write_result(run.read_result() | {"status": "failed", "reason": reason})
    return f"ganrun: {reason}; {what_now(run, Failure(reason))}"


def what_now(run: RunDir, error: Exception) -> str:
    """Where a failed run can be continued."""
    try:
        if not run.config.exists():
            return f"{run.path} is gone, and with it all that was saved"
        start = find_start(run)
    except (OSError, UserError) as broken:
        return str(broken)
    if start is None and isinstance(error, NotFinite):
        return "nothing had been saved before"
    if start is None:
        return f"nothing had been saved: {command(f'resume={run.path}')} starts anew"
    if isinstance(error, NotFinite):
        return (
            f"the last finite state is {start.path}, step {start.step}: a new run from it, such as with a lower "
            f"learning rate: {command(f'init_from={run.path}')}"
        )
    return f"go on from step {start.step} with: {command(f'resume={run.path}')}"
