"""All that comes before a connection's first WebSocket frame: who it is, is there room, what does it ask. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address
from types import MappingProxyType

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from stompbridge.config import Settings
from stompbridge.gateway.capacity import Capacity, Seat
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.handshake import Handshake
from stompbridge.gateway.proxy import Address, Networks, ProxyError, ProxyHeader, forwarded_for, plain

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Door:
    """What is the same for all sockets of a gateway."""

    __slots__ = ("capacity", "https", "kept", "origins", "path", "proxy_protocol", "trusted")

    def __init__(self, settings: Settings) -> None:
        listen = settings.listen
        self.path = listen.path
        self.origins = listen.allowed_origins
        self.https = bool(listen.tls_cert)
        self.proxy_protocol = listen.proxy_protocol
        self.trusted = Networks(listen.trusted_proxies)
        self.kept = {"cookie", "authorization", *(name.lower() for name in settings.auth.http.forward_headers)}
        """Headers of the request that tell who a client is."""
        self.capacity = Capacity(settings.limits)


class Opening(Handshake):
    """One socket's opening, from its accept on. Room in all is asked for first; among those of its address as soon as
    the address is known, which for a trusted proxy's connections it is after the PROXY header or the request.

    ``peer`` is what a transport calls ``peername``.
    """

    __slots__ = ("_address", "_door", "_port", "_proxy", "seat", "upgrade")

    def __init__(self, door: Door, protocol: ServerProtocol, peer: tuple[str, int] | None) -> None:
        super().__init__(protocol, door.path, door.origins, door.https)
        self._door = door
        self._proxy = ProxyHeader() if door.proxy_protocol else None
        self._address: Address | None = None
        self._port: int | None = None
        self.seat: Seat | None = None
        """The socket's part of what there is room for; ``None`` if it was refused for want of it."""
        self.upgrade = NO_HEADERS
        """The headers of the request that tell who the client is, by lower-case name."""
        if peer:
            self._address, self._port = plain(ip_address(peer[0])), peer[1]
        seat = door.capacity.enter()
        if isinstance(seat, CloseReason):
            self.turn_away(seat)
            return
        self.seat = seat
        if self._proxy is None:
            self._arrive()
        elif not self._is_trusted():
            self._refuse_proxy("not from a trusted proxy")

    @property
    def address(self) -> str:
        """The client's IP address, as far as it is known; empty when it was gone before we asked."""
        return "" if self._address is None else str(self._address)

    @property
    def remote(self) -> str:
        """The same with the port, if that is known: ``192.0.2.1:50000``, ``[2001:db8::1]:50000``."""
        address = self.address
        if self._port is None:
            return address
        return f"[{address}]:{self._port}" if ":" in address else f"{address}:{self._port}"

    def receive(self, data: bytes) -> bytes | None:
        proxy = self._proxy
        if proxy is not None:
            try:
                rest = proxy.receive(data)
            except ProxyError as error:
                self._refuse_proxy(str(error))
                return b""
            if rest is None:
                return None
            self._proxy = None
            if proxy.source is not None:
                self._address, self._port = proxy.source
            if not self._arrive():
                return b""
            data = rest
        return super().receive(data)

    def _is_trusted(self) -> bool:
        return self._address is not None and self._address in self._door.trusted

    def _arrive(self) -> bool:
        """The socket's other end, or who the PROXY header says it is, is the client; but for a trusted proxy, whose
        request says more. Tells whether it may go on."""
        reason = None if self._is_trusted() else self._locate()
        if reason is not None:
            self.turn_away(reason)
        return reason is None

    def _locate(self) -> CloseReason | None:
        assert self.seat is not None
        reason = None if self._address is None else self.seat.locate(self._address)
        if reason is not None:
            self.seat.leave()
            self.seat = None
        return reason

    def _refuse_proxy(self, text: str) -> None:
        self.reason = CloseReason.BAD_PROXY
        self._protocol.send_response(self._refuse(HTTPStatus.BAD_REQUEST, text))

    def _answer(self, request: Request) -> Response:
        headers = request.headers
        if self._is_trusted():
            address = forwarded_for(headers.get_all("X-Forwarded-For"), self._door.trusted)
            if address is not None:
                self._address, self._port = address, None
            reason = self._locate()
            if reason is not None:
                return self._not_now(reason)
        response = super()._answer(request)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self.upgrade = self._keep(headers)
        return response

    def _keep(self, headers: Headers) -> Mapping[str, str]:
        kept = {}
        for name in self._door.kept:
            values = headers.get_all(name)
            if values:
                # RFC 6265 section 5.4 and RFC 9110 section 5.3.
                kept[name] = ("; " if name == "cookie" else ", ").join(values)
        return kept
