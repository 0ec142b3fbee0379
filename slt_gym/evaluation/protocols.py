"""Which rule a dataset is scored by."""

from __future__ import annotations

from slt_gym.errors import unknown

DEFAULT_PROTOCOL = "official"

# For datasets whose benchmark has no rule, or none for one pass over whole sequences: COCO, VID,
# VOT, folders, videos, synthetic ones. It looks at flags of absence, takes boxes that leave the
# image, and refuses a result that is too short.
_FALLBACK = "pysot_ope_absent"

_LASOT = ("lasot", "lasotext")
_UAV = ("uav123", "uav20l")
_OTB = ("otb50", "otb100", "otb2013", "nfs")

# By protocol, then by dataset; None is for all others.
_TABLE: dict[str, dict[str | None, str]] = {
    "official": {
        **dict.fromkeys((*_LASOT, "tnl2k"), "lasot"),
        "trackingnet": "trackingnet",
        "got10k": "got10k_val",
        **dict.fromkeys(_OTB, "pytracking_otb"),
        **dict.fromkeys(_UAV, "pytracking_uav"),
        None: _FALLBACK,
    },
    "pysot": {**dict.fromkeys(_LASOT, "pysot_ope_absent"), None: "pysot_ope"},
    "pytracking": {
        **dict.fromkeys(_LASOT, "pytracking_lasot"),
        **dict.fromkeys(_UAV, "pytracking_uav"),
        None: "pytracking_otb",
    },
    "got10k": {
        **dict.fromkeys(_LASOT, "got10k_lasot"),
        **dict.fromkeys(_UAV, "got10k_uav123"),
        "got10k": "got10k_val",
        None: "got10k_otb",
    },
}
PROTOCOLS = tuple(_TABLE)


def find_rule(dataset: str, protocol: str = DEFAULT_PROTOCOL) -> str:
    """Return the name of the rule by which a protocol scores a dataset.

    Args:
        dataset: Its name, as :func:`slt_gym.data.open_dataset` takes it, or any other: what has no
            row of its own is scored as the protocol scores everything else.
        protocol: ``"official"``, the benchmark's own rule, and for a dataset without one
            ``"pysot_ope_absent"``; or ``"pysot"``, ``"pytracking"``, ``"got10k"``, what that
            toolkit does with the dataset.

    Returns:
        A key of :data:`slt_gym.evaluation.rules.RULES`.

    Raises:
        InvalidArgumentError: The protocol is unknown.
    """
    if protocol not in _TABLE:
        raise unknown("protocol", protocol, PROTOCOLS)
    rules = _TABLE[protocol]
    key = dataset.lower().replace("-", "").replace("_", "")
    return rules.get(key, rules[None])
