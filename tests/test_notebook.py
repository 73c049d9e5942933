"""The notebook in scripts/: it runs from top to bottom, and shows pictures and a bar that is replaced in place."""

import io
import warnings
from base64 import b64decode

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from PIL import Image

FILE = ROOT / "scripts" / "notebook.ipynb"


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def pictures(notebook):
    found = [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    return [Image.open(io.BytesIO(b64decode(content))) for content in found]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """After two steps, in which each state of the bar is shown."""
    path = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(FILE, as_version=4)
    (settings,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    settings.source = "import ganrun.callbacks.progress\nganrun.callbacks.progress.OFTEN = 0\nsteps = 2"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own parts
        patch.setenv("IPYTHONDIR", str(path))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(path))
        resources = {"metadata": {"path": str(path)}}
        NotebookClient(notebook, timeout=300, startup_timeout=300, resources=resources).execute()
    (run,) = path.glob("outputs/*/*/*")
    return notebook, run


def test_it_runs_and_shows_pictures(executed):
    notebook, run = executed
    assert (run / "generator.safetensors").exists()
    assert [picture.width > 400 for picture in pictures(notebook)] == [True] * 3
    assert not [each for each in outputs(notebook) if each.output_type == "error" or each.get("name") == "stderr"]
    cards = [page for each in outputs(notebook) if "<img" in (page := each.get("data", {}).get("text/html", ""))]
    assert len(cards) == 1 and "finished" in cards[0] and "sliced-wasserstein" in cards[0]


def test_the_bar_is_one_output_replaced_in_place(executed):
    notebook, _ = executed
    training = next(cell for cell in notebook.cells if "ganrun.train(" in cell.source)
    assert {output.output_type for output in training.outputs} == {"display_data"} and len(training.outputs) == 3
    bar = training.outputs[1].data["text/html"]
    assert bar.startswith('<progress value="2" max="2"') and "step 2 of 2: discriminator " in bar


def test_what_a_visitor_sees(executed):
    """The outputs in the file are of a real run with these cells."""
    notebook = nbformat.read(FILE, as_version=4)
    assert FILE.stat().st_size < 300_000 and len(pictures(notebook)) == 3
    assert [len(cell.get("outputs", ())) for cell in notebook.cells] == [
        len(cell.get("outputs", ())) for cell in executed[0].cells
    ]
    assert "finished after 1,500 steps" in str(outputs(notebook))
