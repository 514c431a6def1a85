"""The objects of the device and their attributes: identity, assemblies, the network's. Pure but for the registers.

Not served, because it is not known here: the physical address and speed of the network's interface (zeros).
"""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from asperity.runtime.gateways.ethernetip.assemblies import (
    ASSEMBLIES,
    PLC_CLOCK,
    WRITE_STATUS_OF_NAME,
    Assembly,
)
from asperity.runtime.gateways.ethernetip.cip import CipError, ElectronicKey, Extended, General, refused, short_string
from asperity.runtime.gateways.ethernetip.encapsulation import PROTOCOL_VERSION, encode_address
from asperity.runtime.gateways.modbus.server import BUSY, ILLEGAL_VALUE, Refusal, Registers
from asperity.runtime.gateways.modbus.table import TABLE_VERSION, words_of

IDENTITY, MESSAGE_ROUTER, ASSEMBLY, CONNECTION_MANAGER, TCP_IP, ETHERNET_LINK = 0x01, 0x02, 0x04, 0x06, 0xF5, 0xF6
DEVICE_TYPE, PRODUCT = 43, 1
"""Generic device (keyable)."""
REVISION = (TABLE_VERSION, 1)
"""The first number is the layout of the assemblies: another one is another device to a controller's key."""
NAME_MAX = 32
OPERATIONAL = 3
DATA, SIZE = 3, 4
"""Attributes of an assembly."""
REVISIONS = {IDENTITY: 1, MESSAGE_ROUTER: 1, ASSEMBLY: 2, CONNECTION_MANAGER: 1, TCP_IP: 4, ETHERNET_LINK: 4}
IN_ALL = {IDENTITY: range(1, 8), TCP_IP: range(1, 7), ETHERNET_LINK: range(1, 4)}
"""Attributes that GetAttributesAll brings."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the device says it is."""

    vendor: int
    serial: int
    name: str

    @staticmethod
    def of(station: str, vendor: int) -> Identity:
        """The serial number is the same in each run, and another one on another computer or of another station."""
        named = f"{socket.gethostname()}/{station}".encode()
        serial = int.from_bytes(hashlib.sha256(named).digest()[:4], "little")
        return Identity(vendor, serial, f"Asperity {station}"[:NAME_MAX])

    def check(self, key: ElectronicKey | None) -> None:
        """Is it the device that the originator expects? Raises CipError."""
        if key is None:
            return
        if key.vendor not in (0, self.vendor) or key.product not in (0, PRODUCT):
            raise refused(Extended.KEY_PRODUCT)
        if key.device_type not in (0, DEVICE_TYPE):
            raise refused(Extended.KEY_TYPE)
        if key.major not in (0, REVISION[0]) or key.minor > REVISION[1]:
            raise refused(Extended.KEY_REVISION)

    def encode(self, status: int) -> bytes:
        """Attributes 1 to 7."""
        head = struct.pack("<HHHBBHI", self.vendor, DEVICE_TYPE, PRODUCT, *REVISION, status, self.serial)
        return head + short_string(self.name)

    def encode_item(self, host: str, port: int, status: int) -> bytes:
        """What ListIdentity is answered with."""
        head = struct.pack("<H", PROTOCOL_VERSION) + encode_address(host, port)
        return head + self.encode(status) + bytes([OPERATIONAL])


