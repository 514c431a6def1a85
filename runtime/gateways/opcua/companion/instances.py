"""Instances of types: every mandatory child that a type or its supertypes declare, and the optional ones asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from asyncua import ua
from asyncua.server.address_space import AddressSpace

from asperity.runtime.gateways.opcua.companion.nodeset import add_node, number, refer, value_of

Attribute, Ids = ua.AttributeIds, ua.ObjectIds
_HOLDS = {number(each) for each in (Ids.HasComponent, Ids.HasProperty, Ids.HasOrderedComponent, Ids.HasSubStateMachine)}
_MANDATORY, _OPTIONAL = number(Ids.ModellingRule_Mandatory), number(Ids.ModellingRule_Optional)
_TYPE_ONLY = {Attribute.NodeId, Attribute.Value, Attribute.IsAbstract}


class Instances:
    """Makes objects of types in one address space."""

    def __init__(self, space: AddressSpace, node_id: Callable[[str], ua.NodeId], optional: Collection[str]) -> None:
        """``node_id`` of a path; ``optional``: paths of optional children that are made too."""
        self._space = space
        self._node_id = node_id
        self._optional = optional

    def make(
        self, path: str, name: ua.QualifiedName, of: ua.NodeId, parent: ua.NodeId, how: int = Ids.HasComponent
    ) -> dict[str, ua.NodeId]:
        """An instance of a type under ``parent``; path -> node, of it and everything below it."""
        return dict(self._make(path, name, [of], parent, number(how)))

    def _make(
        self, path: str, name: ua.QualifiedName, declared: list[ua.NodeId], parent: ua.NodeId, how: ua.NodeId
    ) -> Iterator[tuple[str, ua.NodeId]]:
        """``declared``: its declarations, the one that overrides the others first; or its type."""
        space, first, node_id = self._space, declared[0], self._node_id(path)
        node_class = value_of(space, first, Attribute.NodeClass)
        of = first
        if node_class in (ua.NodeClass.ObjectType, ua.NodeClass.VariableType):
            node_class = ua.NodeClass.Object if node_class == ua.NodeClass.ObjectType else ua.NodeClass.Variable
        else:
            of = next(self._targets(first, number(Ids.HasTypeDefinition)), ua.NodeId())
        attributes = {
            attribute: kept.value.Value
            for attribute, kept in space[first].attributes.items()
            if attribute not in _TYPE_ONLY and kept.value is not None and kept.value.Value is not None
        }
        attributes[Attribute.NodeClass] = ua.Variant(node_class, ua.VariantType.Int32)
        attributes[Attribute.BrowseName] = ua.Variant(name, ua.VariantType.QualifiedName)
        attributes[Attribute.DisplayName] = ua.Variant(ua.LocalizedText(name.Name), ua.VariantType.LocalizedText)
        if node_class == ua.NodeClass.Object:
            attributes[Attribute.EventNotifier] = ua.Variant(0, ua.VariantType.Byte)
        if node_class == ua.NodeClass.Variable:
            given = space.read_attribute_value(first, Attribute.Value).Value
            attributes[Attribute.Value] = given or ua.Variant()
            for attribute in (Attribute.AccessLevel, Attribute.UserAccessLevel):
                attributes[attribute] = ua.Variant(1, ua.VariantType.Byte)
        add_node(space, node_id, attributes)
        if not of.is_null():
            refer(space, node_id, number(Ids.HasTypeDefinition), of, inverse=False)
        refer(space, parent, how, node_id)
        yield path, node_id
        for child_how, children in self._children([*declared, *self._supertypes(of)]):
            child = value_of(space, children[0], Attribute.BrowseName)
            child_path = f"{path}.{child.Name}"
            rule = next(self._targets(children[0], number(Ids.HasModellingRule)), None)
            if rule == _MANDATORY or (rule == _OPTIONAL and child_path in self._optional):
                yield from self._make(child_path, child, children, node_id, child_how)

    def _children(self, declared: list[ua.NodeId]) -> list[tuple[ua.NodeId, list[ua.NodeId]]]:
        """Declarations of each child, by its name."""
        found: dict[tuple[int, str], tuple[ua.NodeId, list[ua.NodeId]]] = {}
        for each in declared:
            for ref in self._space[each].references:
                if ref.IsForward and ref.ReferenceTypeId in _HOLDS:
                    name = (ref.BrowseName.NamespaceIndex, ref.BrowseName.Name)
                    children = found.setdefault(name, (ref.ReferenceTypeId, []))[1]
                    if ref.NodeId not in children:
                        children.append(ref.NodeId)
        return list(found.values())

    def _supertypes(self, of: ua.NodeId) -> Iterator[ua.NodeId]:
        """The type itself and those above it."""
        while not of.is_null():
            yield of
            of = next(self._targets(of, number(Ids.HasSubtype), forward=False), ua.NodeId())

    def _targets(self, source: ua.NodeId, kind: ua.NodeId, forward: bool = True) -> Iterator[ua.NodeId]:
        for ref in self._space[source].references:
            if ref.ReferenceTypeId == kind and ref.IsForward == forward:
                yield ref.NodeId
