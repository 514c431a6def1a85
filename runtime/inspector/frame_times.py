"""What a frame's own times allow: whether it is too old, and whether it may show the next part."""

from __future__ import annotations

from asperity.runtime.clock import MS, Now
from asperity.runtime.frame import Frame
from asperity.runtime.inspector.clocks import StationClocks
from asperity.runtime.inspector.triggers import PendingTrigger
from asperity.runtime.judging.pipeline import age_ns
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.inspector_sockets import UNREAD_MS


def too_old(frame: Frame, now: Now, read_up_to_ns: int, config: StationConfig, clocks: StationClocks) -> bool:
    """Whether the frame is too old to be judged. ``read_up_to_ns``: when the sockets were last read before.

    A camera whose clock runs ahead could pass off an old picture as a new one, so both directions are refused.
    """
    limit_ms = config.limits.max_age_ms
    if abs(age_ns(frame, now.wall_us)) > limit_ms * MS:
        return True
    if clocks.age_ns(frame, now.wall_us) > limit_ms * MS:
        return True
    # By a clock that is not shared, what waited in the socket while this process stood still looks new.
    unread_ms = limit_ms + config.timing.poll_ms + UNREAD_MS
    return clocks.doubtful(frame.clock) and now.ns - read_up_to_ns > unread_ms * MS


def may_be_the_next_parts(frame: Frame, trigger: PendingTrigger | None, now: Now, clocks: StationClocks) -> bool:
    """Whether another part's trigger, which was not taken, may have come before the exposure.

    By the monotonic clock, as the wall clock may have been set since. An exposure from before its own trigger shows
    that the clocks differ by more than they may.
    """
    if trigger is None or trigger.followed_ns is None:
        return False
    latest_ns = now.ns - age_ns(frame, now.wall_us) + clocks.tolerance_ns
    return not (clocks.comparable(frame.clock) and trigger.given_ns <= latest_ns <= trigger.followed_ns)