class Objects:
    """Reads and writes attributes. For one thread."""

    def __init__(
        self, registers: Registers, identity: Identity, idle_s: int, owned: Callable[[], str], status: Callable[[], int]
    ) -> None:
        """``owned``: the controller that alone may write by its cyclic connection, or nothing. ``status``: of the
        identity."""
        self.identity = identity
        self.status = status
        self.write_status = WRITE_STATUS_OF_NAME["NONE"]
        self._registers = registers
        self._idle_s = idle_s
        self._owned = owned

    def read_assembly(self, assembly: Assembly) -> bytes:
        """All of one moment: of this one."""
        block = self._registers.read(assembly.block[0].address, words_of(assembly.block))
        return assembly.from_registers(block + self.write_status.to_bytes(2, "big"))

    def write_assembly(self, assembly: Assembly, data: bytes, peer: str, *, cyclic: bool = False) -> None:
        """Raises CipError; then nothing of it was done, and ``write_status`` says why."""
        if not assembly.writable:
            raise CipError(General.NOT_SETTABLE)
        if len(data) != assembly.nbytes:
            raise CipError(General.TOO_SHORT if len(data) < assembly.nbytes else General.TOO_LONG)
        if self._owned() and not cyclic and assembly is not PLC_CLOCK:
            raise CipError(General.DEVICE_STATE)
        registers = assembly.to_registers(data)
        if registers is None:
            self._wrote(assembly, "REFUSED")
            raise CipError(General.INVALID_VALUE)
        words = [int.from_bytes(registers[at : at + 2], "big") for at in range(0, len(registers), 2)]
        try:
            self._registers.write(assembly.rows[0].address, words, peer)
        except Refusal as refusal:
            name, status = {
                ILLEGAL_VALUE: ("REFUSED", General.INVALID_VALUE),
                BUSY: ("BUSY", General.OBJECT_STATE),
            }.get(refusal.code, ("NOT_ALLOWED", General.PRIVILEGE))
            self._wrote(assembly, name)
            raise CipError(status) from refusal
        self._wrote(assembly, "TAKEN")

    def _wrote(self, assembly: Assembly, outcome: str) -> None:
        """The time of the PLC is not a request: ``write_status`` stays what the last of these left."""
        if assembly is not PLC_CLOCK:
            self.write_status = WRITE_STATUS_OF_NAME[outcome]

    def idle(self) -> None:
        """The controller is in program mode: what it sends is not done."""
        self.write_status = WRITE_STATUS_OF_NAME["IDLE"]

    def get(self, class_id: int, instance: int, attribute: int, host: str) -> bytes:
        """``host``: the address of ours that is asked. Raises CipError."""
        if class_id not in REVISIONS:
            raise CipError(General.PATH_UNKNOWN)
        if instance == 0:
            return self._of_class(class_id, attribute)
        if class_id == ASSEMBLY:
            return self._of_assembly(instance, attribute)
        if instance != 1:
            raise CipError(General.PATH_UNKNOWN)
        values = {IDENTITY: self._of_identity, TCP_IP: lambda: self._of_tcp(host), ETHERNET_LINK: _of_link}
        found = values.get(class_id, dict)().get(attribute)
        if found is None:
            raise CipError(General.ATTRIBUTE_UNSUPPORTED)
        return found

    def get_all(self, class_id: int, instance: int, host: str) -> bytes:
        """Raises CipError."""
        if class_id not in IN_ALL or instance == 0:
            raise CipError(General.SERVICE_UNSUPPORTED if class_id in REVISIONS else General.PATH_UNKNOWN)
        return b"".join(self.get(class_id, instance, attribute, host) for attribute in IN_ALL[class_id])

    def set(self, class_id: int, instance: int, attribute: int, data: bytes, peer: str) -> None:
        """Raises CipError."""
        assembly = ASSEMBLIES.get(instance)
        if class_id not in REVISIONS or (class_id == ASSEMBLY and assembly is None):
            raise CipError(General.PATH_UNKNOWN)
        if class_id != ASSEMBLY or assembly is None:
            raise CipError(General.NOT_SETTABLE)
        if attribute != DATA:
            raise CipError(General.NOT_SETTABLE if attribute == SIZE else General.ATTRIBUTE_UNSUPPORTED)
        self.write_assembly(assembly, data, peer)

    def _of_class(self, class_id: int, attribute: int) -> bytes:
        """Revision, highest instance, number of instances."""
        highest, count = (max(ASSEMBLIES), len(ASSEMBLIES)) if class_id == ASSEMBLY else (1, 1)
        value = {1: REVISIONS[class_id], 2: highest, 3: count}.get(attribute)
        if value is None:
            raise CipError(General.ATTRIBUTE_UNSUPPORTED)
        return struct.pack("<H", value)

    def _of_assembly(self, instance: int, attribute: int) -> bytes:
        assembly = ASSEMBLIES.get(instance)
        if assembly is None:
            raise CipError(General.PATH_UNKNOWN)
        if attribute == SIZE:
            return struct.pack("<H", assembly.nbytes)
        if attribute != DATA:
            raise CipError(General.ATTRIBUTE_UNSUPPORTED)
        return self.read_assembly(assembly)

    def _of_identity(self) -> dict[int, bytes]:
        identity = self.identity
        numbers = (identity.vendor, DEVICE_TYPE, PRODUCT)
        values = {number: struct.pack("<H", value) for number, value in enumerate(numbers, start=1)}
        return values | {
            4: bytes(REVISION),
            5: struct.pack("<H", self.status()),
            6: struct.pack("<I", identity.serial),
            7: short_string(identity.name),
            8: bytes([OPERATIONAL]),
        }

    def _of_tcp(self, host: str) -> dict[int, bytes]:
        """The address is what the system gave; it cannot be set from here."""
        own = struct.pack("<I", int.from_bytes(socket.inet_aton(host), "big"))
        name = socket.gethostname().encode("ascii", "replace")[:64]
        return {
            1: struct.pack("<I", 2),
            2: bytes(4),
            3: bytes(4),
            4: struct.pack("<H", 2) + bytes([0x20, ETHERNET_LINK, 0x24, 0x01]),
            5: own + bytes(16) + bytes(2),
            6: struct.pack("<H", len(name)) + name + bytes(len(name) % 2),
            13: struct.pack("<H", self._idle_s),
        }


def _of_link() -> dict[int, bytes]:
    """Speed, flags (the link is up), physical address."""
    return {1: bytes(4), 2: struct.pack("<I", 1), 3: bytes(6)}
