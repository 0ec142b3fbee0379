"""The extension of LaSOT (Fan et al., IJCV 2021): 150 long sequences of 15 further classes."""

from __future__ import annotations

import os

from slt_gym.data.lasot import find_sequences, read_sequence
from slt_gym.data.roots import find_root, wrong_root
from slt_gym.data.sequence import Sequence, SequenceDataset
from slt_gym.data.splits import check_test_only

_LAYOUT = """\
LaSOT_extension_subset/
  atv/atv-1/img/00000001.jpg …             (or atv-1/ directly in the root)
  atv/atv-1/groundtruth.txt                (also full_occlusion.txt, out_of_view.txt)
"""


class LaSOTExtDataset(SequenceDataset):
    """LaSOT's extension, class folders or all sequences side by side; for testing only.

    Every sequence in the root (or in ``LaSOT_extension_subset`` below it) is one of the benchmark,
    in natural order of the names. Frames, visibility and attributes are as in
    :class:`slt_gym.data.lasot.LaSOTDataset`.

    Args:
        root: The folder; else ``$SLT_GYM_LASOTEXT``, else ``$SLT_GYM_DATA/lasotext``.
        split: ``"test"``.

    Raises:
        DatasetNotFoundError: There is no such folder, or no sequence in it.
        InvalidArgumentError: The split is another one.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "test") -> None:
        check_test_only("lasotext", split)
        self.root = find_root("lasotext", root, _LAYOUT)
        self._folders = find_sequences(self.root, "LaSOT_extension_subset")
        if not self._folders:
            raise wrong_root("lasotext", self.root, "holds no sequence folder", _LAYOUT)
        super().__init__("lasotext", split, list(self._folders))

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        return read_sequence(name, self._folders[name])
