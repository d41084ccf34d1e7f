"""The project's nginx and HAProxy configurations, in the real programs, in front of two bridges."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.deploy.proxies import ContainerNginx, HAProxy, HAProxyProtocol, Nginx, Proxy, find
from tests.support.bridge import Bridge
from tests.support.stomp import TIMEOUT, Client, open_client

CLIENT = "127.0.0.2"
"""Where the test's clients come from: an address that is not the proxy's."""
TRUSTING = '[listen]\ntrusted_proxies = ["127.0.0.1"]\n'
KINDS = [
    pytest.param(Nginx, "wss", TRUSTING, id="nginx"),
    pytest.param(ContainerNginx, "ws", TRUSTING, id="nginx-of-compose"),
    pytest.param(HAProxy, "wss", TRUSTING, id="haproxy"),
    pytest.param(HAProxyProtocol, "wss", TRUSTING + "proxy_protocol = true\n", id="haproxy-proxy-protocol"),
]


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """A running proxy of the kind that the test asks for, and two bridges behind it."""
    kind, scheme, config = request.param
    find(kind.program)
    bridges = [Bridge(config, node=f"behind-{n}") for n in (1, 2)]
    proxy: Proxy | None = None
    try:
        for bridge in bridges:
            bridge.spawn()
        for bridge in bridges:
            bridge.wait_log("listening", 30)
        proxy = kind(bridges, scheme)
        proxy.start()
        yield proxy
        for bridge in bridges:
            bridge.assert_clean_log()
    finally:
        if proxy is not None:
            proxy.remove()
        for bridge in bridges:
            bridge.remove()


def kinds(*names: str) -> pytest.MarkDecorator:
    chosen = [kind for kind in KINDS if not names or kind.id in names]
    return pytest.mark.parametrize(
        "proxy", [pytest.param(tuple(kind.values), id=kind.id) for kind in chosen], indirect=True
    )


async def through(proxy: Proxy, **options: object) -> Client:
    client = await open_client(proxy.url, ssl=proxy.ssl, local_addr=(CLIENT, 0), **options)
    await client.connect()
    return client


async def behind(proxy: Proxy, client: Client) -> tuple[Bridge, str]:
    """The bridge that a client's session is on, and the address that it knows the client by."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            for bridge in proxy.bridges:
                for opened in bridge.events("session_opened"):
                    if opened["session"] == client.session:
                        return bridge, opened["remote"].partition(":")[0]
            await asyncio.sleep(0.02)


@kinds()
async def test_a_session_through_the_proxy(proxy: Proxy) -> None:
    client = await through(proxy, origin=proxy.url.removesuffix("/ws").replace("ws", "http", 1))
    first, address = await behind(proxy, client)
    assert address == CLIENT
    await client.request("SUBSCRIBE", {"id": "0", "destination": "/topic/a"})
    await client.request("SEND", {"destination": "/topic/a"}, "x" * 100_000)
    assert len((await client.expect("MESSAGE")).body) == 100_000
    # Its bridge is gone: the connection ends, and the next one lands on the other.
    first.kill()
    await client.wait_closed()
    again = await through(proxy)
    second, address = await behind(proxy, again)
    assert second is not first
    assert address == CLIENT
    await again.disconnect()


@kinds()
async def test_the_address_cannot_be_made_up(proxy: Proxy) -> None:
    client = await through(proxy, additional_headers={"X-Forwarded-For": "192.0.2.1"})
    assert (await behind(proxy, client))[1] == CLIENT
    await client.disconnect()


@kinds("nginx", "haproxy")
async def test_nothing_but_the_websocket_is_to_be_had(proxy: Proxy) -> None:
    for path in ("/", "/metrics", "/ws/other"):
        with pytest.raises(InvalidStatus) as refused:
            await open_client(proxy.url.removesuffix("/ws") + path, ssl=proxy.ssl)
        assert refused.value.response.status_code == 404


@kinds("haproxy", "haproxy-proxy-protocol")
async def test_health_checks(proxy: HAProxy) -> None:
    proxy.wait_checked({"bridge-1": "L7OK", "bridge-2": "L7OK"})
    first, second = proxy.bridges
    assert first.stop() == 0
    proxy.wait_checked({"bridge-1": "L4CON", "bridge-2": "L7OK"})
    client = await through(proxy)
    assert (await behind(proxy, client))[0] is second
    await client.disconnect()


def test_nothing_listens_on_all_addresses_by_mistake() -> None:
    """The admin port is not what proxies pass on."""
    for path in ("nginx.conf", "haproxy.cfg", "container/nginx.conf"):
        text = (Path(__file__).parents[2] / "config" / path).read_text("utf-8")
        passed = [line for line in text.splitlines() if "8081" in line and not line.lstrip().startswith("#")]
        assert all(" check port " in line for line in passed)
