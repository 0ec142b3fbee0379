"""What is in a shard: encoded frames and records of annotations, each with a checksum.

A value is the CRC-32 of its content, four bytes, little-endian, and the content. Frames have the
keys ``f`` and their number in the shard, sequences ``s`` and theirs (four bytes, big-endian, so
that keys sort like numbers). A frame's content is its file's bytes. A sequence's content is the
length of a JSON header, the header, and the bytes of the arrays that the header lists.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.data.sequence import Sequence
from slt_gym.errors import AnnotationError

_SUM_BYTES = 4
# Booleans, numbers and text of fixed width: what bytes describe without Python objects.
_DTYPE_KINDS = "biufcUS"
_OWN = ("boxes", "visible", "frames")


@dataclass(frozen=True)
class Record:
    """A sequence without its frames.

    Attributes:
        name: The sequence's name.
        notes: Its notes.
        boxes: Float64, shape ``(T, 4)``.
        visible: Booleans, shape ``(T,)``.
        frames: The frames' numbers in the shard, uint32, shape ``(T,)``.
        attributes: Its attributes.
    """

    name: str
    notes: tuple[str, ...]
    boxes: NDArray[np.float64]
    visible: NDArray[np.bool_]
    frames: NDArray[np.uint32]
    attributes: dict[str, NDArray[Any]]


def frame_key(number: int) -> bytes:
    """Return the key of a frame."""
    return b"f" + int(number).to_bytes(4, "big")


def sequence_key(number: int) -> bytes:
    """Return the key of a sequence's record."""
    return b"s" + int(number).to_bytes(4, "big")


def seal(content: bytes) -> bytes:
    """Return the value that holds ``content``."""
    return zlib.crc32(content).to_bytes(_SUM_BYTES, "little") + content


def unseal(value: bytes | memoryview) -> memoryview:
    """Return the content of a value, unchecked."""
    return memoryview(value)[_SUM_BYTES:]


def is_whole(value: bytes | memoryview) -> bool:
    """Tell whether a value's content is what was sealed."""
    stored = int.from_bytes(memoryview(value)[:_SUM_BYTES], "little")
    return len(value) >= _SUM_BYTES and zlib.crc32(unseal(value)) == stored


def encode_record(sequence: Sequence, frames: ArrayLike) -> bytes:
    """Return a sequence without its frames as bytes; equal ones give equal bytes.

    Raises:
        AnnotationError: An attribute holds Python objects.
    """
    arrays = {
        "boxes": sequence.boxes,
        "visible": sequence.visible,
        "frames": np.asarray(frames, np.uint32),
    }
    for name, value in sequence.attributes.items():
        array = np.asarray(value)
        if array.dtype.kind not in _DTYPE_KINDS:
            raise AnnotationError(
                f"attribute {name!r} of sequence {sequence.name!r} has dtype {array.dtype}: a pack "
                "takes booleans, numbers and text"
            )
        arrays[f"attributes/{name}"] = array
    header = {
        "name": sequence.name,
        "notes": sequence.notes,
        "arrays": [[name, a.dtype.str, a.shape] for name, a in arrays.items()],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join(
        [len(text).to_bytes(4, "little"), text, *(a.tobytes() for a in arrays.values())]
    )


def decode_record(content: bytes | memoryview) -> Record:
    """Return what :func:`encode_record` was given."""
    end = 4 + int.from_bytes(content[:4], "little")
    header = json.loads(bytes(content[4:end]))
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in header["arrays"]:
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        # A copy: aligned, writable, and the caller's when the shard is closed.
        part = bytearray(content[end : end + size])
        arrays[name] = np.frombuffer(part, dtype).reshape(shape)
        end += size
    boxes, visible, frames = (arrays.pop(name) for name in _OWN)
    attributes = {name.partition("/")[2]: array for name, array in arrays.items()}
    return Record(header["name"], tuple(header["notes"]), boxes, visible, frames, attributes)
