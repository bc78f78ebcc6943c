"""Int8 quantisation of a TFLite graph's encoder with AI Edge Quantizer: s8 weights, one scale per channel.

Activations are s8, too: with ranges found beforehand (static), or quantised at run time (dynamic), which
cannot couple faces: the graph takes one at a time, and XNNPACK's kernels have a range per row. What takes
part in the encoder, and in which of its modules, is told by the graph's tensor names.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager
from ai_edge_quantizer.utils import qsv_utils, tfl_flatbuffer_utils
from numpy.typing import NDArray

from calibrate.quiet import quiet_tool
from calibrate.recipe import Offer, Recipe, check_choice, check_modules, check_quantised, covers
from edge_fer.errors import CalibrationError
from edge_fer.native_log import without_information

DEFAULT = Recipe(weights="s8", activations="s8", ranges="minmax")
OFFER = Offer(
    tool="AI Edge Quantizer",
    weights=("s8",),
    activations=("s8",),
    ranges=("minmax", "mean"),
)
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
CARRIERS = (*CONVOLUTIONS, "FULLY_CONNECTED")
ELEMENTWISE = ("ADD", "MUL", "SUB")
# What makes maps of maps. Without MEAN: 8 bits around it would only cost the embedding precision.
KEEP_MAPS = (*ELEMENTWISE, "PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D")
QUANTISED_TYPES = (*CARRIERS, *KEEP_MAPS)
# The tool's own estimate is a moving average, in which hardly more than the last 60 faces count.
UPDATES = {"minmax": qsv_utils.min_max_update, "mean": qsv_utils.moving_average_update}
_BRIDGES = ("QUANTIZE", "DEQUANTIZE")
_NAMES = {code: name for name, code in vars(qtyping.BuiltinOperator).items() if not name.startswith("_")}


@dataclass(frozen=True, slots=True)
class Prepared:
    """The ranges of a float graph's activations, by tensor, and how they were estimated."""

    ranges: Mapping[str, Any]
    estimator: str


