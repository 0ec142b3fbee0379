"""Checks of arguments that several commands share; each speaks before anything is written."""

from __future__ import annotations

import json
from typing import Any

from slt_gym.errors import InvalidArgumentError


def parse_options(flag: str, text: str) -> dict[str, Any]:
    """Read a JSON object, such as ``{"width": 256}``.

    Args:
        flag: The argument's name, for the message.
        text: What was typed.

    Raises:
        InvalidArgumentError: It is no JSON, or no object.
    """
    try:
        options = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(
            f"{flag} {text!r} is not JSON ({error}): expected is an object such as "
            """'{"width": 256}'"""
        ) from None
    if not isinstance(options, dict):
        raise InvalidArgumentError(
            f"""{flag} {text!r} is not a JSON object: expected is one such as '{{"width": 256}}'"""
        )
    return options


def choose_device(name: str) -> str:
    """Return the PyTorch device that ``name`` stands for: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        InvalidArgumentError: There is no such device here.
    """
    from slt_gym.agents import creation  # noqa: PLC0415 (PyTorch takes seconds)

    return creation.choose_device(name)
