"""Telling whether the file of an image ends too early."""

from __future__ import annotations

_JPEG, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG, _END_OF_PNG = b"\x89PNG\r\n\x1a\n", b"IEND"


def is_truncated(content: bytes) -> bool:
    """Tell whether a JPEG or PNG breaks off before its end.

    OpenCV decodes a JPEG that breaks off, in some versions without an error, and fills the rest of
    the picture with grey.

    Args:
        content: The file's content.

    Returns:
        False for other formats, and for images with something behind their end.
    """
    if content.startswith(_PNG):
        return _END_OF_PNG not in content
    return content.startswith(_JPEG) and _END_OF_IMAGE not in content[_find_scan(content) :]


def _find_scan(content: bytes) -> int:
    """Return where a JPEG's picture starts, behind a preview that has an end of its own."""
    at = len(_JPEG)
    while content[at : at + 1] == b"\xff" and content[at : at + 2] != _START_OF_SCAN:
        # A segment is its marker, and its length with these two bytes. Markers may be padded.
        padded = content[at + 1 : at + 2] == b"\xff"
        at += 1 if padded else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return at
