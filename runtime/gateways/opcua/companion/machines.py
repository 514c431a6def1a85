"""The two state machines of OPC 40100-1: which node is which state, and which transition leads from one to another."""

from __future__ import annotations

from asyncua import ua
from asyncua.server.address_space import AddressSpace

from asperity.runtime.gateways.opcua.companion.nodeset import number, value_of

Attribute, Ids = ua.AttributeIds, ua.ObjectIds
NOWHERE = (ua.NodeId(), "")


class Machine:
    """States and transitions of one type."""

    def __init__(self, space: AddressSpace, of: ua.NodeId) -> None:
        self.states: dict[str, ua.NodeId] = {}
        self._transitions: dict[tuple[ua.NodeId, ua.NodeId], list[tuple[str, ua.NodeId]]] = {}
        for ref in space[of].references:
            if ref.IsForward and ref.TypeDefinition == number(Ids.StateType):
                self.states[ref.BrowseName.Name] = ref.NodeId
            if ref.IsForward and ref.TypeDefinition == number(Ids.TransitionType):
                ends = {
                    link.ReferenceTypeId.Identifier: link.NodeId
                    for link in space[ref.NodeId].references
                    if link.IsForward and link.ReferenceTypeId.Identifier in (Ids.FromState, Ids.ToState)
                }
                way = (ends.get(Ids.FromState, ua.NodeId()), ends.get(Ids.ToState, ua.NodeId()))
                name = value_of(space, ref.NodeId, Attribute.BrowseName).Name
                self._transitions.setdefault(way, []).append((name, ref.NodeId))

    def state(self, name: str) -> tuple[ua.NodeId, str]:
        """Node and name."""
        return (self.states[name], name) if name in self.states else NOWHERE

    def transition(self, before: str, after: str) -> tuple[ua.NodeId, str]:
        """Node and name; ``NOWHERE``: the type has none, for example when a state in between was not seen.

        The station does not say what caused it: where there is one without a cause ("Auto") it is that one.
        """
        ways = self._transitions.get((self.state(before)[0], self.state(after)[0]), [])
        chosen = sorted(ways, key=lambda way: (not way[0].endswith("Auto"), len(way[0])))
        return (chosen[0][1], chosen[0][0]) if chosen else NOWHERE

