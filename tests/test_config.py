from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stompbridge import config, config_file
from stompbridge.config import ConfigError, Settings

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "bridge.toml"
        path.write_text(text)
        return path

    return write


def refusal(path: Path | None = None, environ: dict[str, str] | None = None, **overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as info:
        config.load(path, environ or {}, {key.replace("__", "."): text for key, text in overrides.items()})
    return str(info.value).splitlines()


def one_refusal(path: Path | None = None, environ: dict[str, str] | None = None, **overrides: str) -> str:
    (line,) = refusal(path, environ, **overrides)
    return line


def test_defaults() -> None:
    settings = config.load(None, {}, {})
    assert settings == Settings()
    assert (settings.listen.host, settings.listen.port, settings.listen.path) == ("127.0.0.1", 8080, "/ws")
    assert settings.broker.kind == "memory"


@pytest.mark.parametrize(
    ("host", "node"), [("web-1.example.net", "web-1"), ("", "bridge"), ("bad host!", "bad-host-"), ("x" * 80, "x" * 64)]
)
def test_the_node_is_named_after_the_host(monkeypatch: pytest.MonkeyPatch, host: str, node: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert config.load(None, {}, {}).node == node


def test_file(write: Write) -> None:
    settings = config.load(
        write(
            """
            node = "n1"
            [listen]
            port = 9000
            allowed_origins = ["https://chat.example", "http://localhost:3000", "null", "capacitor://localhost"]
            [stomp]
            heartbeat_send = "500ms"
            heartbeat_receive = 20
            [broker]
            kind = "rabbitmq"
            outage_grace = "2m"
            mailbox_max_bytes = "10MB"
            [[broker.exchange]]
            name = "chat.exchange"
            [[broker.exchange]]
            name = "news"
            type = "fanout"
            durable = false
            [[app.route]]
            destination = "/app/message/{roomId}"
            exchange = "chat.exchange"
            routing_key = "roomId.{roomId}"
            stamp = { roomId = "{roomId:int}" }
            """
        ),
        {},
        {},
    )
    assert settings.node == "n1"
    assert settings.listen.port == 9000
    assert settings.listen.allowed_origins[1] == "http://localhost:3000"
    assert (settings.stomp.heartbeat_send, settings.stomp.heartbeat_receive) == (0.5, 20.0)
    assert isinstance(settings.stomp.heartbeat_receive, float)
    assert (settings.broker.outage_grace, settings.broker.mailbox_max_bytes) == (120.0, 10_000_000)
    assert [(e.name, e.type, e.durable) for e in settings.broker.exchange] == [
        ("chat.exchange", "topic", True),
        ("news", "fanout", False),
    ]
    assert settings.app.route[0].stamp == {"roomId": "{roomId:int}"}


def test_precedence(write: Write) -> None:
    path = write("[listen]\nport = 1\nbacklog = 1\n[limits]\nheaders = 1")
    environ = {"STOMPBRIDGE_LISTEN__PORT": "2", "STOMPBRIDGE_LISTEN__BACKLOG": "2", "PATH": "/bin"}
    settings = config.load(path, environ, {"listen.port": "3"})
    assert (settings.listen.port, settings.listen.backlog, settings.limits.headers) == (3, 2, 1)


def test_environment() -> None:
    settings = config.load(
        None,
        {
            "STOMPBRIDGE_CONFIG": "elsewhere.toml",
            "STOMPBRIDGE_NODE": "n 2".replace(" ", "-"),
            "STOMPBRIDGE_INSECURE": "TRUE",
            "STOMPBRIDGE_ADMIN__ENABLED": "false",
            "STOMPBRIDGE_STOMP__HEARTBEAT_SEND": "1.5",
            "STOMPBRIDGE_STOMP__HOSTS": "[\"a\", 'b']",
            "STOMPBRIDGE_LIMITS__FRAME": "1024",
            "STOMPBRIDGE_LIMITS__FRAME_BEFORE_CONNECT": "1 KiB",
            "STOMPBRIDGE_BROKER__EXCHANGE": '[{name = "x", type = "direct"}]',
        },
        {},
    )
    assert settings.node == "n-2"
    assert settings.insecure is True
    assert settings.admin.enabled is False
    assert settings.stomp.heartbeat_send == 1.5
    assert settings.stomp.hosts == ("a", "b")
    assert settings.limits.frame == settings.limits.frame_before_connect == 1024
    assert settings.broker.exchange == (config.Exchange(name="x", type="direct"),)


def test_what_kubernetes_sets_for_a_service_is_no_setting() -> None:
    environ = {
        "STOMPBRIDGE_SERVICE_HOST": "10.0.0.1",
        "STOMPBRIDGE_SERVICE_PORT": "8080",
        "STOMPBRIDGE_SERVICE_PORT_WS": "8080",
        "STOMPBRIDGE_PORT": "tcp://10.0.0.1:8080",
        "STOMPBRIDGE_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "STOMPBRIDGE_PORT_8080_TCP_ADDR": "10.0.0.1",
        "STOMPBRIDGE_ADMIN_PORT": "tcp://10.0.0.2:8081",
        "STOMPBRIDGE_ADMIN_SERVICE_HOST": "10.0.0.2",
    }
    assert config.load(None, environ, {}) == Settings()
    assert one_refusal(environ={"STOMPBRIDGE_LISTEN_PORT": "9000"}) == (
        "environment variable STOMPBRIDGE_LISTEN_PORT: no such key: listen_port; did you mean STOMPBRIDGE_LISTEN__PORT?"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("300ms", 0.3), ("10s", 10), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), ("1d", 86400), ("7", 7)],
)
def test_durations(text: str, seconds: float) -> None:
    assert config.load(None, {}, {"dedup.history_ttl": text}).dedup.history_ttl == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("64KiB", 65536), ("64kib", 65536), ("1MiB", 2**20), ("1.5KiB", 1536)),
        *(("10MB", 10**7), ("2kB", 2000), ("4096B", 4096), ("4096", 4096)),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert config.load(None, {}, {"limits.send_buffer": text}).limits.send_buffer == size


