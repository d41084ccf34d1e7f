"""What the process makes of what the system gives it: files, sockets that listen already, memory."""

from __future__ import annotations

import gc
import resource

from msgspec.structs import replace

from stompbridge.config import ConfigError, Settings
from stompbridge.config_checks import inconsistencies
from stompbridge.lifecycle.sockets import Passed
from stompbridge.log import get_logger

_log = get_logger(__name__)

FILES_BESIDE_SOCKETS = 256
"""Files that the process needs besides its clients' sockets, generously."""

COLLECTOR = (10_000, 10, 5)
"""When Python looks for circles of objects that nobody refers to. Messages make none; a session that has ended is one,
of some 30 objects. With Python's own (700, 10, 10) a process with tens of thousands of messages under way spends a
quarter of its time looking, and falls the further behind the more it is behind: sent 1.3 times of what it takes at
most, it then delivered half of that (rooms of named clients, histories in Redis), and was not back within a minute at
0.8 times."""


def calm_collector() -> None:
    """Has Python look for garbage less often, and never among what start-up has made, which stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR)


def adopt(settings: Settings, sockets: Passed) -> Settings:
    """The settings with the addresses of the sockets that were passed in place of those configured.

    Raises :class:`ConfigError` for an address that the configuration does not allow to listen on.
    """
    adopted = settings
    for section, opened in (("listen", sockets.listen), ("admin", sockets.admin)):
        for sock in opened:
            host, port = sock.getsockname()[:2]
            now = replace(getattr(settings, section), host=host, port=port)
            adopted = replace(adopted, **{section: now})
            wrong = [text for key, _, text in inconsistencies(adopted) if key == f"{section}.host"]
            if wrong:
                raise ConfigError(f"the socket passed as {section} listens on {host}:{port}, which {wrong[0]}")
    return adopted


def raise_file_limit(connections: int) -> None:
    """Lets the process open as many files as it may have sockets, as far as it is allowed to. The limit that most
    shells and containers give, 1024, is there for programs that use ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + FILES_BESIDE_SOCKETS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        _log.info("few_files", allowed=hard, wanted=wanted, remedy="ulimit -n, LimitNOFILE or limits.connections")
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
