"""The where clause of an event filter, as OPC 10000-4 means it."""

from __future__ import annotations

from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace
from asyncua.server.monitored_item_service import WhereClauseEvaluator

LEVELS_MAX = 16
"""Of types below BaseEventType."""


class Where(WhereClauseEvaluator):
    """The library's, in which OfType holds for subtypes too, and an operand may name a field of a field."""

    _aspace: AddressSpace

    def _eval_el(self, index: int, event: Any) -> Any:
        element = self.elements[index]
        if element.FilterOperator != ua.FilterOperator.OfType:
            return super()._eval_el(index, event)
        wanted, kind = self._eval_op(element.FilterOperands[0], event), event.EventType
        for _ in range(LEVELS_MAX):
            if kind.is_null():
                return False
            if kind == wanted:
                return True
            kind = self._supertype(kind)
        return False

    def _eval_op(self, op: Any, event: Any) -> Any:
        if not isinstance(op, ua.SimpleAttributeOperand):
            return super()._eval_op(op, event)
        if not op.BrowsePath:
            return getattr(event, ua.AttributeIds(op.AttributeId).name, None)
        return getattr(event, "/".join(name.Name for name in op.BrowsePath), None)

    def _supertype(self, kind: ua.NodeId) -> ua.NodeId:
        node = self._aspace.get(kind)
        for ref in [] if node is None else node.references:
            if not ref.IsForward and ref.ReferenceTypeId == ua.NodeId(ua.Int32(ua.ObjectIds.HasSubtype)):
                found: ua.NodeId = ref.NodeId
                return found
        return ua.NodeId()
