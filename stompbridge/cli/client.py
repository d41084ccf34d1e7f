"""Questions to the admin listener of a running bridge.

``http.client`` does all that is needed here and loads in a fraction of the time of the package's HTTP library: health
checks start this program every few seconds.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from stompbridge.cli.common import FOUND, UNREACHABLE, UNUSABLE, Failure
from stompbridge.cli.target import Target

TIMEOUT = 10.0
"""Seconds that an answer may pause."""
SIZE = 64 * 1024 * 1024
"""Bytes of an answer."""
LINE = 4 * 1024 * 1024
"""Bytes of a line of a stream."""


class Remote:
    """One admin listener. Everything raises :class:`.Failure` with what happened and what to do."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.url = target.url

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """The JSON object at a path. Values of the query that are ``None`` or empty are left out."""
        return self._object(*self._exchange("GET", _with_query(path, query)))

    def post(self, path: str, body: object = None) -> dict[str, Any]:
        """Asks for a change, with a JSON body unless it is ``None``."""
        return self._object(*self._exchange("POST", path, body))

    def text(self, path: str) -> tuple[int, str]:
        """Status and text at a path, whatever the status is."""
        status, data = self._exchange("GET", path)
        return status, data.decode("utf-8", "replace")

    def stream(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """The JSON objects that come, a line each, until the bridge ends them."""
        connection, response = self._open("GET", _with_query(path, query), None, endless=True)
        with closing(connection), closing(response):
            if response.status != 200:
                self._object(response.status, self._read(response))
            try:
                while line := response.readline(LINE):
                    yield self._parsed(line)
            except (OSError, HTTPException):
                return

    def _exchange(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection, response = self._open(method, path, body)
        with closing(connection), closing(response):
            return response.status, self._read(response)

    def _open(
        self, method: str, path: str, body: object, *, endless: bool = False
    ) -> tuple[HTTPConnection, HTTPResponse]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        headers = {"Accept": "application/json", "Connection": "close"}
        data = None
        if method == "POST":
            data = b"" if body is None else json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if self._target.token:
            headers["Authorization"] = f"Bearer {self._target.token}"
        connection = connect(parts.hostname, parts.port, timeout=TIMEOUT)
        try:
            connection.request(method, parts.path + path, data, headers)
            sock = connection.sock  # which it lets go of with an answer that is the last one
            response = connection.getresponse()
            if endless and response.status == 200:
                # From here on it may be silent for as long as it likes; a dead peer is noticed all the same.
                sock.settimeout(None)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return connection, response
        except (OSError, HTTPException, ValueError) as error:
            connection.close()
            raise self._unreachable(error) from None

    def _read(self, response: HTTPResponse) -> bytes:
        try:
            data = response.read(SIZE + 1)
        except (OSError, HTTPException) as error:
            raise self._unreachable(error) from None
        if len(data) > SIZE:
            raise self._strange()
        return data

    def _object(self, status: int, data: bytes) -> dict[str, Any]:
        if 200 <= status < 300:
            return self._parsed(data)
        text = ""
        try:
            document = json.loads(data)
            text = str(document["error"])
        except (ValueError, RecursionError, TypeError, KeyError):
            if status in (404, 405):
                text = "has no such thing: it is of another version, or no stompbridge"
        raise self._refusal(status, text or f"HTTP status {status}")

    def _parsed(self, data: bytes) -> dict[str, Any]:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._strange()
        return document

    def _refusal(self, status: int, text: str) -> Failure:
        if status == 401:
            if self._target.token:
                return Failure(
                    f"{self.url} refuses the token: it is not the one in its admin.token_file or admin.token"
                )
            problem = self._target.token_problem or f"{self.url} wants the admin token"
            return Failure(
                f"{problem}; give --token-file FILE, --config FILE with admin.token_file in it, or set "
                "STOMPBRIDGE_ADMIN__TOKEN_FILE"
            )
        return Failure(f"{self.url}: {text}", UNUSABLE if status in (400, 403, 421) else FOUND)

    def _unreachable(self, error: Exception) -> Failure:
        if isinstance(error, HTTPException | ValueError) and not isinstance(error, OSError):
            return self._strange()
        if isinstance(error, TimeoutError):
            cause = f"no answer within {TIMEOUT:g} s"
        elif isinstance(error, socket.gaierror | ssl.SSLError):
            cause = str(error.strerror or error.reason if isinstance(error, ssl.SSLError) else error.strerror)
        else:
            cause = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
        return Failure(
            f"no bridge answers at {self.url}: {cause[:1].lower()}{cause[1:]}; is it running, with its admin listener "
            "there? Another place is given by --admin URL or --config FILE",
            UNREACHABLE,
        )

    def _strange(self) -> Failure:
        return Failure(f"what answers at {self.url} is no stompbridge; give --admin URL or --config FILE", UNREACHABLE)


def _with_query(path: str, query: dict[str, object]) -> str:
    given = {name: value for name, value in query.items() if value is not None and value != ""}
    return f"{path}?{urlencode(given)}" if given else path
