"""The table of trackers: a name, a network's builder and a geometry."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from slt_gym.agents.network import TrackerNetwork
from slt_gym.errors import InvalidArgumentError, unknown
from slt_gym.geometry import Geometry, get_geometry, register_geometry

Builder = Callable[..., TrackerNetwork]
B = TypeVar("B", bound=Builder)
C = TypeVar("C")


@dataclass(frozen=True)
class TrackerEntry:
    """A row of the table.

    Attributes:
        name: What :func:`slt_gym.create_tracker` and an environment's ``geometry`` take.
        build: Makes the network; takes the overridden fields of its configuration.
        pretrained: A folder of weights that ships with the package, where there is one.
        tracker: The class that tracks with it, where it is not ``ProposalTracker`` itself.
    """

    name: str
    build: Builder
    pretrained: Path | None = None
    tracker: type[Any] | None = None

    @property
    def geometry(self) -> Geometry:
        """The windows that the tracker sees."""
        return get_geometry(self.name)


_TRACKERS: dict[str, TrackerEntry] = {}


def register_tracker(
    name: str,
    geometry: Geometry | None = None,
    pretrained: Path | None = None,
    tracker: type[Any] | None = None,
) -> Callable[[B], B]:
    """Register a network's class or builder as a tracker, as a decorator.

    Args:
        name: The tracker's name.
        geometry: Its windows; None where ``name`` is registered as a geometry already.
        pretrained: A folder of weights, for ``weights="pretrained"``.
        tracker: Makes a tracker of name, network, geometry and device, as ``ProposalTracker``
            does, for a network that tracks in its own way.

    Example:
        >>> @register_tracker("mine", geometry=TransTGeometry(search_size=192))
        ... class MyNetwork(TrackerNetwork): ...
    """

    def decorate(build: B) -> B:
        if geometry is not None:
            register_geometry(name, geometry)
        _TRACKERS[name] = TrackerEntry(name, build, pretrained, tracker)
        return build

    return decorate


def get_tracker_entry(name: str) -> TrackerEntry:
    """Return the row of the tracker ``name``.

    Raises:
        InvalidArgumentError: No tracker has that name.
    """
    try:
        return _TRACKERS[name]
    except KeyError:
        raise unknown("tracker", name, _TRACKERS) from None


def list_networks() -> list[str]:
    """Return the names of the registered networks, sorted; baselines have none."""
    return sorted(_TRACKERS)


# A field's default says what it takes; a bool is an int to Python, so it comes first.
_KINDS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("True or False", (bool,)),
    int: ("a whole number", (Integral,)),
    float: ("a number", (Real,)),
    tuple: ("a tuple", (tuple, list)),
}


def override(config: C, overrides: dict[str, Any]) -> C:
    """Replace fields of a configuration (a dataclass) by name.

    Raises:
        InvalidArgumentError: The configuration has no such field, or another kind of value there.
    """
    owner = type(config).__name__
    defaults = {field.name: field.default for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    for name, value in overrides.items():
        if name not in defaults:
            raise unknown(f"field of {owner}", name, defaults)
        for kind, (words, accepted) in _KINDS.items():
            if isinstance(defaults[name], kind):
                if not isinstance(value, accepted) or isinstance(value, bool) > (kind is bool):
                    raise InvalidArgumentError(
                        f"{name} of {owner} is {value!r}: it must be {words}"
                    )
                break
    return dataclasses.replace(config, **overrides)  # type: ignore[type-var]


def check_range(config: object, low: float, high: float, *names: str) -> None:
    """Raise InvalidArgumentError unless these fields lie between ``low`` and ``high``."""
    for name in names:
        if not low <= getattr(config, name) <= high:
            raise InvalidArgumentError(
                f"{name} of {type(config).__name__} is {getattr(config, name)}: accepted are "
                + (f"numbers from {low} to {high}" if high < math.inf else f"numbers from {low} on")
            )