def prepare(
    graph: bytes,
    encoder: str,
    crops: NDArray[np.uint8],
    *,
    recipe: Recipe = DEFAULT,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Do what takes long once for several calls of `quantise`, whose recipes may differ in all but `ranges`.

    Args:
        graph: the float TFLite graph: one signature, input `image` uint8 (1, S, S, 3).
        encoder: regular expression for the names of the tensors that the encoder's operators write.
        crops: (N, S, S, 3) uint8 calibration faces.
        recipe: whose way of finding ranges is taken.
        progress: called with the number of faces seen.

    Raises:
        CalibrationError: the recipe is none for this tool, or nothing was to be quantised.
    """
    OFFER.check(recipe)
    chosen = some_operators(graph, encoder)
    with quiet_tool():
        with quiet_errors():
            tool = quantizer.Quantizer(bytearray(graph))
            add_recipes(tool, chosen, recipe)
            manager = recipe_manager.RecipeManager()
            manager.load_quantization_recipe(tool.get_quantization_recipe())
        with ExitStack() as quiet:
            quiet.enter_context(quiet_errors())
            update: Any = UPDATES[recipe.ranges]
            runner = calibrator.Calibrator(bytearray(graph), num_threads=1, qsv_update_func=update)
            # Once it has counted the faces the tool keeps to what it has, and our own bar needs the terminal.
            runner.calibrate({signature(graph): Faces(crops, progress, quiet.close)}, manager)
    return Prepared(runner.get_model_qsvs(), recipe.ranges)


def quantise(
    graph: bytes,
    encoder: str,
    crops: NDArray[np.uint8],
    *,
    recipe: Recipe = DEFAULT,
    known: Callable[[], Prepared] | None = None,
    progress: Callable[[int], None] | None = None,
) -> bytes:
    """Quantise the encoder's operators behind the pixel normalisation; everything else stays float32.

    Args:
        graph: the float TFLite graph: one signature, input `image` uint8 (1, S, S, 3).
        encoder: regular expression for the names of the tensors that the encoder's operators write.
        crops: (N, S, S, 3) uint8 calibration faces.
        recipe: the choices.
        known: gives what `prepare` made of the same graph and faces; None: it is done here. Called once the
            recipe is known to fit.
        progress: called with the number of faces seen.

    Raises:
        CalibrationError: the recipe is none for this tool, nothing was to be quantised, or the quantiser left
            every convolution and matrix product float.
    """
    OFFER.check(recipe)
    chosen = some_operators(graph, encoder, recipe.float_modules, float_first=recipe.float_first)
    prepared = known() if known else prepare(graph, encoder, crops, recipe=recipe, progress=progress)
    check_choice("prepared graph", "ranges", recipe.ranges, (prepared.estimator,))
    with quiet_tool(), quiet_errors():
        tool = quantizer.Quantizer(bytearray(graph))
        add_recipes(tool, chosen, recipe)
        ranges = dict(prepared.ranges)
        result = tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    assert result.quantized_model is not None
    quantised = bytes(result.quantized_model)
    check_quantised(count_quantised(quantised), CARRIERS)
    return quantised


def quantise_dynamic(graph: bytes, encoder: str, *, float_modules: Collection[str] = ()) -> bytes:
    """Store the weights of the encoder's convolutions and matrix products in 8 bits.

    The engine quantises their inputs when it runs, by a range of each row; no calibration faces are needed.

    Args:
        graph: the float TFLite graph.
        encoder: regular expression for the names of the tensors that the encoder's operators write.
        float_modules: module paths that stay float with everything beneath them.

    Raises:
        CalibrationError: nothing was to be quantised, or a module has no operator.
    """
    chosen = some_operators(graph, encoder, float_modules)
    weighted = {name: kind for name, kind in chosen.items() if kind in CARRIERS}
    with quiet_tool(), quiet_errors():
        tool = quantizer.Quantizer(bytearray(graph))
        for kind, pattern in patterns(weighted):
            tool.add_dynamic_config(regex=pattern, operation_name=kind, num_bits=8)
        result = tool.quantize(enable_progress_bar=False, enable_progress_report=False)
    assert result.quantized_model is not None
    quantised = bytes(result.quantized_model)
    check_quantised(count_quantised(quantised), CARRIERS)
    return quantised


def add_recipes(tool: Any, chosen: Mapping[str, str], recipe: Recipe) -> None:
    """Ask for static int8 in exactly the operators that were chosen: output name to type."""
    weights = qtyping.TensorQuantizationConfig(8, granularity=qtyping.QuantGranularity.CHANNELWISE)
    config = qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(8, symmetric=recipe.symmetric),
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )
    for kind, pattern in patterns(chosen):
        tool.update_quantization_recipe(regex=pattern, operation_name=kind, op_config=config)


def patterns(chosen: Mapping[str, str]) -> Iterator[tuple[qtyping.TFLOperationName, str]]:
    """Yield each type with the pattern of the outputs of its operators that were chosen."""
    for kind in sorted(set(chosen.values())):
        names = "|".join(re.escape(name) for name, own in chosen.items() if own == kind)
        # The pattern is searched in the names of an operator's outputs, each followed by a semicolon.
        yield qtyping.TFLOperationName(kind), f"^(?:{names});?$"


class Faces:
    """Crops as the calibrator reads them, one at a time; it goes over them twice, first to count.

    Args:
        crops: (N, S, S, 3) uint8 RGB.
        progress: called with the number of faces seen, the second time.
        counted: called before the second time.
    """

    def __init__(
        self,
        crops: NDArray[np.uint8],
        progress: Callable[[int], None] | None,
        counted: Callable[[], None] | None = None,
    ) -> None:
        self.crops = crops
        self.progress = progress
        self.counted = counted
        self.rounds = 0

    def __iter__(self) -> Iterator[dict[str, NDArray[np.uint8]]]:
        self.rounds += 1
        if self.rounds == 2 and self.counted is not None:
            self.counted()
        for number in range(len(self.crops)):
            yield {"image": self.crops[number : number + 1]}
            if self.rounds == 2 and self.progress is not None:
                self.progress(number + 1)


@contextmanager
def quiet_errors() -> Iterator[None]:
    """Keep the quantiser's bars, and what the interpreter writes, away from standard error."""
    with redirect_stderr(io.StringIO()), without_information():
        yield


def operators(graph: bytes) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Yield type, input tensors (the absent ones left out) and output tensors of every operator."""
    model = tfl_flatbuffer_utils.read_model(bytearray(graph))
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            kind = _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
            inputs = [subgraph.tensors[index] for index in operator.inputs if index >= 0]
            yield kind, inputs, [subgraph.tensors[index] for index in operator.outputs]


def constants(graph: bytes) -> set[int]:
    """Return the numbers of the buffers that hold something: those of constant tensors."""
    model = tfl_flatbuffer_utils.read_model(bytearray(graph))
    return {
        number for number, buffer in enumerate(model.buffers) if buffer.data is not None and len(buffer.data)
    }


def signature(graph: bytes) -> str:
    """Return the name of the graph's one signature."""
    model = tfl_flatbuffer_utils.read_model(bytearray(graph))
    (only,) = model.signatureDefs
    key = only.signatureKey
    return key.decode() if isinstance(key, bytes) else str(key)


def choose_operators(
    graph: bytes, encoder: str, float_modules: Collection[str] = (), *, float_first: bool = False
) -> dict[str, str]:
    """Return output name to type of the encoder's operators that have int8 kernels worth using.

    Left out are the pixel normalisation, what a recipe keeps float, products of two activations, whose int8
    kernel XNNPACK lacks, and arithmetic of anything but maps: attention scores, tokens and pooled vectors are
    what 8 bits hurt first, and their share of the time is small.

    Raises:
        CalibrationError: a module has no operator.
    """
    filled = constants(graph)
    chosen: dict[str, str] = {}
    behind: set[str] = set()
    maps: set[str] = set()
    present: set[str] = set()
    for kind, inputs, outputs in operators(graph):
        name = text(outputs[0].name)
        varying = {text(tensor.name) for tensor in inputs if tensor.buffer not in filled}
        reached = bool(behind & varying)
        if kind not in CARRIERS and not reached:
            continue  # the pixels have not met a convolution yet
        behind.update(text(tensor.name) for tensor in outputs)
        if kind in CONVOLUTIONS or (kind in KEEP_MAPS and varying <= maps):
            maps.add(name)
        if not re.search(encoder, name):
            continue
        paths = module_paths(name)
        present.update(paths)
        if kind not in QUANTISED_TYPES or any(covers(float_modules, path) for path in paths):
            continue
        if float_first and not reached:
            continue
        if varying <= maps if kind in KEEP_MAPS else kind in CARRIERS and len(varying) == 1:
            chosen[name] = kind
    check_modules(float_modules, present)
    return chosen


def some_operators(
    graph: bytes, encoder: str, float_modules: Collection[str] = (), *, float_first: bool = False
) -> dict[str, str]:
    """Return `choose_operators`, or raise CalibrationError when no convolution or product is among them."""
    chosen = choose_operators(graph, encoder, float_modules, float_first=float_first)
    if not set(chosen.values()).intersection(CARRIERS):
        raise CalibrationError(
            f"expected operators to quantise ({', '.join(CARRIERS)}), got none named {encoder}"
        )
    return chosen


def module_paths(name: str) -> list[str]:
    """Return the module paths in a tensor's name: its operator's own, and those of what was fused into it.

    A name is made of paths like `package.Class_attribute/package.Class_attribute`, joined by semicolons, its
    own first. Others are left out: they come from constants that the converter shares between modules. The
    first steps of a path are those of the graph's wrapper, so it is given from each of its steps on.
    """
    own, paths = "", []
    for part in name.split(";"):
        steps = [step.rpartition(".")[2].lstrip("_").partition("_")[2] for step in part.split("/")]
        steps = [step for step in steps if step]
        own = own or ".".join(steps)
        if covers([own], ".".join(steps)):
            paths += [".".join(steps[start:]) for start in range(len(steps))]
    return paths


def text(name: bytes | str) -> str:
    """Return a tensor's name, which the reader gives as bytes."""
    return name.decode() if isinstance(name, bytes) else str(name)


def count_quantised(graph: bytes) -> dict[str, int]:
    """Count, by operator type, the operators that read and write int8, or whose weights are int8."""
    counts: dict[str, int] = {}
    for kind, inputs, outputs in operators(graph):
        static = kind in QUANTISED_TYPES and _is_int8(inputs[0]) and _is_int8(outputs[0])
        if static or (kind in CARRIERS and _is_int8(inputs[1])):
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))


def count_float(graph: bytes) -> dict[str, int]:
    """Count, by operator type, the other operators; the quantisers themselves are left out."""
    quantised = count_quantised(graph)
    counts: dict[str, int] = {}
    for kind, _, _ in operators(graph):
        if kind not in _BRIDGES:
            counts[kind] = counts.get(kind, 0) + 1
    rest = {kind: count - quantised.get(kind, 0) for kind, count in counts.items()}
    return {kind: count for kind, count in sorted(rest.items()) if count}


def _is_int8(tensor: Any) -> bool:
    return bool(tensor.type == qtyping.TensorType.INT8)
