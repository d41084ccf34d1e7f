"""HTTP requests of which nothing can go on for ever: neither their time, nor their size, nor from place to place."""

from __future__ import annotations

import asyncio
import ssl

import httpx


class FetchError(Exception):
    """There is no answer that could be used. The text is for the log, and holds nothing of request or answer."""


def make_client(url: str, at_a_time: int) -> httpx.AsyncClient:
    """A client for ``url`` that trusts the machine's certificate authorities, follows no redirects, and takes no proxy
    and no password from the environment."""
    # Without TLS, the authorities need not be loaded: nobody is trusted.
    tls = ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(
        verify=tls,
        follow_redirects=False,
        trust_env=False,
        timeout=None,
        # Servers tend to close idle connections after 5 s or more; a request must not meet that.
        limits=httpx.Limits(max_connections=at_a_time, keepalive_expiry=2.0),
        # Packed, a small answer could become a large one.
        headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "stompbridge"},
    )


async def fetch(
    client: httpx.AsyncClient, method: str, url: str, *, within: float, size: int, body: bytes | None = None
) -> tuple[int, bytes]:
    """The status and the body, which has at most ``size`` bytes, within ``within`` seconds in all. Raises
    :class:`FetchError`."""
    headers = {"content-type": "application/json"} if body is not None else None
    try:
        async with asyncio.timeout(within), client.stream(method, url, content=body, headers=headers) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchError("the answer is packed")
            data = bytearray()
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > size:
                    raise FetchError(f"the answer has more than {size} bytes")
            return response.status_code, bytes(data)
    except TimeoutError:
        raise FetchError(f"no answer within {within:g} s") from None
    except httpx.ConnectError as error:
        raise FetchError(f"no connection: {error}") from None
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        # Their texts may quote what was sent.
        raise FetchError(f"no usable answer: {type(error).__name__}") from None
