"""What the admin listener answers, by method and path."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import resources
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from msgspec.json import encode

from stompbridge import log
from stompbridge.admin.control import Access
from stompbridge.admin.daemon_view import DaemonView
from stompbridge.admin.destinations import busiest
from stompbridge.admin.metrics import CONTENT_TYPE, Metrics
from stompbridge.admin.server import JSON, Answer, Handler, Refusal, Request, Stream
from stompbridge.admin.snapshot import Measured
from stompbridge.admin.trace import Trace, Tracing
from stompbridge.admin.views import SORTS, clients, session_list, session_view, status
from stompbridge.config import Level
from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason

T = TypeVar("T", bound=Struct)
Route = Callable[[Request, str], Awaitable[Answer | Stream]]
"""Gets the request, and what stands for ``*`` in its path."""

NDJSON = "application/x-ndjson"
MAX_ROWS = 1000
"""Entries of a list in one answer."""
MAX_DRAIN = 86400.0
"""Seconds."""
_MAX_FIELDS = 16

_log = log.get_logger(__name__)


class LevelOrder(Struct, forbid_unknown_fields=True):
    level: Level


class DrainOrder(Struct, forbid_unknown_fields=True):
    seconds: float | None = None


def routes(daemon: Measured) -> Handler:
    """Answers for ``daemon``."""
    return Site(daemon).answer


class Site:
    """All routes. Reading is open to everybody who reaches the listener, within :class:`Access`'s rules; what is done
    with a POST, and ``/trace``, needs the token."""

    def __init__(self, daemon: Measured) -> None:
        self._daemon: DaemonView = daemon
        self._access = Access(daemon.settings.admin, asyncio.get_running_loop().time)
        self._metrics = Metrics(daemon)
        secrets = daemon.settings.auth.jwt.connect_headers
        self._tracing = Tracing(daemon.shared, partial(clients, daemon), secrets)
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "/livez"): self._livez,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/metrics"): self._metrics_text,
            ("GET", "/status"): self._status,
            ("GET", "/sessions"): self._sessions,
            ("GET", "/sessions/*"): self._session,
            ("GET", "/closed"): self._closed,
            ("GET", "/destinations"): self._destinations,
            ("GET", "/whoami"): self._whoami,
            ("GET", "/trace"): self._trace,
            ("POST", "/sessions/*/close"): self._close,
            ("POST", "/log-level"): self._log_level,
            ("POST", "/drain"): self._drain,
        }
        for path, answer in page().items():
            self._routes["GET", path] = partial(_file, answer)

    async def answer(self, request: Request) -> Answer | Stream:
        """Answers any request. Raises :class:`Refusal`."""
        self._access.check_site(request)
        path, name = request.path, ""
        if path.startswith("/sessions/"):
            name, slash, rest = path.removeprefix("/sessions/").partition("/")
            path = f"/sessions/*{slash}{rest}"
        method = "GET" if request.method == "HEAD" else request.method
        route = self._routes.get((method, path))
        if route is not None:
            return await route(request, name)
        others = [other for other in ("GET", "POST") if (other, path) in self._routes]
        if not others:
            raise Refusal(404, "there is nothing here; /status tells the state, and / shows it")
        allowed = "GET, HEAD" if others == ["GET"] else "POST"
        raise Refusal(405, f"only {allowed}", ("Allow", allowed))

    # Reading.

    async def _livez(self, request: Request, _name: str) -> Answer:
        return Answer(*self._daemon.health.livez(request.query))

    async def _readyz(self, request: Request, _name: str) -> Answer:
        return Answer(*self._daemon.health.readyz(request.query))

    async def _metrics_text(self, _request: Request, _name: str) -> Answer:
        return Answer(200, CONTENT_TYPE, await self._metrics.render())

    async def _status(self, _request: Request, _name: str) -> Answer:
        return _json(await status(self._daemon))

    async def _sessions(self, request: Request, _name: str) -> Answer:
        self._access.check_reader(request)
        query = _query(request)
        sort = query.get("sort", "age")
        if sort not in SORTS:
            raise Refusal(400, f"sort must be one of {', '.join(SORTS)}")
        return _json(await session_list(self._daemon, query.get("search", ""), sort, _limit(query, 100)))

    async def _session(self, request: Request, name: str) -> Answer:
        self._access.check_reader(request)
        return _json(session_view(self._client(name), self._daemon.settings.node, whole=True))

    async def _closed(self, request: Request, _name: str) -> Answer:
        self._access.check_reader(request)
        return _json({"closed": self._daemon.recent.newest(_limit(_query(request), 100))})

    async def _destinations(self, request: Request, _name: str) -> Answer:
        return _json({"destinations": await busiest(self._daemon, _limit(_query(request), 20))})

    async def _whoami(self, request: Request, _name: str) -> Answer:
        control = self._access.may_control(request)
        access = self._access
        return _json({"control": control, "read": control or access.open, "token_configured": access.token_configured})

    # Control.

    async def _close(self, request: Request, name: str) -> Answer:
        self._access.check_control(request)
        client = self._client(name)
        _log.info("session_kicked", session=name, remote=client.connection.remote, by=request.address)
        client.connection.close(CloseReason.KICKED)
        return _json({"closed": name})

    async def _log_level(self, request: Request, _name: str) -> Answer:
        self._access.check_control(request)
        level = _order(request, LevelOrder, '{"level": "debug"}').level
        was = log.set_level(level)
        _log.warning("log_level_set", now=level, was=was, by=request.address)
        return _json({"level": level, "was": was})

    async def _drain(self, request: Request, _name: str) -> Answer:
        self._access.check_control(request)
        seconds = _order(request, DrainOrder, '{"seconds": 30}').seconds if request.body else None
        if seconds is not None and not 0 <= seconds <= MAX_DRAIN:
            raise Refusal(400, f"seconds must be between 0 and {MAX_DRAIN:g}")
        sessions = self._daemon.gateway.connections_open
        _log.info("drain_asked", seconds=seconds, by=request.address)
        seconds = self._daemon.request_stop(seconds)
        return _json({"draining": True, "sessions": sessions, "seconds": seconds}, 202)

    async def _trace(self, request: Request, _name: str) -> Stream:
        self._access.check_control(request)
        if request.method == "HEAD":
            raise Refusal(405, "only GET", ("Allow", "GET"))
        query = _query(request)
        bodies, session, destination = (
            query.get("bodies", "hidden"),
            query.get("session", ""),
            query.get("destination", ""),
        )
        if bodies not in ("hidden", "cut"):
            raise Refusal(400, "bodies must be hidden or cut")
        if session:
            self._client(session)
        trace = Trace(destination, session, bodies == "cut")
        self._tracing.open(trace)
        _log.info("trace_begun", destination=destination, session=session, bodies=bodies, by=request.address)
        return Stream(NDJSON, trace.begin, partial(self._tracing.close, trace))

    def _client(self, name: str) -> Client:
        client = self._daemon.traffic.sessions.get(name)
        if client is None:
            client = next((each for each in clients(self._daemon) if each.sender_id == name), None)
        if client is None or client.connection.reason is not None:
            raise Refusal(404, "there is no such session here")
        return client


def page() -> dict[str, Answer]:
    """The files of the status page by path, read anew."""
    files: dict[str, Answer] = {}
    for file in resources.files("stompbridge.admin").joinpath("page").iterdir():
        kind, _ = mimetypes.guess_type(file.name)
        if kind is None:
            continue
        path = "/" if file.name == "index.html" else f"/{file.name}"
        text = "; charset=utf-8" if kind.startswith("text/") else ""
        files[path] = Answer(200, kind + text, file.read_bytes())
    return files


async def _file(answer: Answer, _request: Request, _name: str) -> Answer:
    return answer


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, JSON, encode(value) + b"\n")


def _query(request: Request) -> dict[str, str]:
    try:
        return dict(parse_qsl(request.query, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))
    except ValueError as error:
        raise Refusal(400, f"the query is not valid: {error}") from None


def _limit(query: dict[str, str], default: int) -> int:
    text = query.get("limit", str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_ROWS):
        raise Refusal(400, f"limit must be a number from 1 to {MAX_ROWS}")
    return int(text)


def _order(request: Request, kind: type[T], example: str) -> T:
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.DecodeError as error:
        raise Refusal(400, f"the body must be JSON such as {example}: {error}") from None
