"""Lightning gets the two classes of torchmetrics that it asks for; whoever wants more has all of it."""

from forked import run

SCRIPT = """
import sys

import pytorch_lightning as pl
from torchmetrics import Metric, MetricCollection

assert not {"torchmetrics.functional", "torchmetrics.classification", "torchvision"} & sys.modules.keys()
import torchmetrics

assert torchmetrics.__version__[0].isdigit() and not hasattr(torchmetrics, "__nothing__")
assert issubclass(torchmetrics.MeanMetric, Metric) and torchmetrics.Metric is Metric
from torchmetrics.functional.image import structural_similarity_index_measure

assert torchmetrics.MetricCollection is MetricCollection and type(torchmetrics) is type(sys)
try:
    torchmetrics.nothing
except AttributeError:
    print("done")
"""


def test_all_of_torchmetrics_is_there_when_it_is_asked_for(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    assert run(cwd=tmp_path, script=tmp_path / "script.py").out == "done\n"
