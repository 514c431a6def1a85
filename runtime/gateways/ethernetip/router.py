"""Takes a request to its object: directly, in a packet with others, routed, or over a connection."""

from __future__ import annotations

import struct
from collections.abc import Callable

from asperity.runtime.gateways.ethernetip.cip import (
    CipError,
    Extended,
    General,
    Path,
    Request,
    Service,
    decode_forward_close,
    decode_forward_open,
    decode_path,
    decode_request,
    decode_routed,
    decode_several,
    encode_not_opened,
    encode_opened,
    encode_reply,
    encode_several,
    refused,
)
from asperity.runtime.gateways.ethernetip.connections import HERE, Connections, Cyclic, Origin
from asperity.runtime.gateways.ethernetip.objects import CONNECTION_MANAGER, MESSAGE_ROUTER, Objects

ATTRIBUTES_MAX = 32
"""In one request for a list of them."""
REPLY_MAX_NBYTES = 4000
OPENS = (Service.FORWARD_OPEN, Service.LARGE_FORWARD_OPEN, Service.FORWARD_CLOSE)


class Router:
    """Answers requests. For one thread."""

    def __init__(self, objects: Objects, connections: Connections, opened: Callable[[Cyclic], None]) -> None:
        """``opened`` is called for each cyclic connection that was opened."""
        self._objects = objects
        self._connections = connections
        self._opened = opened

    def unconnected(self, body: bytes, origin: Origin, now_s: float) -> bytes:
        """The answer to a request that came without a connection. Never raises CipError."""
        return self._answer(body, origin, now_s, opens=True)

    def connected(self, body: bytes, origin: Origin, now_s: float) -> bytes:
        """The answer to a request that came over one."""
        return self._answer(body, origin, now_s)

    def _answer(
        self, body: bytes, origin: Origin, now_s: float, *, opens: bool = False, several: bool = True
    ) -> bytes:
        """``opens``: it may open and close connections, and be routed. ``several``: it may hold others."""
        service = body[0] if body else 0
        try:
            request = decode_request(body)
            path = decode_path(request.path)
            if path.class_id == CONNECTION_MANAGER and opens:
                return self._of_manager(request, origin, now_s)
            if request.service == Service.MULTIPLE and (path.class_id, path.instances) == (MESSAGE_ROUTER, [1]):
                if not several:
                    raise CipError(General.SERVICE_UNSUPPORTED)
                return self._several(request, origin, now_s)
            return encode_reply(request.service, self._of_object(request, path, origin))
        except CipError as error:
            return encode_reply(service, error.data, error.status, error.extended)

    def _several(self, request: Request, origin: Origin, now_s: float) -> bytes:
        replies = [self._answer(each, origin, now_s, several=False) for each in decode_several(request.data)]
        data = encode_several(replies)
        if len(data) > REPLY_MAX_NBYTES:
            raise CipError(General.TOO_LARGE)
        failed = any(reply[2] != General.OK for reply in replies)
        return encode_reply(request.service, data, General.EMBEDDED if failed else General.OK)

    def _of_object(self, request: Request, path: Path, origin: Origin) -> bytes:
        if path.class_id is None or len(path.instances) > 1 or path.ports or path.key or path.data:
            raise CipError(General.PATH_UNKNOWN)
        # A path that ends at its class is one to what all instances share.
        instance = path.instances[0] if path.instances else 0
        if request.service == Service.GET_ATTRIBUTES_ALL:
            return self._objects.get_all(path.class_id, instance, origin.own_host)
        if request.service == Service.GET_ATTRIBUTE_LIST:
            return self._list(request.data, path.class_id, instance, origin)
        if request.service == Service.GET_ATTRIBUTE:
            # Some clients let a route follow, which is nothing to a request that reads.
            return self._objects.get(path.class_id, instance, path.attribute or 0, origin.own_host)
        if request.service == Service.SET_ATTRIBUTE:
            self._objects.set(path.class_id, instance, path.attribute or 0, request.data, origin.host)
            return b""
        self._objects.get(path.class_id, 0, 1, origin.own_host)  # is there such an object at all?
        raise CipError(General.SERVICE_UNSUPPORTED)

    def _list(self, data: bytes, class_id: int, instance: int, origin: Origin) -> bytes:
        if len(data) < 2:
            raise CipError(General.TOO_SHORT)
        (count,) = struct.unpack_from("<H", data)
        if count > ATTRIBUTES_MAX or len(data) < 2 + 2 * count:
            raise CipError(General.TOO_SHORT)
        answer, failed = struct.pack("<H", count), False
        for attribute in struct.unpack_from(f"<{count}H", data, 2):
            try:
                value = self._objects.get(class_id, instance, attribute, origin.own_host)
                answer += struct.pack("<HH", attribute, General.OK) + value
            except CipError as error:
                if error.status == General.PATH_UNKNOWN:
                    raise
                answer, failed = answer + struct.pack("<HH", attribute, error.status), True
        if failed:
            raise CipError(General.ATTRIBUTE_LIST, data=answer)
        return answer

    def _of_manager(self, request: Request, origin: Origin, now_s: float) -> bytes:
        if request.service == Service.UNCONNECTED_SEND:
            inner, route = decode_routed(request.data)
            ports = decode_path(route).ports
            if set(ports) - HERE or len(ports) > 1:
                raise refused(Extended.PORT)
            return self._answer(inner, origin, now_s)
        if request.service not in OPENS:
            return encode_reply(request.service, self._of_object(request, decode_path(request.path), origin))
        if request.service == Service.FORWARD_CLOSE:
            name = decode_forward_close(request.data)
            try:
                self._connections.close(name, origin)
            except CipError as error:
                raise CipError(error.status, error.extended, encode_not_opened(name)) from error
            return encode_reply(request.service, encode_not_opened(name))
        asked = decode_forward_open(request.data, large=request.service == Service.LARGE_FORWARD_OPEN)
        try:
            opened = self._connections.open(asked, origin, now_s)
        except CipError as error:
            raise CipError(error.status, error.extended, encode_not_opened(asked.name)) from error
        if isinstance(opened, Cyclic):
            self._opened(opened)
        return encode_reply(request.service, encode_opened(asked, opened.ot_id))
