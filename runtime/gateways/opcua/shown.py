"""Variables of the address space whose values are computed when they are read, and told to subscribers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from asyncua import ua
from asyncua.server.address_space import AddressSpace, AttributeValue

from asperity.runtime.gateways.opcua.tags import Moment, differs

log = logging.getLogger("asperity.gateway")


@dataclass(slots=True)
class Shown:
    """One variable."""

    name: str
    attribute: AttributeValue
    read: Callable[[Moment], ua.DataValue]
    last: ua.DataValue | None = None

    async def refresh(self, moment: Moment) -> None:
        """Notify subscribers of changes. A subscriber gets what a reader would see.

        Not through the library's write: it replaces the value of a bad status by null, and a client that keeps its
        last value then would keep an old Accept.
        """
        if not self.attribute.datachange_callbacks:
            self.last = None  # whoever subscribes is given the value of that moment
            return
        value = self.read(moment)
        if not differs(self.last, value):
            return
        self.last = value
        for handle, callback in list(self.attribute.datachange_callbacks.items()):
            # A client's own filter may fail on a value; the others are told all the same.
            try:
                await callback(handle, value)
            except Exception as error:  # noqa: BLE001
                log.warning("a subscriber of %s could not be notified: %r", self.name, error)


Read = Callable[[Moment], ua.DataValue]


def show(space: AddressSpace, name: str, node_id: ua.NodeId, read: Read, now: Callable[[], Moment]) -> Shown:
    """From now on the node's value is what ``read`` makes of the moment."""
    attribute = space[node_id].attributes[ua.AttributeIds.Value]
    space.set_attribute_value_callback(node_id, ua.AttributeIds.Value, lambda node_id, attribute_id: read(now()))
    return Shown(name, attribute, read)
