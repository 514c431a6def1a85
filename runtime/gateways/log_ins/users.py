"""Who may do what at a gateway: a file of users with scrypt hashes, which only its owner can read.

A line of the file is ``NAME ROLE scrypt$N$R$P$SALT$HASH``; ``asperity gateway user`` writes it. The role ``read`` sees
everything, ``operate`` also calls methods.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path

from asperity.runtime.errors import ConfigError, UsageError
from asperity.runtime.security.private_files import read_secret, write_private

ROLES = ("read", "operate")
MIN_PASSWORD_CHARACTERS = 8
SCRYPT = (2**14, 8, 1)
"""N, r, p: 16 MiB and some 50 ms a check (RFC 7914)."""
SCRYPT_MAX = (2**17, 16, 4)
"""What a file may ask for."""
SALT_BYTES = 16
HASH_BYTES = 32
NAME_MAX = 32
NAME = re.compile(rf"[A-Za-z0-9_.@-]{{1,{NAME_MAX}}}")


@dataclass(frozen=True, slots=True)
class User:
    """One line of the file."""

    name: str
    role: str
    cost: tuple[int, int, int]
    salt: bytes
    digest: bytes

    @property
    def may_operate(self) -> bool:
        return self.role == "operate"

    def line(self) -> str:
        """The line as in the file."""
        salt, digest = (base64.b64encode(data).decode() for data in (self.salt, self.digest))
        return f"{self.name} {self.role} scrypt${'$'.join(map(str, self.cost))}${salt}${digest}"


def new_user(name: str, role: str, password: str) -> User:
    """A user with a new salt. Raises UsageError."""
    if not NAME.fullmatch(name) or role not in ROLES:
        raise UsageError(
            f"user {name!r}, role {role!r}: a name has 1 to 32 characters from A-Z a-z 0-9 _ . @ -; a role is read "
            "or operate"
        )
    if len(password) < MIN_PASSWORD_CHARACTERS:
        raise UsageError(f"the password has {len(password)} characters; the minimum is {MIN_PASSWORD_CHARACTERS}")
    if not password.isprintable():
        raise UsageError("the password holds a character that cannot be typed, such as a tab; use another one")
    salt = os.urandom(SALT_BYTES)
    return User(name, role, SCRYPT, salt, _digest(password, SCRYPT, salt))


def put_user(path: Path, user: User) -> None:
    """Add to the file, or replace the user of that name. Raises ConfigError, UsageError."""
    users = {**(read_users(path) if path.exists() else {}), user.name: user}
    data = "".join(f"{entry.line()}\n" for entry in users.values()).encode()
    write_private(path, data, "free space or name another file")


def read_users(path: Path) -> dict[str, User]:
    """Users by name. Raises ConfigError if others than its owner have access to the file or a line is invalid."""
    users = {}
    for number, line in enumerate(read_secret(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user = _parse(line)
        if user is None or user.name in users:
            why = "is not a valid user" if user is None else f"lists {user.name} twice"
            raise ConfigError(f"{path}, line {number} {why}; write it with: asperity gateway user {path} NAME")
        users[user.name] = user
    return users


def check_password(users: dict[str, User], name: str, password: str) -> User | None:
    """The user, if name and password match. Takes as long for a name that is not known."""
    user = users.get(name)
    cost, salt = (user.cost, user.salt) if user else (SCRYPT, b"\0" * SALT_BYTES)
    digest = _digest(password, cost, salt)
    return user if user is not None and hmac.compare_digest(digest, user.digest) else None


def _parse(line: str) -> User | None:
    try:
        name, role, hashed = line.split()
        kind, n, r, p, salt, digest = hashed.split("$")
        cost = (int(n), int(r), int(p))
        user = User(name, role, cost, base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True))
    except (ValueError, binascii.Error):
        return None
    bounded = all(1 <= value <= most for value, most in zip(cost, SCRYPT_MAX, strict=True))
    power = cost[0] > 1 and cost[0] & (cost[0] - 1) == 0
    known = kind == "scrypt" and role in ROLES and NAME.fullmatch(name) is not None
    return user if known and bounded and power and len(user.digest) == HASH_BYTES and user.salt else None


def _digest(password: str, cost: tuple[int, int, int], salt: bytes) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(
        password.encode(), salt=salt, n=n, r=r, p=p, dklen=HASH_BYTES, maxmem=256 * n * r * p + 1024 * 1024
    )
