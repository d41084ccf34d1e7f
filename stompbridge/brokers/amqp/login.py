"""A client's own login at RabbitMQ."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit


@dataclass(frozen=True, slots=True)
class Login:
    """Neither half of the credentials may be empty: the AMQP library would put ``guest`` in its place."""

    user: str
    passcode: str = field(repr=False)
    virtual_host: str

    def address(self, url: str) -> str:
        """The broker's address with these credentials in place of those that it has. The virtual host is not in it:
        the library reads names such as ``..`` and ``%2F`` as ``/``."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        netloc = f"{quote(self.user, safe='')}:{quote(self.passcode, safe='')}@{host}"
        # EXTERNAL would be the bridge's certificate, whatever the passcode.
        query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "auth"]
        return urlunsplit(parts._replace(netloc=netloc, path="/", query=urlencode(query)))