@pytest.mark.parametrize("text", ["10", "s", "10 years", "-1s", "1e400", "inf", "nan", "400d", "", "true", "1" * 6000])
def test_bad_durations(text: str) -> None:
    if text == "10":
        text = "10x"
    assert 'must be a duration such as "500ms", "10s"' in one_refusal(dedup__history_ttl=text)


@pytest.mark.parametrize("text", ["1.2345KiB", "64KB2", "-1", "1.5", "2000GiB", "9" * 400, "64 miles", "[1]"])
def test_bad_sizes(text: str) -> None:
    assert 'must be a size such as "64KiB"' in one_refusal(limits__frame=text)


def test_a_long_value_is_cut() -> None:
    assert len(one_refusal(limits__frame="9" * 4000)) < 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[listen]\nport = 70000", "listen.port = 70000: must be a whole number from 0 to 65535"),
        ("[listen]\nport = true", "listen.port = true: must be a whole number from 0 to 65535"),
        ("[listen]\nport = inf", "listen.port = inf: must be a whole number from 0 to 65535"),
        ("[listen]\nport = '80'", 'listen.port = "80": must be a whole number from 0 to 65535'),
        ("[listen]\nhost = 1", "listen.host = 1: must be text in quotes"),
        ("[admin]\nenabled = 'yes'", 'admin.enabled = "yes": must be true or false'),
        ("[dedup]\nhistory_ttl = true", "dedup.history_ttl = true: must be a duration such as"),
        ("[dedup]\nhistory_ttl = inf", "dedup.history_ttl = inf: must be a duration such as"),
        ("[limits]\nheaders = 0", "limits.headers = 0: must be a whole number from 1 to 2147483647"),
        ("[limits]\nframe = [1]", "limits.frame = [1]: must be a size such as"),
        ("[limits]\nframes = 1", "limits.frames = 1: no such key; did you mean limits.frame?"),
        ("port = 1", "port = 1: no such key; did you mean listen.port?"),
        ("qwertz = 1", "qwertz = 1: no such key"),
        ("listen = 1", "listen = 1: must be a table: [listen]"),
        ("[lisen]\nport = 1", "lisen = { port = 1 }: no such key; did you mean listen?"),
        ("[stomp]\nhosts = 'a'", 'stomp.hosts = "a": must be a list: ["...", "..."]'),
        ("[stomp]\nhosts = ['a', 1]", "stomp.hosts[1] = 1: must be text in quotes"),
        ("[log]\nlevel = 'warn'", 'must be one of "debug", "error", "info", "warning"; did you mean "warning"?'),
        ("[log]\nlevel = 3", 'log.level = 3: must be one of "debug", "error", "info", "warning"'),
        ("[broker]\nexchange = 1", "broker.exchange = 1: must be a list: [{ ... }, { ... }]"),
        ("[broker]\nexchange = [1]", "broker.exchange[0] = 1: must be a table with name, type, durable, bind"),
        ("[[broker.exchange]]\ntype = 'topic'", "broker.exchange[0]: name is missing"),
        ("[[broker.exchange]]\nname = 'x'\ntype = 'topik'", 'broker.exchange[0].type = "topik": must be one of'),
        ("[[broker.exchange]]\nname = 'x'\ntyp = 'topic'", "broker.exchange[0].typ = "),
        (
            "[[app.route]]\ndestination = '/app/a'\nexchange = ''\nrouting_key = 'q'\nstamp = { a = 1, 'b c' = '' }",
            'app.route[0].stamp = { a = 1, "b c" = "" }: must be a table of texts: { name = "...", name = "..." }',
        ),
    ],
)
def test_a_bad_value_is_named(write: Write, text: str, expected: str) -> None:
    path = write(text)
    line = one_refusal(path)
    assert line.startswith(f"{path}: ")
    assert expected in line


