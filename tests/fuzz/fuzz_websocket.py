"""Fuzzes what a socket brings before STOMP with Atheris: python tests/fuzz/fuzz_websocket.py -max_total_time=60 corpus/

That is the PROXY header, the request and the WebSocket frames. The first byte chooses the settings and what is fuzzed;
it is fed whole, in pieces and byte by byte, which must make no difference, and must be taken as websockets itself
takes it.
"""

from __future__ import annotations

import re
import zlib

import atheris
from fuzzing import cut, run

with atheris.instrument_imports(include=["stompbridge.gateway", "websockets"]):
    from websockets.frames import Frame, Opcode
    from websockets.http11 import Request
    from websockets.protocol import SEND_EOF

    from stompbridge.config import Listen, Settings
    from stompbridge.gateway.handshake import StompServerProtocol
    from stompbridge.gateway.opening import Door, Opening
    from stompbridge.gateway.receiver import Receiver

MAX_SIZE = 1000
MAX_FRAGMENTS = 3
PEER = ("127.0.0.1", 50000)
REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
PLAIN = REQUEST + b"\r\n"
DEFLATE = REQUEST + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
# By the lowest two bits: everything is fuzzed, the same after a PROXY header, or only frames.
ANY, PROXIED, FRAMES, DEFLATED = range(4)
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Socket:
    """What a connection does with its input, without a socket."""

    def __init__(self, kind: int, door: Door) -> None:
        self.protocol = StompServerProtocol(MAX_SIZE, kind == DEFLATED)
        self.receiver = Receiver(self.protocol, MAX_SIZE, MAX_FRAGMENTS)
        self.opening: Opening | None = Opening(door, self.protocol, PEER)
        self.over = False
        self.sent = b""
        self.payloads: list[bytes] = []
        self._flush()

    def feed(self, data: bytes) -> None:
        if self.over:
            return
        opening, receiver = self.opening, self.receiver
        if opening is not None:
            rest = opening.receive(data)
            self._flush()
            if rest is None or self.over:
                return
            self.opening = None
            data = rest
        receiver.feed(data)
        while (payload := receiver.next()) is not None:
            assert not self.over
            assert len(payload) <= MAX_SIZE
            self.payloads.append(payload)
        # One frame may be under way.
        assert len(receiver._data) <= MAX_SIZE + 14
        if receiver.touched:
            receiver.touched = False
            self._flush()

    def _flush(self) -> None:
        out = self.protocol.data_to_send() if self.opening is None else self.opening.output()
        self.sent += b"".join(out)
        self.over = self.over or SEND_EOF in out

    @property
    def story(self) -> tuple[object, ...]:
        sent = re.sub(rb"\r\nDate: [^\r]*", b"", self.sent)
        about = self.opening and (self.opening.remote, self.opening.reason, self.opening.refusal)
        return self.over, sent, self.payloads, about


def pack(data: bytes) -> bytes:
    """Well-made frames: of each, its first byte, how it is made, its mask and its payload."""
    out = b""
    while len(data) >= 3:
        head, shape, mask = data[:3]
        size = shape & 0x3F
        payload = data[3 : 3 + size]
        data = data[3 + size :]
        if head & 0x40:
            deflate = zlib.compressobj(wbits=-12)
            payload = deflate.compress(payload * 40) + deflate.flush(zlib.Z_SYNC_FLUSH)
            payload = payload.removesuffix(b"\0\0\xff\xff")
        masked = bytes(octet ^ mask for octet in payload)
        length = len(payload)
        if shape >> 6 == 1 or length > 125:
            out += bytes((head, 0xFE, length >> 8, length & 0xFF)) + bytes((mask,)) * 4 + masked
        elif shape >> 6 == 2:
            out += bytes((head, 0xFF)) + length.to_bytes(8, "big") + bytes((mask,)) * 4 + masked
        elif shape >> 6 == 3 and not mask:
            out += bytes((head, length)) + payload
        else:
            out += bytes((head, 0x80 | length)) + bytes((mask,)) * 4 + masked
    return out


