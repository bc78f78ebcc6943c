"""The bundle: one graph, its spec and the evidence for it, in a folder NAME.fer or a zip of it.

Knows bundle.json, sizes and hashes; every byte handed out was verified. Does not know engines.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edge_fer.archive import MAX_BUNDLE_BYTES, Archive, open_archive
from edge_fer.errors import BundleError
from edge_fer.samples import Golden, Reference
from edge_fer.spec import ModelSpec, check_keys, parse_object, shorten

__all__ = ["FORMAT", "Bundle", "BundleWarning", "Golden", "Member", "ModelSpec", "Reference"]
__all__ += ["default_bundle", "write_bundle"]

FORMAT = 1
"""The bundle format that this version writes, and the newest that it reads."""

SPEC_FILE = "bundle.json"
GOLDEN_FILE = "golden.npz"
REFERENCE_FILE = "reference.npz"
CERTIFICATE_FILE = "parity.json"
CARD_FILE = "model-card.md"
VERDICTS = ("passed", "failed", "undecided")

_MAX_SPEC_BYTES = 1 << 20
_MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_GRAPH_SUFFIXES = (".onnx", ".ort", ".xml", ".bin", ".tflite", ".data", ".pb")
_SELF = "self_sha256"
_NO_DIGEST = "0" * 64


class BundleWarning(UserWarning):
    """A bundle loads but says itself that it should not be relied on."""


class _NewerFormat(ValueError):
    pass


@dataclass(frozen=True, slots=True)
class Member:
    """What bundle.json promises of one file: its SHA-256 (lower-case hexadecimal) and its size."""

    sha256: str
    size: int


class Bundle:
    """A loaded bundle: every member was read once, compared with its hash, and is kept as read.

    Attributes:
        path: where it was loaded from.
        spec: what the runtime must know of the model.
        digest: SHA-256 of bundle.json, and so of the whole bundle.
        members: name to size and hash of every member.
    """

    __slots__ = ("_contents", "digest", "members", "path", "spec")

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        digest: str,
        members: Mapping[str, Member],
        contents: Mapping[str, bytes],
    ) -> None:
        self.path = path
        self.spec = spec
        self.digest = digest
        self.members = MappingProxyType(dict(members))
        self._contents = contents

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Read and verify a bundle.

        Args:
            path: the folder NAME.fer, or one zip of it.

        Raises:
            BundleError: it is missing, changed, truncated, of a newer format or something else.
        """
        path = Path(path)
        with open_archive(path) as archive:
            if SPEC_FILE not in archive.names():
                raise BundleError(f"{path} is not a bundle: it has no {SPEC_FILE}")
            data = archive.read(SPEC_FILE, _MAX_SPEC_BYTES)
            try:
                spec, members = _parse(data)
            except _NewerFormat as error:
                raise BundleError(f"{path}: {error}: upgrade edge-fer") from error
            except ValueError as error:
                raise BundleError(f"{path}: {SPEC_FILE}: {error}; copy or export the bundle again") from error
            contents = {SPEC_FILE: data, **_read_members(path, archive, spec, members)}
        return cls(path, spec, hashlib.sha256(data).hexdigest(), members, contents)

    def to_json(self) -> dict[str, object]:
        """Return the content of bundle.json."""
        return parse_object(self._contents[SPEC_FILE], SPEC_FILE)

    @property
    def graph(self) -> bytes:
        """The graph file: model.onnx, model.xml or model.tflite."""
        return self.member(self.spec.graph_files[0])

    @property
    def verdict(self) -> str:
        """What the certificate says: passed, failed or undecided; `none` without a certificate."""
        if self.spec.failed:
            return "failed"
        certificate = self.certificate()
        return "none" if certificate is None else str(certificate["verdict"])

    def member(self, name: str) -> bytes:
        """Return the verified bytes of a member.

        Raises:
            BundleError: there is no such member.
        """
        try:
            return self._contents[name]
        except KeyError:
            raise BundleError(f"{self.path} has no member {name}; it has {', '.join(self.members)}") from None

    def golden(self) -> Golden | None:
        """Return the golden samples, or None when the bundle has none.

        Raises:
            BundleError: they do not fit the spec.
        """
        if GOLDEN_FILE not in self._contents:
            return None
        name = f"{self.path}: {GOLDEN_FILE}"
        golden = Golden.from_bytes(self._contents[GOLDEN_FILE], name)
        size, classes = self.spec.input.size, len(self.spec.labels)
        if golden.crops.shape[1] != size or golden.probabilities.shape[1] != classes:
            raise BundleError(
                f"{name} has crops of {golden.crops.shape[1]} pixels and {golden.probabilities.shape[1]} "
                f"classes, the spec says {size} and {classes}: export the bundle again"
            )
        return golden

    def reference(self) -> Reference | None:
        """Return the reference outputs, or None when the bundle has none.

        Raises:
            BundleError: they do not fit the spec.
        """
        if REFERENCE_FILE not in self._contents:
            return None
        name = f"{self.path}: {REFERENCE_FILE}"
        reference = Reference.from_bytes(self._contents[REFERENCE_FILE], name)
        if reference.names != self.spec.labels:
            raise BundleError(
                f"{name} is for the labels {', '.join(reference.names)}, "
                f"the spec says {', '.join(self.spec.labels)}: export the bundle again"
            )
        return reference

    def certificate(self) -> dict[str, object] | None:
        """Return the content of parity.json, or None when the bundle has none.

        Raises:
            BundleError: it is not JSON with a verdict.
        """
        if CERTIFICATE_FILE not in self._contents:
            return None
        try:
            certificate = parse_object(self._contents[CERTIFICATE_FILE], CERTIFICATE_FILE)
        except ValueError as error:
            raise BundleError(f"{self.path}: {error}: export the bundle again") from error
        if certificate.get("verdict") not in VERDICTS:
            raise BundleError(
                f"{self.path}: {CERTIFICATE_FILE} has the verdict {shorten(certificate.get('verdict'))}, "
                f"expected one of {', '.join(VERDICTS)}"
            )
        return certificate


