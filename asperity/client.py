"""The API for programs that read a station's results, send it requests, or send it frames.

    from asperity.client import Gap, StationClient

    with StationClient("tcp://127.0.0.1:5561", station="st1") as station:
        for item in station.results():
            if isinstance(item, Gap):
                print("missing:", item.first_id, item.last_id, item.why, flush=True)
            else:
                print(item.part_id, "pass" if station.accepts(item) else "reject", flush=True)

With the station's control socket as second argument (``asperity/st1.control`` in ``$XDG_RUNTIME_DIR`` unless it is
configured) results that were lost on the way are recovered.

A camera program sends each ``Frame`` by ``FrameSender``. How to test either: ``asperity.testing``.
"""

from asperity.runtime.client.frame_sender import FrameSender, SenderLimits
from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.errors import AccessError, AsperityError, CameraError, StationError, WireError
from asperity.runtime.frame import Frame, Intrinsics, Region, Verdict
from asperity.runtime.reasons import Reason
from asperity.runtime.security.curve_keys import ClientKey, read_client_key
from asperity.runtime.states import State
from asperity.runtime.wire import ReceivedResult, RecipeChange, Reply, StationState, Trigger

__all__ = [
    "AccessError",
    "AsperityError",
    "CameraError",
    "ClientKey",
    "ClientLimits",
    "Frame",
    "FrameSender",
    "Gap",
    "Intrinsics",
    "Reason",
    "ReceivedResult",
    "RecipeChange",
    "Region",
    "Reply",
    "SenderLimits",
    "State",
    "StationClient",
    "StationError",
    "StationState",
    "Trigger",
    "Verdict",
    "WireError",
    "read_client_key",
]
