"""The published types of OPC 40100-1, put into the address space of a server.

The library's importer takes half a second of the processor for them and makes every reference of its own accord; this
reads what this one file has, and makes the nodes as they are kept.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from dataclasses import field as dataclass_field
from dataclasses import make_dataclass
from datetime import timezone
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from asyncua import ua
from asyncua.server.address_space import AddressSpace, AttributeValue, NodeData

FILE = Path(__file__).parent / "Opc.Ua.MachineVision.NodeSet2.xml.gz"
MACHINE_VISION = "http://opcfoundation.org/UA/MachineVision"
_SET = "{http://opcfoundation.org/UA/2011/03/UANodeSet.xsd}"
_TYPES = "{http://opcfoundation.org/UA/2008/02/Types.xsd}"
Type, Attribute, Ids = ua.VariantType, ua.AttributeIds, ua.ObjectIds

SIMPLE: dict[str, Any] = {
    "Boolean": (Type.Boolean, lambda text: text == "true"),
    "UInt32": (Type.UInt32, int),
    "Int32": (Type.Int32, int),
    "String": (Type.String, str),
    "DateTime": (Type.DateTime, lambda text: ua.DateTime.fromisoformat(text.replace("Z", "+00:00"))),
    "ByteString": (Type.ByteString, base64.b64decode),
}
_BASE_FIELDS: dict[Any, Any] = {
    Ids.Boolean: ua.Boolean, Ids.String: ua.String, Ids.ByteString: ua.ByteString, Ids.UtcTime: ua.DateTime,
    Ids.LocalizedText: ua.LocalizedText, Ids.Duration: ua.Double, Ids.Int32: ua.Int32,
}  # fmt: skip
"""Types of fields of structures -> the library's class."""
_INVERSE = {
    Ids.HasSubtype, Ids.HasProperty, Ids.HasComponent, Ids.HasSubStateMachine, Ids.HasEncoding, Ids.HasDescription,
    Ids.FromState, Ids.ToState, Ids.HasCause, Ids.HasEffect,
}  # fmt: skip
"""References that are also kept at their target."""


def number(identifier: int, namespace: int = 0) -> ua.NodeId:
    """A numeric node id."""
    return ua.NodeId(ua.Int32(identifier), ua.Int16(namespace))


_TYPE_DEFINITION, _SUBTYPE, _ENCODING = map(number, (Ids.HasTypeDefinition, Ids.HasSubtype, Ids.HasEncoding))


def status(code: int) -> ua.StatusCode:
    """A status by its code."""
    return ua.StatusCode(ua.UInt32(code))


def value_of(space: AddressSpace, node_id: ua.NodeId, attribute: ua.AttributeIds = Attribute.Value) -> Any:
    """An attribute's value as it is now."""
    found = space.read_attribute_value(node_id, attribute).Value
    return None if found is None else found.Value


def add_node(space: AddressSpace, node_id: ua.NodeId, attributes: dict[ua.AttributeIds, ua.Variant]) -> NodeData:
    """A node with these attributes; no references yet."""
    node = NodeData(node_id)
    common = {
        Attribute.NodeId: ua.Variant(node_id, Type.NodeId),
        Attribute.WriteMask: ua.Variant(0, Type.UInt32),
        Attribute.UserWriteMask: ua.Variant(0, Type.UInt32),
    }
    for attribute, value in {**common, **attributes}.items():
        node.attributes[attribute] = AttributeValue(ua.DataValue(value))
    space[node_id] = node
    return node


def refer(space: AddressSpace, source: ua.NodeId, kind: ua.NodeId, target: ua.NodeId, inverse: bool = True) -> None:
    """A reference that is not there yet, and with ``inverse`` the one back."""
    space[source].references.append(_description(space, kind, target, True))
    if inverse:
        space[target].references.append(_description(space, kind, source, False))


def _description(space: AddressSpace, kind: ua.NodeId, target: ua.NodeId, forward: bool) -> ua.ReferenceDescription:
    defined = [ref.NodeId for ref in space[target].references if ref.ReferenceTypeId == _TYPE_DEFINITION]
    return ua.ReferenceDescription(
        ReferenceTypeId=kind, IsForward=forward, NodeId=target,
        NodeClass=ua.NodeClass(value_of(space, target, Attribute.NodeClass)),
        BrowseName=value_of(space, target, Attribute.BrowseName),
        DisplayName=value_of(space, target, Attribute.DisplayName),
        TypeDefinition=defined[0] if defined else ua.NodeId(),
    )  # fmt: skip


