"""The receive path: raw bytes in, payloads of data frames out. No I/O.

Whole, unfragmented, masked data frames, which is nearly all that browsers send, are unmasked here. All other frames go
to websockets' :class:`~websockets.server.ServerProtocol`, one whole frame at a time, which answers or refuses them.
"""

from __future__ import annotations

import codecs

from websockets.frames import CloseCode, Frame, Opcode
from websockets.server import ServerProtocol
from websockets.speedups import apply_mask

from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.frames import is_utf8

_new_decoder = codecs.getincrementaldecoder("utf-8")
_OPCODES = frozenset(int(opcode) for opcode in Opcode)
_TEXT = 0x80 | Opcode.TEXT.value
_BINARY = 0x80 | Opcode.BINARY.value
_VIOLATIONS: dict[int | None, CloseReason] = {
    reason.code: reason for reason in (CloseReason.BAD_TEXT, CloseReason.TOO_BIG, CloseReason.INTERNAL_ERROR)
}


class Receiver:
    """Splits the byte stream of one client, after its handshake, into payloads.

    :meth:`feed` takes bytes, :meth:`next` gives one payload after the other: a whole message, or one fragment of one.
    Text is checked to be UTF-8 (RFC 6455 section 8.1), over fragments, too, and the number of fragments is bounded,
    neither of which ``protocol`` does. After a violation, or the client's Close frame, all input is dropped.
    """

    __slots__ = (
        "_at",
        "_data",
        "_decoder",
        "_fragments",
        "_max_size",
        "_need",
        "_protocol",
        "_size",
        "max_fragments",
        "touched",
    )

    def __init__(self, protocol: ServerProtocol, max_size: int, max_fragments: int) -> None:
        self._protocol = protocol
        self.max_size = max_size
        self.max_fragments = max_fragments
        self.touched = False
        """Whether ``protocol`` may have something to send. Reset by the caller."""
        self._data: bytes | bytearray = b""
        self._at = 0
        # Bytes that must be there before another look is worth it: a big frame may come in thousands of pieces.
        self._need = 2
        self._fragments = 0
        self._size = 0
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def max_size(self) -> int:
        """The longest message taken, in bytes; one byte more is answered by Close with code 1009."""
        return self._max_size

    @max_size.setter
    def max_size(self, size: int) -> None:
        self._max_size = self._protocol.max_message_size = size

    def feed(self, data: bytes) -> None:
        """Adds bytes from the socket."""
        if self._protocol.eof_sent:
            return
        rest = self._data
        if not rest:
            self._data = data
            return
        if self._at or isinstance(rest, bytes):
            rest = self._data = bytearray(memoryview(rest)[self._at :])
            self._at = 0
        rest += data

    def next(self) -> bytes | None:
        """The next payload, or ``None`` when it takes more input, or nothing more will come."""
        data = self._data
        at = self._at
        size = len(data)
        while size - at >= self._need:
            head = data[at]
            second = data[at + 1]
            whole = _TEXT <= head <= _BINARY and not self._fragments
            if second < 0x80 or not (whole or head & 0x0F in _OPCODES):
                self._hand_over(data[at:])
                break
            length = second & 0x7F
            start = at + 6
            if length > 125:
                start += 2 if length == 126 else 8
                if size < start - 4:
                    self._need = start - 4 - at
                    break
                length = int.from_bytes(data[at + 2 : start - 4])
            if length > self._max_size - self._size:
                self._hand_over(data[at:])
                break
            end = start + length
            if size < end:
                self._need = end - at
                break
            self._need = 2
            if whole:
                self._at = end
                payload = apply_mask(data[start:end], data[start - 4 : start])
                if head == _TEXT and not payload.isascii() and not is_utf8(payload):
                    self._fail(CloseCode.INVALID_DATA, "text message is not UTF-8")
                    break
                return payload
            fragment = self._hand_over(data[at:end])
            if self._protocol.eof_sent:
                break
            at = self._at = end
            if fragment is not None:
                return fragment
        if at == size or self._protocol.eof_sent:
            self._data = b""
        elif at:
            self._data = data[at:]
        self._at = 0
        return None

    def clear(self) -> None:
        """Drops what waits for the rest of its frame; nothing more will come."""
        self._data = b""
        self._at = 0

    def violation(self) -> CloseReason:
        """Why ``protocol`` came to its end by what the client sent."""
        protocol = self._protocol
        if protocol.close_rcvd is not None and protocol.parser_exc is None:
            return CloseReason.CLIENT_CLOSED
        code = None if protocol.close_sent is None else protocol.close_sent.code
        return _VIOLATIONS.get(code, CloseReason.PROTOCOL_ERROR)

    def _hand_over(self, data: bytes | bytearray) -> bytes | None:
        """Gives ``protocol`` one frame, or a refused one with all that follows; the payload of a fragment."""
        self.touched = True
        self._protocol.receive_data(data)
        error = self._protocol.parser_exc
        if error is not None:
            # Its traceback would keep what was inflated until the socket is gone.
            error.__traceback__ = error.__cause__ = error.__context__ = None
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                return self._fragment(event)
        return None

    def _fragment(self, frame: Frame) -> bytes | None:
        payload = bytes(frame.data)
        if frame.opcode is Opcode.TEXT:
            self._decoder = _new_decoder()
        self._fragments += 1
        self._size += len(payload)
        if self._fragments > self.max_fragments:
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"message of more than {self.max_fragments} fragments")
            return None
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, frame.fin)
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA, "text message is not UTF-8")
                return None
        if frame.fin:
            self._fragments = self._size = 0
            self._decoder = None
        return payload

    def _fail(self, code: CloseCode, text: str) -> None:
        self.touched = True
        self._protocol.fail(code, text)
