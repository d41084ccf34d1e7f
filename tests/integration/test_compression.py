"""permessage-deflate between the program and real clients, side by side with clients that do not want it."""

from __future__ import annotations

from websockets.extensions.permessage_deflate import PerMessageDeflate

from tests.support import configs
from tests.support.kinds import Connect, StartBridge


async def test_those_who_want_it_and_those_who_do_not(start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge(configs.memory("[listen]\ncompression = true"))
    compressing = [await connect(bridge, compression="deflate") for _ in range(3)]
    plain = await connect(bridge, compression=None)
    for client in compressing:
        [extension] = client.ws.protocol.extensions
        assert isinstance(extension, PerMessageDeflate)
        assert extension.remote_no_context_takeover
        await client.subscribe("/topic/big", id="same")
    await plain.subscribe("/topic/big", id="other", ack="client-individual")
    for body in ("hello " * 500, "grüße " * 500, b"\xff\x00" * 500, "short", ""):
        for sender in (plain, compressing[0]):
            await sender.send_and_wait("/topic/big", body, content_type="text/plain")
            raw = body.encode() if isinstance(body, str) else body
            frames = [await client.expect("MESSAGE", subscription="same") for client in compressing]
            frames.append(await plain.expect("MESSAGE", subscription="other"))
            assert [frame.body for frame in frames] == [raw] * 4
            assert [frame.binary for frame in frames] == [isinstance(body, bytes)] * 4
            assert len({frame.headers["message-id"] for frame in frames[:3]}) == 1
            await plain.acknowledge(frames[3])


async def test_a_message_of_a_queue(start_bridge: StartBridge, connect: Connect) -> None:
    bridge = start_bridge(configs.memory("[listen]\ncompression = true"))
    client = await connect(bridge, compression="deflate")
    await client.subscribe("/queue/big", ack="client")
    await client.send_and_wait("/queue/big", "hello " * 500)
    assert (await client.expect("MESSAGE")).text == "hello " * 500