class NodeSet:
    """The file, for one index of its namespace."""

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        root = _root()
        self._aliases = {alias.get("Alias"): self.node_id(alias.text or "") for alias in root.iter(f"{_SET}Alias")}
        self.elements = {self.node_id(each.get("NodeId", "")): each for each in root if each.get("NodeId")}
        self.classes: dict[str, type] = {}
        """Structures by the name of their data type."""

    def node_id(self, text: str) -> ua.NodeId:
        """Of an id or an alias in the file."""
        if text in getattr(self, "_aliases", {}):
            return self._aliases[text]
        namespace, _, identifier = text.rpartition(";")
        return number(int(identifier.removeprefix("i=")), self._namespace if namespace else 0)

    def put(self, space: AddressSpace) -> None:
        """Make every node."""
        self._make_classes()
        for node_id, element in self.elements.items():
            add_node(space, node_id, dict(self._attributes(node_id, element)))
        found = (self._references(node_id, element) for node_id, element in self.elements.items())
        links = dict.fromkeys(chain.from_iterable(found))  # most are in the file twice, once from each end
        # Type definitions first: every other reference repeats that of its target.
        for source, kind, target in sorted(links, key=lambda link: link[1] != _TYPE_DEFINITION):
            back = kind.NamespaceIndex == self._namespace or kind.Identifier in _INVERSE
            refer(space, source, kind, target, inverse=back)

    def _references(self, node_id: ua.NodeId, element: ET.Element) -> Iterator[tuple[ua.NodeId, ua.NodeId, ua.NodeId]]:
        for each in element.iter(f"{_SET}Reference"):
            kind, other = self.node_id(each.get("ReferenceType", "")), self.node_id(each.text or "")
            yield (node_id, kind, other) if each.get("IsForward") != "false" else (other, kind, node_id)

    def _attributes(self, node_id: ua.NodeId, element: ET.Element) -> Iterator[tuple[ua.AttributeIds, ua.Variant]]:
        kind = element.tag.removeprefix(f"{_SET}UA")
        shown = element.findtext(f"{_SET}DisplayName", "")
        yield Attribute.NodeClass, ua.Variant(ua.NodeClass[kind], Type.Int32)
        yield Attribute.BrowseName, ua.Variant(self._name(element.get("BrowseName", "")), Type.QualifiedName)
        yield Attribute.DisplayName, ua.Variant(ua.LocalizedText(shown), Type.LocalizedText)
        if kind == "Object":
            yield Attribute.EventNotifier, ua.Variant(0, Type.Byte)
        if kind == "Method":
            yield Attribute.Executable, ua.Variant(True, Type.Boolean)
            yield Attribute.UserExecutable, ua.Variant(True, Type.Boolean)
        if kind.endswith("Type"):
            yield Attribute.IsAbstract, ua.Variant(element.get("IsAbstract") == "true", Type.Boolean)
        if kind == "ReferenceType":
            yield Attribute.Symmetric, ua.Variant(False, Type.Boolean)
        if kind == "DataType":
            definition = self._definition(node_id)
            if definition is not None:
                yield Attribute.DataTypeDefinition, ua.Variant(definition, Type.ExtensionObject)
        if kind.startswith("Variable"):
            data_type = self.node_id(element.get("DataType", "i=24"))
            yield Attribute.DataType, ua.Variant(data_type, Type.NodeId)
            rank = int(element.get("ValueRank", "-1"))
            yield Attribute.ValueRank, ua.Variant(rank, Type.Int32)
            if rank >= 1:
                yield Attribute.ArrayDimensions, ua.Variant([0] * rank, Type.UInt32, is_array=True)
            yield Attribute.Value, self._value(element.find(f"{_SET}Value"))
        if kind == "Variable":
            yield Attribute.AccessLevel, ua.Variant(1, Type.Byte)
            yield Attribute.UserAccessLevel, ua.Variant(1, Type.Byte)
            yield Attribute.Historizing, ua.Variant(False, Type.Boolean)

    def _value(self, given: ET.Element | None) -> ua.Variant:
        """Null for the empty structures that the file gives as initial values."""
        if given is None or given[0].tag == f"{_TYPES}ExtensionObject":
            return ua.Variant()
        kind, of_list, element = given[0].tag.removeprefix(_TYPES), "ListOf", given[0]
        if not kind.startswith(of_list):
            variant, convert = SIMPLE[kind]
            return ua.Variant(convert(element.text or ""), variant)
        if kind == f"{of_list}Int32":
            return ua.Variant([int(each.text or "") for each in element], Type.Int32, is_array=True)
        bodies = [each.find(f"{_TYPES}Body") for each in element]
        values = [self._structure(body[0]) for body in bodies if body is not None]
        return ua.Variant(values, Type.ExtensionObject, is_array=True)

    def _structure(self, body: ET.Element) -> Any:
        def text(name: str) -> ua.LocalizedText:
            return ua.LocalizedText(body.findtext(f"{_TYPES}{name}/{_TYPES}Text"))

        if body.tag == f"{_TYPES}EnumValueType":
            code = int(body.findtext(f"{_TYPES}Value", ""))
            return ua.EnumValueType(Value=code, DisplayName=text("DisplayName"), Description=text("Description"))
        rank = int(body.findtext(f"{_TYPES}ValueRank", "-1"))
        return ua.Argument(
            Name=body.findtext(f"{_TYPES}Name"),
            DataType=self.node_id(body.findtext(f"{_TYPES}DataType/{_TYPES}Identifier", "")),
            ValueRank=ua.Int32(rank), ArrayDimensions=[ua.UInt32(0)] * max(0, rank), Description=text("Description"),
        )  # fmt: skip

    def _name(self, text: str) -> ua.QualifiedName:
        own = text.startswith("1:")
        return ua.QualifiedName(text.removeprefix("1:"), self._namespace if own else 0)

    def _supertype(self, data_type: ua.NodeId) -> ua.NodeId:
        links = self._references(data_type, self.elements[data_type])
        return next(source for source, kind, to in links if kind == _SUBTYPE and to == data_type)

    def _fields(self, data_type: ua.NodeId) -> list[ET.Element]:
        """With those of the supertype first."""
        if data_type not in self.elements:
            return []
        return [*self._fields(self._supertype(data_type)), *self.elements[data_type].iter(f"{_SET}Field")]

    def _is_structure(self, data_type: ua.NodeId) -> bool:
        while data_type in self.elements:
            data_type = self._supertype(data_type)
        return bool(data_type == number(Ids.Structure))

    def _encoding(self, data_type: ua.NodeId) -> ua.NodeId:
        links = list(self._references(data_type, self.elements[data_type]))
        for _, kind, to in links:
            if kind == _ENCODING and self.elements[to].get("BrowseName") == "Default Binary":
                return to
        return ua.NodeId()

    def _definition(self, data_type: ua.NodeId) -> Any:
        fields = self._fields(data_type)
        if not self._is_structure(data_type):
            values = [ua.EnumField(Value=int(f.get("Value", "0")), Name=f.get("Name")) for f in fields]
            return ua.EnumDefinition(Fields=values) if values else None
        optional = any(field.get("IsOptional") for field in fields)
        kind = ua.StructureType.StructureWithOptionalFields if optional else ua.StructureType.Structure
        return ua.StructureDefinition(
            DefaultEncodingId=self._encoding(data_type), BaseDataType=self._supertype(data_type), StructureType=kind,
            Fields=[
                ua.StructureField(
                    Name=field.get("Name"), DataType=self.node_id(field.get("DataType", "i=24")),
                    ValueRank=ua.Int32(int(field.get("ValueRank", "-1"))), ArrayDimensions=[],
                    IsOptional=bool(field.get("IsOptional")),
                )
                for field in fields
            ],
        )  # fmt: skip

    def _make_classes(self) -> None:
        """A dataclass for each structure, as the library encodes and decodes it."""
        for data_type in self.elements:
            if self.elements[data_type].tag == f"{_SET}UADataType" and self._is_structure(data_type):
                self._class(data_type)

    def _class(self, data_type: ua.NodeId) -> type:
        name = self._name(self.elements[data_type].get("BrowseName", "")).Name
        if name not in self.classes:
            fields = self._fields(data_type)
            made: list[Any] = []
            if any(field.get("IsOptional") for field in fields):
                made.append(("Encoding", ua.UInt32, dataclass_field(default=0, repr=False, init=False, compare=False)))
            for field in fields:
                kind = self._field_class(field)
                if field.get("IsOptional"):
                    made.append((field.get("Name"), kind | None, None))
                else:
                    nested = kind in self.classes.values()
                    default = dataclass_field(default_factory=kind) if nested else _NOTHING.get(kind)
                    made.append((field.get("Name"), kind, default))
            self.classes[name] = _registered(name, tuple(made), data_type, self._encoding(data_type))
        return self.classes[name]

    def _field_class(self, field: ET.Element) -> Any:
        data_type = self.node_id(field.get("DataType", "i=24"))
        if data_type == number(Ids.BaseDataType):
            return list[ua.Variant]
        while data_type in self.elements and not self._is_structure(data_type):
            data_type = self._supertype(data_type)
        if data_type == number(Ids.Enumeration):
            return ua.Int32
        return self._class(data_type) if data_type in self.elements else _BASE_FIELDS[data_type.Identifier]


_NOTHING: dict[Any, Any] = {ua.Boolean: False, ua.Int32: 0, ua.DateTime: ua.DateTime(1970, 1, 1, tzinfo=timezone.utc)}
"""What a field holds that nobody has set; anything else: null."""
_made: dict[ua.NodeId, type] = {}


def _registered(name: str, fields: tuple[Any, ...], data_type: ua.NodeId, encoding: ua.NodeId) -> type:
    """One class for each data type of this process, however many servers it has: the library knows one."""
    if data_type not in _made:
        _made[data_type] = make_dataclass(name, fields)
        ua.register_extension_object(name, encoding, _made[data_type], data_type)
    return _made[data_type]


def _root() -> ET.Element:
    return ET.fromstring(gzip.decompress(FILE.read_bytes()))
