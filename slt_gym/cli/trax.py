"""``slt-gym trax``: let a client of the TraX protocol, such as vot-toolkit, run a tracker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional, arg

from slt_gym.cli.arguments import choose_device, parse_options
from slt_gym.data.sequence import decode_frame
from slt_gym.errors import FrameError, InvalidArgumentError

if TYPE_CHECKING:
    from slt_gym.agents import Tracker


@dataclass(frozen=True)
class Arguments:
    """Serve a tracker over TraX, the protocol by which vot-toolkit runs trackers.

    A client starts this command itself: in the trackers.ini of a workspace of vot-toolkit,

        [transt]
        label = TransT
        protocol = trax
        command = slt-gym trax transt --weights /path/to/transt.pth

    It speaks rectangles. Needs the package vot-trax: pip install "slt-gym[vot]".

    Attributes:
        tracker: The tracker's name.
        weights: A folder of weights, a published checkpoint's file, or "pretrained" for weights
            that ship with the package, which is the default.
        options: Fields of the tracker's configuration, a JSON object such as
            '{"window_influence": 0.5}'.
        device: Where the network runs: auto (a GPU if there is one), cpu, cuda, or cuda:1 and
            so on.
    """

    tracker: Annotated[Positional[str], arg(metavar="TRACKER")]
    weights: Annotated[str | None, arg(metavar="PATH")] = None
    options: Annotated[str, arg(metavar="JSON")] = "{}"
    device: str = "auto"


def execute(arguments: Arguments, command: str) -> None:
    """Answer the client's requests until it says quit.

    Args:
        arguments: The command's.
        command: The command line.

    Raises:
        InvalidArgumentError: vot-trax is not installed, or an argument is none.
        CheckpointError: The weights cannot be read, or a network has none.
        FrameError: The client sent an image that cannot be read.
    """
    try:
        import trax  # noqa: PLC0415 (an optional package)
    except ImportError:
        raise InvalidArgumentError(
            'the TraX protocol needs the package vot-trax: pip install "slt-gym[vot]"'
        ) from None
    from slt_gym.agents.creation import choose_weights, create_tracker  # noqa: PLC0415 (torch)

    options = parse_options("--options", arguments.options)
    weights = choose_weights(arguments.tracker, arguments.weights)
    device = choose_device(arguments.device)
    serve(create_tracker(arguments.tracker, weights, device, **options), trax)


def serve(tracker: Tracker, trax: Any) -> None:
    """Run the protocol's loop.

    Args:
        tracker: What answers; started anew with every ``initialize``.
        trax: The package of that name.

    Raises:
        FrameError: The client sent an image that cannot be read.
    """
    readers = _list_readers(trax)
    with trax.Server(
        [trax.Region.RECTANGLE], list(readers), ["color"], tracker_name=tracker.name
    ) as server:
        while True:
            request = server.wait()
            if request.type not in ("initialize", "frame"):
                return
            image = request.image["color"]
            frame = readers[image.type()](image)
            if request.type == "initialize":
                box = np.array(request.objects[0][0].bounds(), np.float64)
                tracker.init(frame, box)
            else:
                box = tracker.update(frame)
            answer = trax.Rectangle.create(*box.tolist())
            server.status([(answer, {"confidence": f"{tracker.score:.6f}"})])


def _list_readers(trax: Any) -> dict[str, Callable[[Any], NDArray[np.uint8]]]:
    """Return what makes an RGB frame of each kind of image that a client may send."""

    def read_file(image: Any) -> NDArray[np.uint8]:
        path = Path(image.path())
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FrameError(f"cannot read {path}: {error.strerror or error}") from None
        return decode_frame(data, str(path))

    return {
        trax.Image.PATH: read_file,
        trax.Image.BUFFER: lambda image: decode_frame(image.buffer(), "the client's image"),
        trax.Image.MEMORY: lambda image: np.ascontiguousarray(image.array(), np.uint8),
    }
