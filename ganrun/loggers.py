"""Loggers beside TensorBoard and metrics.jsonl: Lightning's own, with their files in the run directory."""

import os
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, WandbLogger
from pytorch_lightning.loggers.logger import Logger

from ganrun.errors import UserError, one_of


class InRun(ABC):
    """The settings of a logger that needs the run directory, checked before the directory is made."""

    @abstractmethod
    def open(self, run: Path) -> Logger:
        """The logger for the run in that directory; a resumed run continues its earlier log."""


def need(package: str) -> None:
    if find_spec(package) is None:
        raise UserError(f"{package} is not installed: pip install {package}")


class Csv(InRun):
    """Writes csv/version_<n>/metrics.csv, where n counts the starts of the run."""

    def open(self, run: Path) -> Logger:
        return CSVLogger(run, name="csv", flush_logs_every_n_steps=1)


class Wandb(InRun):
    """Weights & Biases; a resume continues the same run there.

    mode: offline writes to wandb/ in the run directory, for `wandb sync`; online also sends it.
    """

    def __init__(self, *, project: str = "ganrun", mode: str = "offline"):
        need("wandb")
        if mode not in ("offline", "online"):
            raise UserError(f"mode={mode}; {one_of(('offline', 'online'), mode)}")
        self.project = project
        self.offline = mode == "offline"

    def open(self, run: Path) -> Logger:
        class OneRun(WandbLogger):  # here, where no config can name it
            def finalize(self, status: str) -> None:
                super().finalize(status)
                if self._experiment is not None:
                    self._experiment.finish()  # otherwise the next job of a sweep would continue it

        earlier = sorted(run.glob("wandb/*run-*-*"))  # <when>-<id>
        own = earlier[0].name.rpartition("-")[2] if earlier else None
        return OneRun(name=run.name, save_dir=run, version=own, offline=self.offline, project=self.project)


class Mlflow(InRun):
    """MLflow, at $MLFLOW_TRACKING_URI or in mlflow/ of the run directory; a resume continues the same run there.

    The directory holds a database: later versions of mlflow refuse plain files, its former default.
    """

    def __init__(self, *, experiment: str = "ganrun"):
        need("mlflow")
        self.experiment = experiment

    def open(self, run: Path) -> Logger:
        folder = run.absolute() / "mlflow"
        folder.mkdir(exist_ok=True)
        place, files = os.environ.get("MLFLOW_TRACKING_URI"), None
        if place is None:
            place, files = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        kept = folder / "run"  # its id
        own = kept.read_text().strip() if kept.exists() else None
        about = {"run_name": run.name, "run_id": own, "artifact_location": files}
        logger = MLFlowLogger(self.experiment, tracking_uri=place, **about)
        if own is None and logger.run_id:  # None in processes that log nothing
            kept.write_text(logger.run_id)
        return logger
