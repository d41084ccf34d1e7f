"""Every command that README and docs show is run, or stands in a list of those that are checked in another way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.commands import Command, commands, documents
from tests.docs.imports import ROOT
from tests.docs.workspace import Workspace, with_ports

ELSEWHERE = {
    r"systemctl ": "takes systemd as process 1; tests/lifecycle speaks its protocol and has the units verified",
    r"cp systemd/": "writes to /etc",
    r"bin/test\b": "is what runs this test",
    r"bin/bench\b|\S+python -m tests\.bench": "takes minutes; tests/bench runs the parts",
    r"bin/demo\b": "builds a page with npm; tests/chat runs what it runs",
    r"docker ": "takes a container engine; tests/deploy builds the image and checks compose.yaml without one",
    r"sudo config/container/make-secrets": "gives files to a group, as root; belongs to compose.yaml",
    r"kubectl ": "takes a cluster; tests/deploy checks the manifests",
}
"""Commands that are not run here, by how they begin, and why."""
DANGEROUS = r"(sudo|apt|apt-get|dpkg|useradd|groupadd|rm|dd|kill|pkill|killall|reboot|sysctl|ip|iptables|nft)\b|.*/etc/"
"""Commands that change the machine are not run by mistake either."""
SERVERS = {r"(STOMPBRIDGE_\w+=\S+ )*(bin/)?stompbridge serve\b": "listening"}
"""Programs that run until they are ended, and what one says when it is there."""
STREAMS = (r"(bin/)?stompbridge (top|trace)\b",)
"""Programs that show what happens until Ctrl-C."""
ENDS = (r"(bin/)?stompbridge drain\b",)
"""Commands after which the bridge ends; the next finds another."""
CODES: dict[str, set[int]] = {}
"""Exit codes of commands that have something to find; any other ends with 0."""
SERVICES = {5672: "rabbitmq", 6379: "redis_server"}
"""Ports in the text, and the fixtures of what listens there."""

SHOWN = {path: commands(path.read_text("utf-8")) for path in documents()}


def matching(command: Command, patterns: object) -> str | None:
    """The pattern that says how the command is to be treated."""
    assert isinstance(patterns, dict | tuple)
    return next((pattern for pattern in patterns if re.match(pattern, command.text)), None)


@pytest.fixture
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    text = "\n".join(command.text for command in SHOWN[request.getfixturevalue("path")])
    wanted = [port for port in SERVICES if re.search(rf":{port}\b", text)]
    ports = {port: request.getfixturevalue(SERVICES[port]).port for port in wanted}
    place = Workspace(tmp_path, ports)
    try:
        yield place
    finally:
        place.close()


@pytest.mark.parametrize(
    "path",
    [path for path, shown in SHOWN.items() if any(matching(command, ELSEWHERE) is None for command in shown)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
async def test_the_commands_of(path: Path, workspace: Workspace) -> None:
    for command in SHOWN[path]:
        if matching(command, ELSEWHERE) is not None:
            continue
        assert not re.match(DANGEROUS, command.text), f"{command.text}: has to stand in ELSEWHERE"
        workspace.start()
        if (server := matching(command, SERVERS)) is not None:
            outcome = await workspace.run_server(command.text, SERVERS[server])
            expected = {0}
        elif matching(command, STREAMS) is not None:
            outcome = await workspace.run_stream(command.text)
            expected = {0, 130}
        elif " ID" in command.text:
            async with workspace.client() as client:
                outcome = await workspace.run(command.text.replace(" ID", f" {client.session}"))
            expected = {0}
        else:
            outcome = await workspace.run(command.text)
            expected = CODES.get(matching(command, CODES) or "", {0})
        where = f"{path.relative_to(ROOT)}, block in line {command.line}: {command.text}"
        assert outcome.code in expected, f"{where}\nended with {outcome.code}:\n{outcome.output[-3000:]}"
        assert "Traceback" not in outcome.output, f"{where}\n{outcome.output[-3000:]}"
        if matching(command, ENDS) is not None:
            assert workspace.bridge.wait_ended() == 0
        workspace.bridge.assert_clean_log()


@pytest.mark.parametrize("pattern", [*ELSEWHERE, *SERVERS, *STREAMS, *ENDS, *CODES])
def test_no_entry_of_the_lists_is_left_over(pattern: str) -> None:
    assert any(re.match(pattern, command.text) for shown in SHOWN.values() for command in shown)


def test_commands_are_found() -> None:
    text = """
# Title

Run it:

    bin/stompbridge serve     # comment
    # only a comment
    curl \\
        http://localhost/

And not:

    const x = 1;
    [[acl]]
    allow = ["send"]

```sh
cat <<'END' > file
anything = "goes"
END
for x in 1 2; do
    echo "$x"
done
```

```toml
echo = "no"
```

```console
$ echo typed
shown
```

```
echo unlabelled
```
"""
    assert [command.text for command in commands(text)] == [
        "bin/stompbridge serve     # comment",
        "curl \\\n    http://localhost/",
        "cat <<'END' > file\nanything = \"goes\"\nEND",
        'for x in 1 2; do\n    echo "$x"\ndone',
        "echo typed",
        "echo unlabelled",
    ]


def test_half_a_command_is_an_error() -> None:
    with pytest.raises(ValueError, match="no whole command"):
        commands("```sh\nfor x in 1; do\n```\n")


def test_ports_are_replaced() -> None:
    ports = {8080: 1234, 9000: 4321}
    text = "curl http://127.0.0.1:8080/x --listen 0.0.0.0:8080 --size=64000; SOME_PORT=9000 y --count 10000"
    assert with_ports(text, ports) == (
        "curl http://127.0.0.1:1234/x --listen 0.0.0.0:1234 --size=64000; SOME_PORT=4321 y --count 10000"
    )
    other = with_ports("http://localhost:7777 localhost:7777", ports)
    assert other == f"http://localhost:{ports[7777]} localhost:{ports[7777]}"
    assert ports[7777] != 7777