def default_bundle() -> Path:
    """Return the path of the embedded bundle.

    Raises:
        BundleError: this installation has none, or several.
    """
    found = sorted((Path(__file__).parent / "bundles").glob("*.fer"))
    if len(found) != 1:
        raise BundleError(
            f"expected one embedded bundle in {Path(__file__).parent / 'bundles'}, found {len(found)}: "
            "name a bundle, or install edge-fer again"
        )
    return found[0]


def write_bundle(path: Path, spec: ModelSpec, members: Mapping[str, bytes]) -> Bundle:
    """Write a bundle folder, verify it as any reader would, then move it into place.

    Args:
        path: the folder, usually NAME.fer; a bundle that is already there is replaced.
        spec: what bundle.json says of the model.
        members: name to bytes of every file but bundle.json.

    Returns:
        The bundle as loaded from `path`.

    Raises:
        BundleError: spec and members do not fit together, or something else is at `path`.
    """
    path = Path(path).resolve()
    _check_replaceable(path)
    content = _spec_bytes(spec, members)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.new"
    temporary.mkdir()
    try:
        for name, data in {**members, SPEC_FILE: content}.items():
            (temporary / name).write_bytes(data)
        written = Bundle.load(temporary)
        written.golden(), written.reference(), written.certificate()
        _move_into_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle(path, written.spec, written.digest, written.members, written._contents)


def _spec_bytes(spec: ModelSpec, members: Mapping[str, bytes]) -> bytes:
    """Return the text of bundle.json, with its own SHA-256 over the text with zeros in its place."""
    listed = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in sorted(members.items())
    }
    fields = {"format": FORMAT, **spec.to_json(), "members": listed, _SELF: _NO_DIGEST}
    try:
        text = json.dumps(fields, indent=2, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        content = _replace_last(text, _NO_DIGEST, hashlib.sha256(text).hexdigest())
        _parse(content)
    except (TypeError, ValueError) as error:
        raise BundleError(f"this is not a bundle that could be read again: {error}") from error
    return content


def _parse(data: bytes) -> tuple[ModelSpec, dict[str, Member]]:
    """Parse bundle.json; ValueError says what is wrong with it. The order gives the clearest sentence."""
    fields = parse_object(data, "it")
    version = fields.get("format")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"it has no `format` that is a bundle's, got {shorten(version)}")
    if version > FORMAT:
        raise _NewerFormat(f"the bundle has format {shorten(version)}, this version reads up to {FORMAT}")
    own = {key: fields.pop(key) for key in ("format", "members", _SELF) if key in fields}
    check_keys(own, required={"format", "members", _SELF}, allowed=set(own))
    members = _parse_members(own["members"])
    spec = ModelSpec.from_json(fields)
    for name in spec.graph_files:
        if name not in members:
            raise ValueError(f"`members` does not list {name}, the graph of the target {spec.target}")
    digest = own[_SELF]
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"`{_SELF}` must be 64 hexadecimal digits, got {shorten(digest)}")
    if hashlib.sha256(_replace_last(data, digest, _NO_DIGEST)).hexdigest() != digest:
        raise ValueError("it was changed after the bundle was written (its SHA-256 differs)")
    return spec, members


