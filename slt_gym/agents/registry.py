"""The table of trackers: a name, a network's builder and a geometry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from slt_gym.agents.network import TrackerNetwork
from slt_gym.errors import unknown
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


def override(config: C, overrides: dict[str, Any]) -> C:
    """Replace fields of a configuration (a dataclass) by name.

    Raises:
        InvalidArgumentError: The configuration has no such field.
    """
    fields = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    for name in overrides:
        if name not in fields:
            raise unknown(f"field of {type(config).__name__}", name, fields)
    return dataclasses.replace(config, **overrides)  # type: ignore[type-var]