def test_bad_values_of_other_sources_are_named() -> None:
    assert refusal(
        environ={"STOMPBRIDGE_LISTEN__PORT": "eighty", "STOMPBRIDGE_QWERTZ": "1", "STOMPBRIDGE_ADMIN__ENABLED": "yes"},
        limits__frme="1",
        stomp__hosts="a, b",
        listen="1",
    ) == [
        "environment variable STOMPBRIDGE_QWERTZ: no such key: qwertz",
        'command line: limits.frme = "1": no such key; did you mean limits.frame?',
        'command line: listen = "1": no such key; did you mean listen.port?',
        'environment variable STOMPBRIDGE_LISTEN__PORT: listen.port = "eighty": must be a whole number from 0 to 65535',
        'environment variable STOMPBRIDGE_ADMIN__ENABLED: admin.enabled = "yes": must be true or false',
        'command line: stomp.hosts = "a, b": must be a list: ["...", "..."]',
    ]


def test_an_override_finds_its_section() -> None:
    assert one_refusal(port="1") == 'command line: port = "1": no such key; did you mean listen.port?'


def test_unreadable_files(tmp_path: Path, write: Write) -> None:
    assert one_refusal(tmp_path / "none.toml") == f"{tmp_path}/none.toml: cannot be read: No such file or directory"
    assert one_refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    path = write("[listen]\nport = \n")
    assert one_refusal(path) == f"{path}: is not TOML: Invalid value (at line 2, column 8)"
    path.write_bytes(b'node = "\xff"')
    assert one_refusal(path) == f"{path}: is not UTF-8 text (byte 8)"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"node": "a b"}, 'node = "a b": must be 1 to 64 letters, digits'),
        ({"node": ""}, 'node = "": must be'),
        ({"listen.path": "ws"}, 'listen.path = "ws": must start with "/"'),
        ({"listen.path": "/ws?x"}, "listen.path"),
        ({"listen.allowed_origins": '["https://a/"]'}, 'listen.allowed_origins[0] = "https://a/": must be an origin'),
        ({"listen.allowed_origins": '["*"]'}, "listen.allowed_origins[0]"),
        ({"listen.allowed_origins": '["https://A.example"]'}, "in lower case"),
        ({"listen.host": ""}, 'listen.host = "": must not be empty'),
        ({"listen.port": "8081"}, "admin.port = 8081: is listen.port too"),
        ({"stomp.heartbeat_send": "2h"}, 'stomp.heartbeat_send = "2h": must be at most "1h"'),
        ({"broker.heartbeat": "1500ms"}, 'broker.heartbeat = "1500ms": must be whole seconds'),
        ({"broker.heartbeat": "19h"}, "broker.heartbeat"),
        ({"broker.mailbox_expires": "50d"}, 'must be at most "49d"'),
        ({"broker.mailbox_expires": "0s"}, 'broker.mailbox_expires = "0s": must be at least "1ms"'),
        ({"limits.ping_interval": "0"}, "limits.ping_interval"),
        ({"health.broker.timeout": "11s"}, 'health.broker.timeout = "11s": must not be longer than health.broker.int'),
        ({"limits.send_buffer": "1000"}, 'limits.send_buffer = "1000B": must be at least "1KiB"'),
        ({"limits.frame": "32KiB"}, 'limits.frame_before_connect = "64KiB": must not be larger than limits.frame'),
        ({"broker.mailbox_max_bytes": "1MiB"}, 'broker.mailbox_max_bytes = "1MiB": must be at least limits.frame'),
        ({"broker.urls": "[]"}, "broker.urls = []: must name at least one URL"),
        ({"broker.urls": '["amqp://a", "http://u:secret@h"]'}, 'broker.urls[1] = "http://u:***@h": must be a URL'),
        ({"broker.urls": '["amqp://h:99999"]'}, "broker.urls[0]"),
        ({"broker.urls": '["guest:secret@h"]'}, 'broker.urls[0] = "guest:***@h"'),
        ({"broker.exchange": "[{name = ''}]"}, 'broker.exchange[0].name = "": must have 1 to 255 bytes'),
        ({"broker.exchange": "[{name = 'a'}, {name = 'a'}]"}, 'broker.exchange[1].name = "a": is there already'),
        (
            {"broker.exchange": "[{name = 'stompbridge.user'}]"},
            'broker.exchange[0].name = "stompbridge.user": is declared by the bridge itself, for /user',
        ),
        ({"broker.exchange": "[{name = 'a', type = 'direct', bind = 'all'}]"}, "broker.exchange[0].bind"),
        (
            {"app.route": "[{destination = '/topic/a', exchange = 'e', routing_key = 'k'}]"},
            'app.route[0].destination = "/topic/a": must start with /app/',
        ),
        (
            {
                "app.route": ", ".join(["[{destination = '/app/a', exchange = 'e', routing_key = 'k'}"] * 2).replace(
                    ", [", ", "
                )
                + "]"
            },
            'app.route[1].destination = "/app/a": has a route already',
        ),
    ],
)
def test_keys_that_do_not_fit_together(overrides: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as info:
        config.load(None, {}, overrides)
    assert expected in str(info.value)
    assert "\n" not in str(info.value)
    assert "secret" not in str(info.value)


def test_the_source_of_what_does_not_fit(write: Write) -> None:
    path = write("[[broker.exchange]]\nname = 'a'\n[[broker.exchange]]\nname = 'a'")
    assert refusal(path, {"STOMPBRIDGE_NODE": "!"}) == [
        "environment variable STOMPBRIDGE_NODE: node = \"!\": must be 1 to 64 letters, digits, '_', '.' or '-'",
        f'{path}: broker.exchange[1].name = "a": is there already',
    ]
    # Where a default is at odds with what was set, there is no source to name.
    assert one_refusal(limits__frame="32KiB").startswith("limits.frame_before_connect = ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "bridge.localhost"])
def test_loopback_needs_no_consent(host: str) -> None:
    assert config.load(None, {}, {"listen.host": host, "admin.host": host}).listen.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "bridge.example"])
