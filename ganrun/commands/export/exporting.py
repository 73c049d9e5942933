"""From a generator to a file that needs no ganrun, compared with the original before it is written."""

import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ganrun.commands.export.request import Request
from ganrun.depth import to_pixels
from ganrun.errors import Failure, UserError, first_line
from ganrun.files.storage import replacing
from ganrun.progress import tracked
from ganrun.sampling.portable import Graph, of_samples, of_translation, simplify
from ganrun.sampling.translator import Translator
from ganrun.training.of_checkpoint import open_generator

if TYPE_CHECKING:
    import onnx

MOST = 1e-4  # largest error of a value, in images of [-1, 1]
ABOUT = "ganrun"  # name of the metadata
SIZES = ("batch", "channels", "height", "width")
TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom")  # of nodes: where code lies
Run = Callable[[dict[str, Tensor]], Tensor]  # inputs by name -> output


def export(request: Request) -> str:
    """Writes the file; returns how well it agrees with the original. Raises UserError, Failure, CannotWrite."""
    original, plain = (graph(request) for _ in range(2))
    content, said = packed(plain, original, request.format, f"from={request.file}")
    with replacing(request.out) as file:
        file.write(content)
    return said


def packed(plain: Graph, original: Graph, form: str, where: str) -> tuple[bytes, str]:
    """A file's content, and how well it agrees. plain: the same as `original`, of networks that this may change."""
    simplify(plain.network)
    save, load = FORMATS[form]
    with quiet():
        try:
            content = save(traced(plain), plain)
            copy = load(content)
        except Exception as error:  # torch's exporters raise many kinds
            raise UserError(f"{where}: it cannot be exported: {first_line(error)}") from error
        return content, compare(copy, original, where)


def graph(request: Request) -> Graph:
    """Of what `from` names. Raises UserError for settings that do not fit it."""
    made = open_generator(request.file, request.run, trust=request.trust)
    if isinstance(made, Translator):
        if request.truncation_cutoff is not None:
            raise UserError(f"truncation_cutoff={request.truncation_cutoff}: a translator has no noise; leave it out")
        return of_translation(made, request.direction)
    if request.direction is not None:
        raise UserError(f"direction={request.direction}: it is for translators; this generator starts from noise")
    made.check_cutoff(1.0, request.truncation_cutoff)
    return of_samples(made, request.truncation_cutoff)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporters' own warnings and logs from users, who can do nothing about them."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(torch|onnx|onnxscript|onnx_ir|copyreg)\b")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def traced(plain: Graph) -> ExportedProgram:
    """The graph's operations, for batches of any size."""
    with torch.no_grad():
        return torch.export.export(plain.network, (), kwargs=plain.cases[0], dynamic_shapes=plain.dynamic)


def to_pt2(program: ExportedProgram, plain: Graph) -> bytes:
    program.example_inputs = None
    parts = [part for part in program.graph_module.modules() if isinstance(part, GraphModule)]
    for node in (node for part in parts for node in part.graph.nodes):
        for key in TRACES:
            node.meta.pop(key, None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{ABOUT}.json": json.dumps(plain.about)})
    return buffer.getvalue()


def of_pt2(content: bytes) -> Run:
    network = torch.export.load(io.BytesIO(content)).module()
    return lambda inputs: network(**inputs)


def to_onnx(program: ExportedProgram, plain: Graph) -> bytes:
    names = {"input_names": list(plain.dynamic), "output_names": [plain.output]}
    model = torch.onnx.export(program, (), dynamo=True, verbose=False, **names).model_proto
    tidy(model, plain)
    model.metadata_props.add(key=ABOUT, value=json.dumps(plain.about))
    return model.SerializeToString()


def tidy(model: "onnx.ModelProto", plain: Graph) -> None:
    """Names the sizes that vary, gives psi a default, and leaves out what exporters note about the code."""
    from onnx import numpy_helper

    graph, names, model.producer_name = model.graph, {}, ABOUT
    for value in (*graph.input, *graph.output):
        for i, size in enumerate(value.type.tensor_type.shape.dim):
            names = {symbol: SIZES[i] for symbol in re.findall(r"s\d+", size.dim_param)} | names
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in [size for size in value.type.tensor_type.shape.dim if size.dim_param]:
            size.dim_param = re.sub(r"s\d+", lambda found: names.get(found[0], found[0]), size.dim_param)
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    if "psi" in plain.dynamic:
        graph.initializer.append(numpy_helper.from_array(torch.tensor(1.0).numpy(), "psi"))


def of_onnx(content: bytes) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(None, {name: x.numpy() for name, x in inputs.items()})[0])


FORMATS = {"onnx": (to_onnx, of_onnx), "pt2": (to_pt2, of_pt2)}


def compare(copy: Run, original: Graph, where: str) -> str:
    """How far the copy's output is from the original's, in words. Raises Failure for more than MOST."""
    error, differ, values, samples = 0.0, 0, 0, 0
    images = original.about["value_range"] is not None
    for inputs in tracked(original.cases, len(original.cases), "comparing", "batches"):
        with torch.no_grad():
            wanted, got = original.network(**inputs), copy(inputs)
        distance = float((got - wanted).abs().max())
        if not distance <= MOST:  # or NaN
            raise Failure(
                f"{where}: the exported network is {distance:.2g} off the original; at most {MOST:g} is allowed"
            )
        error, samples = max(error, distance), samples + len(wanted)
        if images:
            differ += int((levels(got, original.about) != levels(wanted, original.about)).sum())
            values += wanted.numel()
    depth = original.about["depth"]
    pixels = f"; {differ:,} of {values:,} values differ in {depth} bits" if images else ""
    return f"compared with the original: {samples:,} samples, largest difference {error:.1e}{pixels}"


def levels(images: Tensor, about: dict[str, Any]) -> Tensor:
    """Pixel values as integers that can be compared."""
    return to_pixels(images, depth=about["depth"]).to(torch.int32)
