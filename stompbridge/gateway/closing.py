"""Why connections end: one list for Close frames, logs and metrics."""

from __future__ import annotations

from enum import Enum


class CloseReason(Enum):
    """A reason, with what the Close frame, the log and the counters make of it.

    ``code`` is the WebSocket close code (RFC 6455 section 7.4.1), ``text`` goes into the Close frame where the
    caller has nothing better to say, and ``retry`` tells whether a client does well to connect again.
    """

    code: int
    text: str
    retry: bool

    CLIENT_DISCONNECT = "client_disconnect", 1000, "disconnected", False
    CLIENT_CLOSED = "client_closed", 1000, "closed by the client", False
    CLIENT_LOST = "client_lost", 1006, "the connection broke without a Close frame", True
    REJECTED = "rejected", 1008, "the WebSocket handshake was refused", False
    FULL = "full", 1013, "the server takes no more connections", True
    ADDRESS_FULL = "address_full", 1013, "the server takes no more connections of this address", True
    PENDING_FULL = "pending_full", 1013, "too many clients are just connecting", True
    ADDRESS_PENDING_FULL = "address_pending_full", 1013, "too many clients of this address are just connecting", True
    BAD_PROXY = "bad_proxy", 1008, "no PROXY header of a trusted proxy", False
    TLS_FAILED = "tls_failed", 1015, "the TLS handshake failed, or what came later was no TLS", False
    OPEN_TIMEOUT = "open_timeout", 1008, "no WebSocket handshake in time", True
    CONNECT_TIMEOUT = "connect_timeout", 1008, "no CONNECT frame in time", True
    PROTOCOL_ERROR = "protocol_error", 1002, "WebSocket protocol violated", False
    BAD_TEXT = "bad_text", 1007, "text that is not UTF-8", False
    TOO_BIG = "too_big", 1009, "message too big", False
    STOMP_ERROR = "stomp_error", 1002, "closed after an ERROR frame", False
    SLOW_CONSUMER = "slow_consumer", 1008, "does not read what is sent", True
    HEARTBEAT_LOST = "heartbeat_lost", 1008, "heart-beats stopped", True
    PING_LOST = "ping_lost", 1008, "pings are not answered", True
    TAKEN_OVER = "taken_over", 1008, "a newer session of the same client", False
    RATE_LIMITED = "rate_limited", 1008, "sends faster than it may", False
    SESSION_EXPIRED = "session_expired", 1008, "the credentials have expired", True
    ACCESS_REVOKED = "access_revoked", 1008, "the login is not let in any more", False
    AUTH_UNAVAILABLE = "auth_unavailable", 1013, "nobody can say who the client is", True
    KICKED = "kicked", 1008, "closed by an operator", False
    SHUTDOWN = "shutdown", 1012, "the server is shutting down", True
    INTERNAL_ERROR = "internal_error", 1011, "internal error", True

    def __init__(self, label: str, code: int, text: str, retry: bool) -> None:
        self.label = label
        self.code = code
        self.text = text
        self.retry = retry
