"""Takes the fixed input size out of an ONNX file, in memory and without the package onnx.

YuNet's usual file says 640x640 and has no other trace of it: its reshapes count for themselves and its
resizing layers have factors. OpenCV ignores what it says, ONNX Runtime insists on it. Knows the wire format
of protocol buffers (https://protobuf.dev/programming-guides/encoding/) and the few fields of onnx.proto that
matter here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 5, 11, 12, 13
_INITIALIZER_NAME = 8
_VALUE_NAME = 1
_SHAPE = (2, 1, 2)  # within a value: its type, the tensor's type, the shape
_SHAPE_DIMENSION = 1

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_UNKNOWN_DIMENSION = b""


def free_input_size(model: bytes) -> bytes:
    """Return the same model for pictures of any height and width.

    The last two dimensions of its inputs become unknown, and what the file says of the shapes that follow
    from them goes: the engine works them out.

    Args:
        model: an ONNX file whose input is (N, C, H, W).

    Raises:
        ValueError: that is no ONNX file, or a damaged one.
    """
    parts = [
        _encode(number, _free_graph(payload)) if number == _MODEL_GRAPH else raw
        for number, payload, raw in _fields(model)
    ]
    return b"".join(parts)


def _free_graph(graph: bytes) -> bytes:
    weights = {_text(tensor, _INITIALIZER_NAME) for tensor in _all(graph, _GRAPH_INITIALIZER)}
    parts = []
    for number, payload, raw in _fields(graph):
        # Files of an old kind list their weights among the inputs.
        if number == _GRAPH_INPUT and _text(payload, _VALUE_NAME) not in weights:
            parts.append(_encode(number, _within(payload, _SHAPE, partial(_free_shape, kept=2))))
        elif number == _GRAPH_OUTPUT:
            parts.append(_encode(number, _within(payload, _SHAPE, partial(_free_shape, kept=0))))
        elif number != _GRAPH_VALUE_INFO:
            parts.append(raw)
    return b"".join(parts)


def _free_shape(shape: bytes, kept: int) -> bytes:
    dimensions = list(_all(shape, _SHAPE_DIMENSION))
    dimensions[kept:] = [_UNKNOWN_DIMENSION] * len(dimensions[kept:])
    return b"".join(_encode(_SHAPE_DIMENSION, dimension) for dimension in dimensions)


def _within(message: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes]) -> bytes:
    """Change the messages at the end of a path of field numbers."""
    if not path:
        return change(message)
    return b"".join(
        _encode(number, _within(payload, path[1:], change)) if number == path[0] else raw
        for number, payload, raw in _fields(message)
    )


def _all(message: bytes, wanted: int) -> Iterator[bytes]:
    return (payload for number, payload, _ in _fields(message) if number == wanted)


def _text(message: bytes, wanted: int) -> bytes:
    return next(_all(message, wanted), b"")


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Give number, payload and whole encoding of every field; only length-delimited ones have a payload."""
    place = 0
    while place < len(message):
        start = place
        key, place = _varint(message, place)
        payload_start = place
        kind = key & 7
        if kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _LENGTH:
            length, payload_start = _varint(message, place)
            place = payload_start + length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"expected an ONNX file, got a field of kind {kind} at byte {start}")
        if place > len(message):
            raise ValueError("expected a whole ONNX file, got one that ends within a field")
        yield key >> 3, message[payload_start:place] if kind == _LENGTH else b"", message[start:place]


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError(f"expected an ONNX file, got a number without an end at byte {place}")


def _encode(number: int, payload: bytes) -> bytes:
    return _to_varint(number << 3 | _LENGTH) + _to_varint(len(payload)) + payload


def _to_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