def compare(kind: int, frames: bytes, ours: Socket) -> None:
    """With websockets' own reading of the same frames."""
    protocol = StompServerProtocol(MAX_SIZE, kind == DEFLATED)
    protocol.receive_data(DEFLATE if kind == DEFLATED else PLAIN)
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    protocol.receive_data(frames)
    theirs = [event for event in protocol.events_received() if isinstance(event, Frame) and event.opcode in _DATA]
    read = theirs[: len(ours.payloads)]
    assert ours.payloads == [bytes(frame.data) for frame in read]
    assert ours.over or not protocol.eof_sent
    message, text, count = b"", False, 0
    for frame in read:
        if frame.opcode is not Opcode.CONT:
            message, text, count = b"", frame.opcode is Opcode.TEXT, 0
        message += frame.data
        count += 1
        assert len(message) <= MAX_SIZE
        assert count <= MAX_FRAGMENTS or frame.opcode is not Opcode.CONT
        if frame.fin and text:
            message.decode()
    if len(read) < len(theirs):
        # What it takes and we do not.
        assert ours.over
        assert ours.protocol.close_sent is not None
        assert ours.protocol.close_sent.code in (1007, 1009)
    elif ours.over and not protocol.eof_sent:
        raise AssertionError(ours.protocol.close_sent)


def test_one_input(data: bytes) -> None:
    mode = data[0] if data else 0
    kind = mode & 3
    frames = pack(data[1:]) if mode & 4 else data[1:]
    stream = frames
    if kind >= FRAMES:
        stream = (DEFLATE if kind == DEFLATED else PLAIN) + frames
    elif mode & 4:
        stream = PLAIN + frames
    trusted = ("127.0.0.0/8",) if kind == PROXIED or mode & 8 else ()
    door = Door(Settings(listen=Listen(proxy_protocol=kind == PROXIED, trusted_proxies=trusted)))
    stories = []
    for size in (0, 1, 2 + (mode >> 4)):
        socket = Socket(kind, door)
        for piece in cut(stream, size):
            socket.feed(piece)
        stories.append(socket.story)
        if not size and kind >= FRAMES:
            compare(kind, frames, socket)
    assert stories[0] == stories[1] == stories[2], stories


SEEDS = [
    b"\x00" + PLAIN + b"\x81\x82\0\0\0\0hi",
    b"\x08"
    + PLAIN[:-2]
    + b"Origin: http://localhost\r\nX-Forwarded-For: 192.0.2.1, [2001:db8::1]:80\r\nCookie: a=b\r\n\r\n",
    b"\x00" + PLAIN[:-2] + b"Sec-WebSocket-Protocol: v12.stomp, v11.stomp\r\nOrigin: http://evil.example\r\n\r\n",
    b"\x00GET /else HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x00HEAD /ws?x HTTP/1.1\r\n\r\n",
    b"\x01PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n" + PLAIN,
    b"\x01PROXY UNKNOWN\r\n" + PLAIN,
    b"\x01\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\0\0\x01\x7f\0\0\x02\0\x50\x01\xbb" + PLAIN,
    b"\x02\x81\x85\x01\x02\x03\x04ignmn\x89\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
    b"\x02\x01\x81\0\0\0\0\xc3\x80\x81\0\0\0\0\xa9\x82\xfe\0\x02\0\0\0\0ab",
    b"\x02\x82\xff\x80\0\0\0\0\0\0\0",
    b"\x06\x81\x05\x2ahello\x89\x02\x00hi\x01\x01\x11a\x00\x01\x12b\x80\x01\x13c\x88\x00\x01",
    b"\x06\x82\x44\x01abcd\x82\x84\x01abcd\x81\xc4\x00abcd",
    b"\x07\xc1\x05\x2ahello\xc2\x3f\x01" + b"x" * 63 + b"\x41\x03\x01abc\x80\x01\x01d",
]

if __name__ == "__main__":
    run(test_one_input, SEEDS, "websocket.dict")
