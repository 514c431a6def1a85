"""Google's protobuf as the decoder, with the fields of Sparkplug 3.0's sparkplug_b.proto that a host reads."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

UINT64, UINT32, BOOL, STRING, DOUBLE, MESSAGE = 4, 13, 8, 9, 1, 11
METRIC = {
    "name": (1, STRING), "alias": (2, UINT64), "timestamp": (3, UINT64), "datatype": (4, UINT32),
    "is_historical": (5, BOOL), "is_transient": (6, BOOL), "is_null": (7, BOOL), "int_value": (10, UINT32),
    "long_value": (11, UINT64), "double_value": (13, DOUBLE), "boolean_value": (14, BOOL), "string_value": (15, STRING),
}  # fmt: skip
VALUES = ("int_value", "long_value", "double_value", "boolean_value", "string_value")
KIND = {
    4: "long_value", 5: "int_value", 6: "int_value", 7: "int_value", 8: "long_value", 10: "double_value",
    11: "boolean_value", 12: "string_value", 13: "long_value",
}  # fmt: skip
"""Where the value of a data type stands."""


def _payload_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="spb", syntax="proto2")
    metric = file.message_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    for name, (number, kind) in METRIC.items():
        field = metric.field.add(name=name, number=number, type=kind, label=1)
        if name in VALUES:
            field.oneof_index = 0
    payload = file.message_type.add(name="Payload")
    payload.field.add(name="timestamp", number=1, type=UINT64, label=1)
    payload.field.add(name="metrics", number=2, type=MESSAGE, label=3, type_name=".spb.Metric")
    payload.field.add(name="seq", number=3, type=UINT64, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("spb.Payload"))


Payload = _payload_class()


def decoded(body: bytes) -> tuple[int | None, dict[str, Any], set[str]]:
    """Sequence number, value of each metric by name, and which are historical."""
    payload = Payload.FromString(body)
    values: dict[str, Any] = {}
    for metric in payload.metrics:
        place = metric.WhichOneof("value")
        assert metric.is_null == (place is None) and metric.timestamp and metric.name not in values
        assert place in (None, KIND[metric.datatype]), "the value stands where its type says"
        value = None if place is None else getattr(metric, place)
        # An Int64 is a long_value in two's complement.
        values[metric.name] = value - 2**64 if metric.datatype == 4 and value is not None and value >= 2**63 else value
    historical = {metric.name for metric in payload.metrics if metric.is_historical}
    return (payload.seq if payload.HasField("seq") else None), values, historical


def command(**booleans: bool) -> bytes:
    """Of a host: Boolean metrics, ``__`` in a name for ``/`` and ``_`` for a space."""
    payload = Payload(timestamp=1)
    for name, value in booleans.items():
        shown = name.replace("__", "/").replace("_", " ")
        payload.metrics.add(name=shown, timestamp=1, datatype=11, boolean_value=value)
    return bytes(payload.SerializeToString())
