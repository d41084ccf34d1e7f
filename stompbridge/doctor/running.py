"""The bridge that runs here already, if there is one."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from stompbridge.auth.fetch import FetchError, fetch, make_client
from stompbridge.config import Settings

TIMEOUT = 3.0
_SIZE = 1024 * 1024
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Running:
    """What answers on the admin port: its node's name and its process id, which is 0 where it does not say."""

    node: str
    pid: int


class _Status(msgspec.Struct):
    node: str
    pid: int = 0


async def running_bridge(settings: Settings) -> Running | None:
    """The bridge behind the admin port, whichever it is."""
    admin = settings.admin
    if not admin.enabled or not admin.port:
        return None
    host = _EVERYWHERE.get(admin.host, admin.host)
    url = f"http://[{host}]:{admin.port}/status" if ":" in host else f"http://{host}:{admin.port}/status"
    async with make_client(url, at_a_time=1) as client:
        try:
            status, data = await fetch(client, "GET", url, within=TIMEOUT, size=_SIZE)
            found = msgspec.json.decode(data, type=_Status)
        except (FetchError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
    return Running(found.node, found.pid) if status == 200 else None
