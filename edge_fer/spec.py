"""What the runtime must know of a model: `ModelSpec` and its form in bundle.json.

Knows the fixed keys of bundle.json and what each may hold. Does not know files or hashes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from edge_fer.preprocess import CropSpec

GRAPH_FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"onnx": ("model.onnx",), "openvino": ("model.xml", "model.bin"), "tflite": ("model.tflite",)}
)
"""The graph's member names for each target; the first one is the graph itself."""

ENGINES = ("onnxruntime", "openvino", "tflite")
PRECISIONS = ("fp32", "fp16", "int8")
QUANTISATIONS = ("static", "dynamic", "none")
FLOAT_COMPUTES = ("fp32", "bf16")
OUTPUTS = ("probabilities", "primary", "reliability")
OPTIONAL_OUTPUTS = ("embedding",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What bundle.json says of a model, the list of members apart.

    Attributes:
        model: name of the network, for example `grefel-lite`.
        labels: names of the C classes, in the order of the graph's columns.
        input: how a face becomes the graph's input, uint8 (N, S, S, 3) RGB.
        outputs: names of the graph's outputs: `OUTPUTS`, then `embedding` when it was asked for.
        target: what export was asked for: onnx, openvino or tflite.
        engine: the engine that runs the graph by default.
        precision: fp32, fp16 or int8.
        quantisation: static, dynamic or none.
        quantised_ops: operation type to the count that is quantised in the graph.
        float_ops: operation type to the count that stayed float.
        untrained: True for seeded weights that nobody trained.
        min_reliability: the threshold that `auto` means, 0..1; None when there is none.
        source: checkpoint and calibration manifest SHA-256, tool versions.
        weights: licence and training data of the weights.
        failed: True for a bundle that was kept although a parity gate failed.
        float_compute: what the operators that stayed float compute in, fp32 or bf16, where the processor can.
    """

    model: str
    labels: tuple[str, ...]
    input: CropSpec
    outputs: tuple[str, ...]
    target: str
    engine: str
    precision: str
    quantisation: str
    quantised_ops: Mapping[str, int]
    float_ops: Mapping[str, int]
    untrained: bool
    min_reliability: float | None
    source: Mapping[str, str | Mapping[str, object] | None]
    weights: Mapping[str, str]
    failed: bool = False
    float_compute: str = "fp32"

    @property
    def graph_files(self) -> tuple[str, ...]:
        """Names of the members that make up the graph, the graph itself first."""
        return GRAPH_FILES[self.target]

    def to_json(self) -> dict[str, object]:
        """Return the spec's keys of bundle.json, in their fixed order."""
        fields: dict[str, object] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, CropSpec):
                value = value.to_json()
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, Mapping):
                value = _plain(value)
            fields[field.name] = value
        return fields

    @classmethod
    def from_json(cls, value: object) -> ModelSpec:
        """Check the spec's keys of bundle.json and build the spec.

        Raises:
            ValueError: a key is missing, unknown or holds something it may not; the text names it.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"expected an object of keys, got {shorten(value)}")
        known = {field.name for field in dataclasses.fields(cls)}
        check_keys(value, required=known - {"failed", "float_compute"}, allowed=known)
        target = _choice(value, "target", tuple(GRAPH_FILES))
        try:
            crop = CropSpec.from_json(value["input"])
        except (ValueError, OverflowError) as error:
            raise ValueError(f"`input` is not usable: {error}") from error
        return cls(
            model=_text(value, "model"),
            labels=_names(value, "labels"),
            input=crop,
            outputs=_outputs(value),
            target=target,
            engine=_choice(value, "engine", ENGINES),
            precision=_choice(value, "precision", PRECISIONS),
            quantisation=_choice(value, "quantisation", QUANTISATIONS),
            quantised_ops=_counts(value, "quantised_ops"),
            float_ops=_counts(value, "float_ops"),
            untrained=_flag(value, "untrained"),
            min_reliability=_fraction(value, "min_reliability"),
            source=_source(value["source"]),
            weights=_texts(value, "weights"),
            failed=_flag(value, "failed") if "failed" in value else False,
            float_compute=_choice(value, "float_compute", FLOAT_COMPUTES)
            if "float_compute" in value
            else "fp32",
        )


def parse_object(data: bytes, name: str) -> dict[str, object]:
    """Parse JSON text that must be one object, without repeated keys, NaN or infinity.

    Args:
        data: UTF-8 text.
        name: what the text is, for the error.

    Raises:
        ValueError: the text is not such JSON.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unrepeated, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{name} is not complete, plain JSON ({shorten(str(error))})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds {shorten(value)}, expected one object of keys")
    return value


