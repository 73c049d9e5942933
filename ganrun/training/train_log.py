"""train.log: starts, stops, warnings and failures of a run."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ganrun.files.storage import writing

log = logging.getLogger("ganrun")
LIGHTNING = ("pytorch_lightning", "lightning", "lightning_fabric")
NOT_FOR_US = (  # Lightning's advice that does not apply: see data/datamodule.py, module.py
    ".*does not have many workers",
    ".*dataloader is not resumable",
    "Found .* in eval mode",  # frozen networks are
    ".*isinstance.treespec, LeafSpec",  # Lightning's own use of a deprecated check
)


class LogFile(logging.FileHandler):
    """A log file whose write errors are raised, like any other error."""

    def handleError(self, record) -> None:
        raise


def thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Logs an error of TensorBoard's writer thread; it is raised again, and shown, at the next use of the writer."""
    with suppress(OSError):
        log.error("in thread %s", failed.thread, exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Sends ganrun's and Lightning's log lines and Python warnings to train.log, and none to the terminal."""
    loggers = [logging.getLogger(name) for name in ("ganrun", "py.warnings", *LIGHTNING)]
    with writing(path):
        handler = LogFile(path) if path else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.captureWarnings(True)
    hook, threading.excepthook = threading.excepthook, thread_failed
    for text in NOT_FOR_US:
        warnings.filterwarnings("ignore", text)
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if logger is log else logging.WARNING)
    try:
        yield
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        logging.captureWarnings(False)
        threading.excepthook = hook
        handler.close()