def test_other_addresses_need_consent(host: str) -> None:
    listen, admin = refusal(listen__host=host, admin__host=host)
    assert listen.startswith(f'command line: listen.host = "{host}": can be reached from other machines')
    assert "insecure = true" in listen
    assert admin.startswith(f'command line: admin.host = "{host}"')
    assert config.load(None, {}, {"listen.host": host, "insecure": "true"}).listen.host == host
    assert config.load(None, {}, {"admin.host": host, "admin.enabled": "false"}).admin.host == host


def test_the_admin_port_needs_a_token_to_be_open() -> None:
    """Which opens nothing else."""
    token = {"STOMPBRIDGE_ADMIN__TOKEN": "0123456789abcdef"}
    assert config.load(None, token, {"admin.host": "0.0.0.0"}).admin.host == "0.0.0.0"
    with pytest.raises(config.ConfigError, match=r"^command line: listen\.host"):
        config.load(None, token, {"admin.host": "0.0.0.0", "listen.host": "0.0.0.0"})


def test_urls_file(tmp_path: Path, write: Write) -> None:
    secrets = tmp_path / "urls"
    secrets.write_text("# both nodes\namqp://u:p@one\n\n  amqps://u:p@two:5671/v  \n")
    secrets.chmod(0o600)
    path = write("[broker]\nurls = ['amqp://ignored']\nurls_file = 'urls'")
    settings = config.load(path, {}, {})
    assert settings.broker.urls == ("amqp://u:p@one", "amqps://u:p@two:5671/v")
    assert "u:p@" not in config.show(settings)
    assert config.load(None, {}, {"broker.urls_file": str(secrets)}).broker.urls == settings.broker.urls