def check_keys(value: Mapping[str, object], required: set[str], allowed: set[str]) -> None:
    """Raise ValueError naming the first missing or unknown key."""
    missing = sorted(required - set(value))
    if missing:
        raise ValueError(f"the key `{missing[0]}` is missing")
    unknown = sorted(set(value) - allowed)
    if unknown:
        raise ValueError(f"the key {shorten(unknown[0])} is not known to this version")


def shorten(value: object) -> str:
    """Return a repr of at most 60 characters, for error lines."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # ValueError: integers of more than 4300 digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Mapping[str, object]) -> dict[str, object]:
    return {key: _plain(item) if isinstance(item, Mapping) else item for key, item in value.items()}


def _unrepeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"the key {shorten(next(key for key in names if names.count(key) > 1))} is repeated")
    return fields


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _text(value: Mapping[str, object], key: str) -> str:
    item = value[key]
    if not isinstance(item, str) or not item.strip():
        raise ValueError(f"`{key}` must be a text, got {shorten(item)}")
    return item


def _choice(value: Mapping[str, object], key: str, choices: Sequence[str]) -> str:
    item = _text(value, key)
    if item not in choices:
        raise ValueError(f"`{key}` must be one of {', '.join(choices)}, got {shorten(item)}")
    return item


def _flag(value: Mapping[str, object], key: str) -> bool:
    item = value[key]
    if not isinstance(item, bool):
        raise ValueError(f"`{key}` must be true or false, got {shorten(item)}")
    return item


def _names(value: Mapping[str, object], key: str) -> tuple[str, ...]:
    item = value[key]
    if not isinstance(item, (list, tuple)) or not all(
        isinstance(name, str) and name.strip() for name in item
    ):
        raise ValueError(f"`{key}` must be a list of names, got {shorten(item)}")
    if len(item) < 2 or len(set(item)) < len(item):
        raise ValueError(f"`{key}` must hold at least two different names, got {shorten(item)}")
    return tuple(item)


def _outputs(value: Mapping[str, object]) -> tuple[str, ...]:
    names = _names(value, "outputs")
    if names not in (OUTPUTS, OUTPUTS + OPTIONAL_OUTPUTS):
        raise ValueError(f"`outputs` must be {', '.join(OUTPUTS)} [, embedding], got {shorten(list(names))}")
    return names


def _counts(value: Mapping[str, object], key: str) -> dict[str, int]:
    item = value[key]
    counts: dict[str, int] = {}
    if not isinstance(item, Mapping):
        raise ValueError(f"`{key}` must map operation types to counts, got {shorten(item)}")
    for name, count in item.items():
        if not isinstance(name, str) or not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"`{key}` must map operation types to counts, got {shorten({name: count})}")
        counts[name] = count
    return counts


def _fraction(value: Mapping[str, object], key: str) -> float | None:
    item = value[key]
    if item is None:
        return None
    if isinstance(item, bool) or not isinstance(item, (int, float)) or not 0 <= item <= 1 or math.isnan(item):
        raise ValueError(f"`{key}` must be null or a number from 0 to 1, got {shorten(item)}")
    return float(item)


def _texts(value: Mapping[str, object], key: str) -> dict[str, str]:
    item = value[key]
    texts: dict[str, str] = {}
    if not isinstance(item, Mapping):
        raise ValueError(f"`{key}` must map names to texts, got {shorten(item)}")
    for name, text in item.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"`{key}` must map names to texts, got {shorten({name: text})}")
        texts[name] = text
    return texts


def _source(item: object) -> dict[str, str | Mapping[str, object] | None]:
    source: dict[str, str | Mapping[str, object] | None] = {}
    if not isinstance(item, Mapping):
        raise ValueError(f"`source` must map names to texts, got {shorten(item)}")
    for name, entry in item.items():
        if isinstance(entry, Mapping):
            source[name] = _source(entry)
        elif entry is None or isinstance(entry, str):
            source[name] = entry
        else:
            raise ValueError(
                f"`source` must map names to texts, null or such maps, got {shorten({name: entry})}"
            )
    return source
