"""CONNECT: versions, credentials, virtual hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import InvalidStatus

from tests.support.observing import closing, summaries, summary
from tests.support.parity import BETTER, UNRUN, Peer, Target, equal, error, row, rows_test
from tests.support.stomp import encode

ILLEGAL = error("Illegal command", "You must log in using CONNECT first")


async def _connected(peer: Peer, headers: Mapping[str, str], command: str = "CONNECT") -> Any:
    """What comes of a CONNECT: the version, or the ERROR."""
    await peer.send_raw(encode(command, headers, escaped=False))
    shown = await peer.show()
    return shown[1]["version"] if not isinstance(shown, str) and shown[0] == "CONNECTED" else shown


MISMATCH = error("Version mismatch", "Supported versions are 1.0,1.1,1.2\n")
VERSIONS: list[tuple[dict[str, str], Any]] = [
    ({}, "1.0"),
    ({"accept-version": "1.0"}, "1.0"),
    ({"accept-version": "1.1"}, "1.1"),
    ({"accept-version": "1.2"}, "1.2"),
    ({"accept-version": "1.0,1.1,1.2"}, "1.2"),
    ({"accept-version": "1.2,1.1,1.0"}, "1.2"),
    ({"accept-version": "1.1,1.0"}, "1.1"),
    ({"accept-version": "1.1,2.0"}, "1.1"),
    ({"accept-version": "1.2, 1.1"}, "1.2"),
    ({"accept-version": "1.0, 1.1"}, "1.0"),
    ({"accept-version": " 1.1"}, MISMATCH),
    ({"accept-version": " 1.1,1.0"}, "1.0"),
    ({"accept-version": "1.3"}, MISMATCH),
    ({"accept-version": ""}, MISMATCH),
    ({"accept-version": "2.0,3.0"}, MISMATCH),
]


@row(10, "the highest common version", equal([version for _, version in VERSIONS]))
async def versions(target: Target) -> Any:
    return [await _connected(await target.open(), headers) for headers, _ in VERSIONS]


@row(10, "STOMP is another word for CONNECT", equal(["1.2", MISMATCH]))
async def stomp(target: Target) -> Any:
    return [
        await _connected(await target.open(), {"accept-version": version}, "STOMP") for version in ("1.2,1.1", "3.0")
    ]


@row(10, "after a version mismatch another CONNECT may follow", equal([MISMATCH, "1.1"]))
async def second_attempt(target: Target) -> Any:
    peer = await target.open()
    return [await _connected(peer, {"accept-version": version}) for version in ("3.0", "1.1")]


@row(10, "the headers of CONNECTED, in their order", equal([["server", "session", "heart-beat", "version"]] * 3))
async def headers_of_connected(target: Target) -> Any:
    seen = []
    for version in ("1.0", "1.1", "1.2"):
        peer = await target.connect(version=version)
        assert peer.connected is not None
        seen.append([name for name, _ in peer.connected.pairs])
    return seen


@row(10, "the form of session ids and of the server's name", equal([True, True, True]))
async def session_ids(target: Target) -> Any:
    first, second = [await target.connect(), await target.connect()]
    assert first.connected is not None
    return [
        bool(re.fullmatch(r"session-[\w-]{22}", first.session)),
        first.session != second.session,
        bool(re.fullmatch(r"\w+/[0-9][\w.]*", first.connected.headers["server"])),
    ]


SUBPROTOCOLS = [["v10.stomp"], ["v11.stomp", "v10.stomp"], ["v12.stomp"], []]


@row(10, "the WebSocket's sub-protocol has no say", equal([["1.0", "1.1", "1.2"]] * len(SUBPROTOCOLS)), over="web")
async def subprotocols(target: Target) -> Any:
    return [
        [await _connected(await target.open(offered), {"accept-version": version}) for version in ("1.0", "1.1", "1.2")]
        for offered in SUBPROTOCOLS
    ]


FIRST = [
    encode("SEND", {"destination": "/queue/a"}, "x"),
    encode("SUBSCRIBE", {"destination": "/queue/a", "id": "s"}),
    encode("BEGIN", {"transaction": "t"}),
    encode("DISCONNECT"),
    encode("NONSENSE"),
]


@row(10, "any other frame first", equal([*[ILLEGAL] * len(FIRST), "1.2"]))
async def other_first(target: Target) -> Any:
    peer = await target.open()
    await peer.send_raw(b"".join(FIRST))
    return [*await peer.shows(len(FIRST)), await _connected(peer, {"accept-version": "1.2"})]


@row(10, "any other frame first, over WebSocket", equal([*[ILLEGAL] * len(FIRST), "1.2"]), over="web")
async def other_first_web(target: Target) -> Any:
    peer = await target.open()
    await peer.send_raw(b"".join(FIRST))
    return [*await peer.shows(len(FIRST)), await _connected(peer, {"accept-version": "1.2"})]


SECOND = (["ERROR Illegal command", "closed"], 1002, "Illegal command")
WHY = "an ERROR instead of a crash"


@row(10, "a second CONNECT", BETTER(WHY, theirs=["closed"], ours=SECOND[0]))
async def connected_twice(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_raw(encode("CONNECT", {"accept-version": "1.2"}, escaped=False))
    return summaries(await peer.ending())


@row(10, "a second CONNECT, over WebSocket", BETTER(WHY, theirs=(["closed"], 1011, ""), ours=SECOND), over="web")
async def connected_twice_web(target: Target) -> Any:
    peer = await target.connect()
    await peer.send_raw(encode("CONNECT", {"accept-version": "1.2"}, escaped=False))
    return await closing(peer)


@row(
    10,
    "no CONNECT at all",
    BETTER("an ERROR says why", theirs=["closed"], ours=["ERROR Connect timeout", "closed"]),
    bridge="small",
)
async def login_timeout(target: Target) -> Any:
    """RabbitMQ waits for ten seconds."""
    peer = await target.open()
    return summaries(await peer.ending(within=20))


@row(
    10,
    "no CONNECT at all, over WebSocket",
    BETTER("there is a limit; Web STOMP waits for ever", theirs="open", ours="ERROR Connect timeout"),
    over="web",
    bridge="small",
)
async def login_timeout_web(target: Target) -> Any:
    peer = await target.open()
    try:
        return summary(await peer.show(within=2.5))
    except TimeoutError:
        return "open"


# Credentials and virtual hosts: the bridge uses the client's own login.


async def _user(target: Target, *vhosts: str, password: str = "secret", permissions: str = ".*") -> str:
    """A user who may use these virtual hosts."""
    user = target.name("user")
    await target.api(f"users/{user}", "PUT", {"password": password, "tags": ""})
    for vhost in vhosts:
        allowed = dict.fromkeys(("configure", "write", "read"), permissions)
        await target.api(f"permissions/{vhost}/{user}", "PUT", allowed)
    return user


async def _vhost(target: Target, name: str = "vhost") -> str:
    vhost = target.name(name)
    await target.api(f"vhosts/{vhost}", "PUT")
    return vhost


async def _publishes_as(peer: Peer, target: Target, user: str) -> str:
    """RabbitMQ takes a ``user-id`` only from that user."""
    destination = f"/topic/{target.name('whoami')}"
    await peer.send_frame("SEND", {"destination": destination, "user-id": user, "receipt": "r"}, "x")
    return summary(await peer.show())


@row(10, "a bare CONNECT logs in as the default user", equal(["1.2", "RECEIPT r"]), bridge="login")
async def default_user(target: Target) -> Any:
    peer = await target.open()
    return [await _connected(peer, {"accept-version": "1.2"}), await _publishes_as(peer, target, "guest")]


@row(
    10,
    "half of the credentials",
    equal(["1.0", "1.0", error("Bad CONNECT", "Access refused for user 'nobody'\n")]),
    bridge="login",
)
async def half(target: Target) -> Any:
    given: list[dict[str, str]] = [{"login": "guest"}, {"passcode": "guest"}, {"login": "nobody"}]
    return [await _connected(await target.open(), headers) for headers in given]


@row(10, "the client's own credentials", equal(["1.2", "RECEIPT r"]), bridge="login")
async def own_user(target: Target) -> Any:
    user = await _user(target, "%2F")
    peer = await target.open()
    headers = {"accept-version": "1.2", "login": user, "passcode": "secret"}
    return [await _connected(peer, headers), await _publishes_as(peer, target, user)]


REFUSED = error("Bad CONNECT", "Access refused for user '~user'\n")


@row(10, "a wrong passcode, an unknown user, and another try", equal([REFUSED, REFUSED, "1.2"]), bridge="login")
async def refused(target: Target) -> Any:
    peer = await target.open()
    headers = {"accept-version": "1.2", "login": target.name("user"), "passcode": "secret"}
    seen = [await _connected(peer, headers)]
    await _user(target, "%2F")
    seen.append(await _connected(peer, headers | {"passcode": "wrong"}))
    return [*seen, await _connected(peer, headers)]


@row(10, "frames between a refused CONNECT and the next", equal([REFUSED, ILLEGAL, "1.2"]), bridge="login")
async def between(target: Target) -> Any:
    peer = await target.open()
    headers = {"accept-version": "1.2", "login": await _user(target, "%2F"), "passcode": "secret"}
    seen = [await _connected(peer, headers | {"passcode": "wrong"})]
    await peer.send(f"/queue/{target.name('q')}", "x")
    return [*seen, await peer.show(), await _connected(peer, headers)]


@row(10, "an empty passcode", equal([REFUSED]), bridge="login")
async def empty_passcode(target: Target) -> Any:
    headers = {"login": await _user(target, "%2F"), "passcode": ""}
    return [await _connected(await target.open(), headers)]


@row(
    10,
    "no credentials where there is no default user",
    UNRUN(
        "the default user is a setting of the whole node",
        ours=[error("Bad CONNECT", "Missing login or passcode header(s)")] * 2,
    ),
    bridge="strict",
)
async def no_credentials(target: Target) -> Any:
    return [await _connected(await target.open(), headers) for headers in ({}, {"login": "guest"})]


@row(
    10,
    "guest from afar",
    UNRUN(
        "this RabbitMQ listens on loopback only",
        ours=[error("Bad CONNECT", "non-loopback access denied"), "1.0"],
    ),
    bridge="proxied",
)
async def from_afar(target: Target) -> Any:
    seen = []
    for address in ("192.0.2.1", "127.0.0.1"):
        peer = await target.open(additional_headers={"X-Forwarded-For": address})
        seen.append(await _connected(peer, {"login": "guest", "passcode": "guest"}))
    return seen


@row(10, "host is the virtual host", equal(["1.2", True, False]), bridge="login")
async def virtual_host(target: Target) -> Any:
    vhost = await _vhost(target)
    user = await _user(target, vhost)
    queue = target.name("q")
    peer = await target.open()
    headers = {"accept-version": "1.2", "login": user, "passcode": "secret", "host": vhost}
    version = await _connected(peer, headers)
    await peer.subscribe(f"/queue/{queue}", id="s")
    there = [await target.api(f"queues/{name}/{queue}?disable_stats=true") for name in (vhost, "%2F")]
    return [version, *[queue is not None for queue in there]]


@row(10, "virtual hosts are apart", equal(["MESSAGE mine", []]), bridge="login")
async def apart(target: Target) -> Any:
    user = await _user(target, "%2F", await _vhost(target))
    peers = []
    for host in ("/", target.name("vhost")):
        peer = await target.connect({"accept-version": "1.2", "login": user, "passcode": "secret", "host": host})
        await peer.subscribe(f"/topic/{target.name('t')}", id="s")
        peers.append(peer)
    await peers[0].send(f"/topic/{target.name('t')}", "mine")
    return [summary(await peers[0].show()), await peers[1].seen()]


@row(10, "no host is the default virtual host", equal(["1.0", True]), bridge="login")
async def no_host(target: Target) -> Any:
    queue = target.name("q")
    peer = await target.open()
    version = await _connected(peer, {})
    await peer.subscribe(f"/queue/{queue}", id="s")
    return [version, await target.queue(queue) is not None]


def _denied(vhost: str) -> Any:
    return error("Bad CONNECT", f"Virtual host '{vhost}' access denied")


HOSTS = ["localhost", "", "nowhere/at all"]


@row(10, "a virtual host that does not exist", equal([_denied(host) for host in HOSTS]), bridge="login")
async def no_such_host(target: Target) -> Any:
    return [await _connected(await target.open(), {"host": host}) for host in HOSTS]


@row(10, "a virtual host that the user may not use", equal([_denied("~vhost"), "1.0"]), bridge="login")
async def forbidden_host(target: Target) -> Any:
    vhost = await _vhost(target)
    headers = {"login": await _user(target, "%2F"), "passcode": "secret"}
    peer = await target.open()
    return [await _connected(peer, headers | {"host": vhost}), await _connected(peer, headers)]


@row(10, "a virtual host with as many connections as it may have", equal([_denied("~vhost")]), bridge="login")
async def full_host(target: Target) -> Any:
    vhost = await _vhost(target)
    user = await _user(target, vhost)
    await target.api(f"vhost-limits/{vhost}/max-connections", "PUT", {"value": 0})
    return [await _connected(await target.open(), {"login": user, "passcode": "secret", "host": vhost})]


@row(10, "a user with as many connections as it may have", equal([_denied("/")]), bridge="login")
async def full_user(target: Target) -> Any:
    user = await _user(target, "%2F")
    await target.api(f"user-limits/{user}/max-connections", "PUT", {"value": 0})
    return [await _connected(await target.open(), {"login": user, "passcode": "secret"})]


@row(
    10,
    "connections that RabbitMQ sees",
    BETTER("the sessions of a login share a pair", theirs=5, ours=2),
    bridge="login",
)
async def connections(target: Target) -> Any:
    user = await _user(target, "%2F")
    for _ in range(5):
        await target.connect({"login": user, "passcode": "secret"})
    expected = 2 if target.ours else 5  # RabbitMQ's own table lags behind

    async def counted() -> int:
        found = [one for one in await target.api("connections") if one.get("user") == user]
        return len(found) if len(found) >= expected else 0

    return await target.until(counted, within=25)


@row(
    10,
    "as many connections as the node may have",
    UNRUN("a limit of RabbitMQ 4.4", ours=["open", 503]),
    bridge="single",
)
async def too_many(target: Target) -> Any:
    await target.open()
    try:
        await target.open()
    except InvalidStatus as refused:
        return ["open", refused.response.status_code]
    return ["open", "open"]


@row(
    10,
    "as many sessions as a user may have",
    UNRUN("a limit of RabbitMQ 4.4", ours=["CONNECTED", "ERROR Bad CONNECT", "CONNECTED"]),
    bridge="strict",
)
async def too_many_sessions(target: Target) -> Any:
    headers = {"login": await _user(target, "%2F"), "passcode": "secret"}
    first, second = await target.open(), await target.open()
    seen = []
    for peer in (first, second):
        await peer.send_raw(encode("CONNECT", headers, escaped=False))
        seen.append((await peer.receive()).command + (" Bad CONNECT" if peer is second else ""))
    await first.disconnect()

    async def again() -> str:
        await second.send_raw(encode("CONNECT", headers, escaped=False))
        frame = await second.receive()
        return frame.command if frame.command == "CONNECTED" else ""

    return [*seen, await target.until(again)]


test_row = rows_test(__name__)