def test_bad_urls_files(tmp_path: Path) -> None:
    secrets = tmp_path / "urls"

    def line() -> str:
        return one_refusal(broker__urls_file=str(secrets))

    start = f'command line: broker.urls_file = "{secrets}": '
    assert line() == start + "cannot be read: No such file or directory"
    secrets.touch(0o600)
    assert line() == start + "holds no URL"
    secrets.write_bytes(b"\xff")
    assert line() == start + "is not UTF-8 text"
    secrets.write_text("amqp://a\nhttp://u:secret@b")
    assert f'{secrets}[1] = "http://u:***@b": must be a URL' in line()
    secrets.chmod(0o644)
    assert line() == start + "can be read by everybody on this machine: chmod o-rwx"


def test_show_can_be_loaded(write: Write) -> None:
    settings = config.load(
        None,
        {},
        {
            "node": "n",
            "insecure": "true",
            "broker.urls": '["amqp://user:p%40ss@host:5672/%2F", "amqp://host"]',
            "broker.exchange": '[{name = "a"}, {name = "b", type = "headers", durable = false}]',
            "app.route": "[{destination = '/app/a', exchange = '', routing_key = 'q', stamp = {'ä \"b' = '\\u007f'}}]",
            "broker.connect_timeout": "1.25s",
            "limits.send_timeout": "1500ms",
            "limits.send_buffer": "1025",
            "broker.memory_max_bytes": "0",
            "broker.bind_linger": "0",
        },
    )
    text = config.show(settings)
    assert "p%40ss" not in text
    assert 'send_buffer = "1025B"' in text
    assert 'mailbox_expires = "5m"' in text
    assert "[health]" not in text
    assert config.load(write(text.replace("user:***", "user:p%40ss")), {}, {}) == settings


@given(st.floats(0.001, 1e6).map(lambda value: round(value, 3)))
def test_durations_round_trip(seconds: float) -> None:
    text = config_file.show_duration(seconds)
    assert config.load(None, {}, {"dedup.history_ttl": text}).dedup.history_ttl == pytest.approx(seconds, rel=1e-5)


@given(st.integers(0, 2**40))
def test_sizes_round_trip(size: int) -> None:
    assert (
        config.load(None, {}, {"broker.memory_max_bytes": config_file.show_size(size)}).broker.memory_max_bytes == size
    )


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["listen.port", "limits.frame", "stomp.hosts", "broker.exchange", "log.level"]), st.text()
    )
)
def test_no_text_but_is_taken_or_refused(overrides: dict[str, str]) -> None:
    try:
        settings = config.load(None, {}, overrides)
    except ConfigError:
        return
    assert isinstance(settings, Settings)
