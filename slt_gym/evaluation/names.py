"""Finding each sequence's result, whichever toolkit named it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_SEPARATORS = re.compile(r"[\s._/-]+")
_TOOLKIT_PREFIX = re.compile(r"^(?:uav|nfs)-(?=.)")
_TARGET = re.compile(r"-\d$")


@dataclass(frozen=True)
class NameMatch:
    """Which result belongs to which sequence.

    Attributes:
        results: The result's name by the sequence's, in the dataset's order.
        missing: Sequences without a result.
        unknown: Results that belong to no sequence.
        ambiguous: The results that a sequence could have, by its name; none is chosen.
    """

    results: dict[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    ambiguous: dict[str, tuple[str, ...]]


def match_names(results: Iterable[str], dataset_names: Iterable[str]) -> NameMatch:
    """Match the names of results with those of a dataset's sequences.

    Equal names go first. What is left is compared again and again, more loosely each time:

    1. without regard to capitals, and of ``_``, ``-``, ``.`` and blanks (``Jogging.1`` is
       ``Jogging-1``, ``basketball`` is ``Basketball``);
    2. without pytracking's ``uav_`` and ``nfs_`` in front;
    3. without separators (``Jogging1`` is ``Jogging-1``);
    4. without the number of the target on one side (``Human4`` is ``Human4-2``).

    Only what is unique on both sides is matched.

    Args:
        results: The results' names.
        dataset_names: The sequences' names.
    """
    sequences = list(dict.fromkeys(dataset_names))
    wanted, offered = sequences, list(dict.fromkeys(results))
    matched: dict[str, str] = {}
    close: dict[str, list[str]] = {}
    for sequence_key, result_key in _LEVELS:
        names, groups = _group(wanted, sequence_key), _group(offered, result_key)
        for key in names.keys() & groups.keys():
            if len(names[key]) == len(groups[key]) == 1:
                matched[names[key][0]] = groups[key][0]
            else:
                for name in names[key]:
                    close.setdefault(name, groups[key])
        taken = set(matched.values())
        wanted = [name for name in wanted if name not in matched]
        offered = [name for name in offered if name not in taken]
    free = {name: tuple(file for file in close.get(name, ()) if file in offered) for name in wanted}
    ambiguous = {name: files for name, files in free.items() if files}
    doubtful = {file for files in ambiguous.values() for file in files}
    return NameMatch(
        {name: matched[name] for name in sequences if name in matched},
        tuple(name for name in wanted if name not in ambiguous),
        tuple(name for name in offered if name not in doubtful),
        ambiguous,
    )


def _group(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups


def _exact(name: str) -> str:
    return name


def _unify(name: str) -> str:
    return _SEPARATORS.sub("-", name.strip()).lower()


def _strip_prefix(name: str) -> str:
    return _TOOLKIT_PREFIX.sub("", _unify(name))


def _join(name: str) -> str:
    return _strip_prefix(name).replace("-", "")


def _strip_target(name: str) -> str:
    return _TARGET.sub("", _strip_prefix(name))


# How a sequence's name and a result's are made comparable, strict ones first.
_LEVELS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (_exact, _exact),
    (_unify, _unify),
    (_strip_prefix, _strip_prefix),
    (_join, _join),
    (_strip_prefix, _strip_target),
    (_strip_target, _strip_prefix),
)
