"""The page over one bridge."""

from __future__ import annotations

import pytest

from tests.chat.conftest import ChatBridge, OpenPage, Serve

pytestmark = [pytest.mark.node, pytest.mark.browser]
EMBEDDED = {"BROKER__KIND": "memory"}
IN_TWIN = "new Promise((done) => { const look = () => %s ? done() : setTimeout(look, 20); look(); })"
"""Waits for what is true in the page's other window."""


async def test_two_people_talk(serve: Serve, chat_bridge: ChatBridge, open_page: OpenPage) -> None:
    server = serve()
    bridge = chat_bridge([server], **EMBEDDED)
    ada = await open_page(server, "Ada")
    bob = await open_page(server, "Bob", width=390, height=800)
    await ada.say("Hello, Bob <script>alert(1)</script>")
    await bob.wait_settled(1)
    await bob.say("Hello, Ada")
    for page in (ada, bob):
        await page.wait_settled(2)
    assert await ada.lines() == [
        {"text": "Hello, Bob <script>alert(1)</script>", "name": "You", "own": True, "state": "sent"},
        {"text": "Hello, Ada", "name": "Bob", "own": False, "state": "sent"},
    ]
    assert [(line["name"], line["own"]) for line in await bob.lines()] == [("Ada", False), ("You", True)]

    # Another room: its messages are counted where they are not shown.
    for page in (ada, bob):
        await page.join(8)
        assert await page.lines() == []
    await ada.click("[data-room='7']")
    await bob.say("Over here")
    await ada.wait_text("[data-room='8'] .count", "1")
    assert len(await ada.lines()) == 2
    await ada.click("[data-room='8']")
    assert await ada.texts() == ["Over here"]
    await ada.click("#leave")
    await ada.wait_text("#title", "Room 7")

    # A reload is the same person in the same rooms, and what came meanwhile is there.
    await bob.goto("about:blank")
    await ada.say("Are you there?")
    await ada.wait_settled(3)
    await bob.goto(server.origins[0] + "/")
    await bob.wait_text("#me", "Bob")
    await bob.wait_text("#title", "Room 8")
    await bob.click("[data-room='7']")
    await bob.wait_settled(3)
    assert await bob.texts() == await ada.texts()
    await bob.say("Yes")
    await ada.wait_settled(4)
    assert [line["name"] for line in await ada.lines()] == ["You", "Bob", "You", "Bob"]
    bridge.assert_clean_log()


async def test_a_click_while_messages_come(serve: Serve, chat_bridge: ChatBridge, open_page: OpenPage) -> None:
    """What is drawn anew between the press of the button and its release does not swallow the click."""
    server = serve()
    bridge = chat_bridge([server], **EMBEDDED)
    ada = await open_page(server, "Ada")
    bob = await open_page(server, "Bob")
    await bob.join(8)
    release = await bob.hold("[data-room='7']")
    await ada.say("Hello")
    await bob.wait_text("[data-room='7'] .count", "1")
    await release()
    await bob.wait_text("#title", "Room 7")
    assert await bob.texts() == ["Hello"]
    bridge.assert_clean_log()


async def test_what_is_written_without_a_connection(serve: Serve, chat_bridge: ChatBridge, open_page: OpenPage) -> None:
    """It is shown as such, outlives a reload, and goes out once there is a connection."""
    server = serve()
    bridge = chat_bridge([server], **EMBEDDED)
    page = await open_page(server, "Ada")
    bridge.kill()
    await page.wait_text("#state", "Reconnecting")
    for number in range(3):
        await page.say(f"later {number}")
    await page.wait_text("#notice", "3 not sent yet")
    assert {line["state"] for line in await page.lines()} == {"pending"}
    await page.goto(server.origins[0] + "/")
    await page.wait("document.querySelectorAll('#messages li').length === 3")
    assert {line["state"] for line in await page.lines()} == {"pending"}
    bridge.start()
    await page.wait_settled(3)
    await page.wait_text("#state", "Connected")
    assert await page.texts() == ["later 0", "later 1", "later 2"]
    assert await page.text("#notice") == ""


async def test_a_message_that_is_refused(serve: Serve, chat_bridge: ChatBridge, open_page: OpenPage) -> None:
    """It says so and is not sent by itself again; the others are not held up."""
    server = serve()
    rules = """
        [[acl]]
        deny = ["send"]
        destinations = ["/app/message/13"]
        users = ["*"]

        [[acl]]
        allow = ["subscribe", "send", "durable", "queue-arguments"]
        destinations = ["/**"]
        users = ["*"]
    """
    bridge = chat_bridge([server], rules, **EMBEDDED)
    page = await open_page(server, "Ada")
    await page.join(13)
    await page.say("not here")
    await page.wait_text("#messages", "Not sent: access_refused")
    assert [line["state"] for line in await page.lines()] == ["refused"]
    await page.click("[data-room='7']")
    await page.say("but here")
    await page.wait_settled(1)
    await page.click("[data-room='13']")
    await page.click(".again")
    await page.wait_text("#messages", "Not sent: access_refused")
    bridge.stop()
    refused = [record for record in bridge.events("session_closed") if record["reason"] == "stomp_error"]
    assert len(refused) == 2


async def test_a_duplicated_tab_is_another_client(serve: Serve, chat_bridge: ChatBridge, open_page: OpenPage) -> None:
    """The browser gives it a copy of the sessionStorage; both tabs stay connected."""
    server = serve()
    bridge = chat_bridge([server], **EMBEDDED)
    page = await open_page(server, "Ada")
    await page.run("void (window.twin = window.open(location.href))")
    await page.run(IN_TWIN % "twin.document.getElementById('state')?.dataset.state === 'connected'")
    assert await page.run("JSON.parse(sessionStorage.chat).id !== JSON.parse(twin.sessionStorage.chat).id")
    await page.say("Hello, me")
    await page.wait_settled(1)
    await page.run(IN_TWIN % "twin.document.querySelectorAll('#messages li').length === 1")
    assert len(bridge.events("session_opened")) == 2
    assert bridge.events("session_closed") == []