def _replace_last(data: bytes, old: str, new: str) -> bytes:
    head, _, tail = data.rpartition(old.encode())
    return head + new.encode() + tail


def _parse_members(value: object) -> dict[str, Member]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"`members` must map file names to sizes and hashes, got {shorten(value)}")
    members: dict[str, Member] = {}
    for name, promise in value.items():
        if not _MEMBER_NAME.fullmatch(name) or name == SPEC_FILE:
            raise ValueError(f"the member name {shorten(name)} is refused: expected a plain file name")
        if not isinstance(promise, dict) or set(promise) != {"sha256", "size"}:
            raise ValueError(f"the member {name} needs `sha256` and `size`, got {shorten(promise)}")
        digest, size = promise["sha256"], promise["size"]
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(
                f"the member {name} needs a `sha256` of 64 hexadecimal digits, got {shorten(digest)}"
            )
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_BUNDLE_BYTES:
            raise ValueError(f"the member {name} has a `size` no file can have, {shorten(size)}")
        members[name] = Member(digest, size)
    if sum(member.size for member in members.values()) > MAX_BUNDLE_BYTES:
        raise ValueError(f"the members are larger together than any bundle ({MAX_BUNDLE_BYTES} bytes)")
    return members


def _read_members(
    path: Path, archive: Archive, spec: ModelSpec, members: Mapping[str, Member]
) -> dict[str, bytes]:
    # An engine may open files beside the graph (ONNX external data): one that is not hashed is refused.
    for name in sorted(archive.names() - set(members)):
        if Path(name).suffix.lower() in _GRAPH_SUFFIXES:
            raise BundleError(f"{path} holds {name}, which {SPEC_FILE} does not list: copy the bundle again")
    contents: dict[str, bytes] = {}
    for name, member in members.items():
        data = archive.read(name, member.size)
        if len(data) < member.size:
            raise BundleError(
                f"{path}: {name} is cut short at {len(data)} of {member.size} bytes: copy the bundle again"
            )
        if hashlib.sha256(data).hexdigest() != member.sha256:
            raise BundleError(
                f"{path}: {name} was changed after the bundle was written (SHA-256 differs): copy it again"
            )
        contents[name] = data
    return contents


def _check_replaceable(path: Path) -> None:
    """Refuse to replace anything but a bundle, however damaged, or an empty folder."""
    if not path.exists():
        return
    if not path.is_dir():
        raise BundleError(f"{path} is a file: name a folder that is new or a bundle")
    found = {entry.name for entry in path.iterdir()}
    if not found:
        return
    try:
        fields = parse_object((path / SPEC_FILE).read_bytes(), SPEC_FILE)
        members = fields["members"]
        ours = {"format", "model", "labels"} <= set(fields) and isinstance(members, dict)
    except (OSError, ValueError, KeyError):
        ours, members = False, {}
    if not ours or not isinstance(members, dict):
        raise BundleError(f"{path} is a folder that is not a bundle: it is left alone, name another")
    strangers = sorted(found - set(members) - {SPEC_FILE})
    if strangers:
        raise BundleError(f"{path} holds {strangers[0]}, which is no part of its bundle: move it away first")


def _move_into_place(temporary: Path, path: Path) -> None:
    if not path.exists():
        os.replace(temporary, path)
        return
    old = temporary.with_suffix(".old")
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
