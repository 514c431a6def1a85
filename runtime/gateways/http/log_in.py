"""Who sent an HTTP request: a user of the file, by Basic authentication, or nobody."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from pathlib import Path

import msgspec

from asperity.runtime.gateways.config import Users
from asperity.runtime.gateways.http.requests import Request, RequestRefused, name_and_password, problem
from asperity.runtime.gateways.log_ins.checks import BusyError, LogIns
from asperity.runtime.gateways.log_ins.users import NAME_MAX, User, read_users

log = logging.getLogger("asperity.gateway")

CHALLENGE = 'WWW-Authenticate: Basic realm="asperity", charset="UTF-8"'
PASSWORD_MAX = 1024
WAIT_SHARE = 0.5
"""Of ``request_ms``, for a log-in to have its turn: then the client is told why, and not that nothing answered."""


class Doorkeeper:
    """Knows the users of the file. A password is checked once in a process: scrypt takes its time on purpose."""

    def __init__(self, config: Users, request_ms: int) -> None:
        """Raises ConfigError as ``read_users``."""
        self.known = read_users(Path(config.file)) if config.file else {}
        self.anonymous_read = not config.file or config.anonymous_read
        self.refused = 0
        wait_ms = min(config.wait_ms, round(WAIT_SHARE * request_ms))
        self._log_ins = LogIns(self.known, msgspec.structs.replace(config, wait_ms=wait_ms))
        self._key = os.urandom(32)
        self._proven: dict[str, bytes] = {}  # at most one for each user

    async def user(self, request: Request, host: str) -> User | None:
        """Of a request that may read; None: nobody by name. Raises RequestRefused."""
        given = name_and_password(request.headers)
        if given is None:
            if not self.anonymous_read:
                raise RequestRefused(problem(401, "this gateway asks for a user and a password", CHALLENGE))
            return None
        name, password = given
        digest = hmac.digest(self._key, password.encode(), hashlib.sha256)
        if name in self._proven and hmac.compare_digest(self._proven[name], digest):
            return self.known[name]
        shown = ascii(name[:NAME_MAX])
        try:
            user = await self._log_ins.check(name, password[: PASSWORD_MAX + 1], host)
        except BusyError:
            self._refuse(shown, host, "too many log-ins from that name and address")
            raise RequestRefused(problem(429, "too many log-ins of that user; try again later")) from None
        if user is None:
            self._refuse(shown, host, "name or password is wrong")
            raise RequestRefused(problem(401, "name or password is wrong", CHALLENGE))
        self._proven[name] = digest
        return user

    def close(self) -> None:
        """Check no more."""
        self._log_ins.close()

    def _refuse(self, shown: str, host: str, why: str) -> None:
        self.refused += 1
        log.warning("the log-in %s of %s is refused: %s", shown, host, why)
