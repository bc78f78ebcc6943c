"""Reads multipart/form-data (RFC 7578) that is in memory as a whole; nothing of it touches a disk."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus

from edge_fer.serve.refusal import Refusal

_LONGEST_NAME = 255
_LONGEST_HEAD = 8192
_LONGEST_BOUNDARY = 70  # RFC 2046, section 5.1.1


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """A picture as it was sent.

    Attributes:
        name: of the file, without folders; "-" when it has none.
        data: its bytes.
    """

    name: str
    data: bytes


def read_form(content_type: str, body: bytes, most: int) -> list[Upload]:
    """Return the files of a form in their order.

    Args:
        content_type: the header, with the boundary.
        body: the whole body.
        most: files that may be in it.

    Raises:
        Refusal: 400 malformed or cut off, no file, or a field that is no file; 413 more files than `most`.
    """
    # A line break before the first delimiter makes it like the others.
    parts = (b"\r\n" + body).split(b"\r\n--" + _boundary(content_type), most + 2)
    if len(parts) == 1:
        raise _malformed("its boundary does not occur in it")
    files = parts[1:]
    if len(files) > most + 1 or (len(files) == most + 1 and not files[-1].startswith(b"--")):
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"expected at most {most} files in one request, got more: send them in several",
        )
    if not files[-1].startswith(b"--"):
        raise _malformed("it is cut off, its closing boundary is missing")
    uploads = [_read_part(part) for part in files[:-1]]
    if not uploads:
        raise _malformed("it has no file")
    return uploads


def plain_name(name: str) -> str:
    """Return the last part of a path, printable and short; "-" for nothing."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in last)[:_LONGEST_NAME] or "-"


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if not boundary or len(boundary) > _LONGEST_BOUNDARY:
        raise _malformed("its Content-Type has no boundary of 1 to 70 characters")
    return boundary.encode("latin-1", "replace")


def _read_part(part: bytes) -> Upload:
    if not part.startswith(b"\r\n"):
        raise _malformed("its boundary occurs within a file")
    head, end, data = part.partition(b"\r\n\r\n")
    if not end or len(head) > _LONGEST_HEAD:
        raise _malformed("one of its parts has no headers, or too long ones")
    for line in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            return Upload(_file_name(value.strip()), data)
    raise _malformed("one of its parts has no Content-Disposition")


def _file_name(disposition: str) -> str:
    header = Message()
    header["content-disposition"] = disposition.replace("\r", " ").replace("\n", " ")
    name = header.get_filename()
    if header.get_content_disposition() != "form-data":
        raise _malformed("one of its parts is no form-data")
    if name is None:
        raise _malformed("one of its fields is no file; options belong into the query, as in ?detect=false")
    return plain_name(name)


def _malformed(why: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, f"expected multipart/form-data with picture files, but {why}")
