"""The measures, read from daemons that are made and not started."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert

from stompbridge.admin.measures import SECTIONS, Measure, counter, gauge
from stompbridge.admin.metrics import CONTENT_TYPE, Metrics, family
from stompbridge.admin.snapshot import Snapshot
from stompbridge.auth.static import hash_password
from stompbridge.config import Settings
from stompbridge.daemon import Daemon
from stompbridge.gateway.closing import CloseReason
from stompbridge.histogram import Histogram
from tests.support.certificates import Certificate
from tests.support.metrics import names, parse

MEASURES = [measure for measures in SECTIONS.values() for measure in measures]
RABBITMQ = {"kind": "rabbitmq", "urls": ["amqp://guest:guest@127.0.0.1:1/"]}


def made(**settings: Any) -> Daemon:
    return Daemon(convert(settings, Settings))


async def text(daemon: Daemon) -> str:
    return (await Metrics(daemon).render()).decode()


async def samples(daemon: Daemon) -> dict[str, float]:
    return parse(await text(daemon))


@pytest.mark.parametrize("measure", MEASURES, ids=[measure.name for measure in MEASURES])
def test_names_and_texts_follow_the_conventions(measure: Measure) -> None:
    assert measure.name.replace("_", "").isalnum()
    assert measure.name.islower()
    assert measure.name.endswith("_total") == (measure.kind == "counter")
    assert measure.help.endswith(".")
    assert not set(measure.labels) & {"user", "login", "session", "destination", "address", "le", "job", "instance"}


def test_no_name_is_used_twice() -> None:
    full = [measure.full_name for measure in MEASURES]
    assert len(set(full)) == len(full)
    # In OpenMetrics a counter's family is named without the _total.
    assert len({name.removesuffix("_total") for name in full}) == len(full)


async def test_every_measure_is_there_whatever_is_configured() -> None:
    wanted = {measure.full_name for measure in MEASURES}
    for daemon in (made(), made(broker=RABBITMQ)):
        found = names(await text(daemon))
        assert wanted <= found
        assert {"process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes"} <= found
        assert not {name for name in found if not name.startswith(("stompbridge_", "process_"))}
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


async def test_a_fresh_daemon_has_counted_nothing() -> None:
    for name, value in (await samples(made())).items():
        if name.partition("{")[0].endswith(("_total", "_count", "_bucket", "_sum")) and "process_" not in name:
            assert value == 0, name


async def test_what_only_rabbitmq_has() -> None:
    embedded, rabbitmq = await samples(made()), await samples(made(broker=RABBITMQ))
    assert "stompbridge_embedded_stored_bytes" in embedded.keys() - rabbitmq.keys()
    for name in ("outbox_messages", "outbox_limit_messages", "broker_blocked_links", "broker_reconnects_total"):
        assert f"stompbridge_{name}" in rabbitmq.keys() - embedded.keys()
    assert 'stompbridge_publish_results_total{result="expired"}' in rabbitmq.keys() - embedded.keys()
    assert rabbitmq["stompbridge_broker_up"] == 0
    assert rabbitmq["stompbridge_outbox_limit_messages"] == 10000


async def test_what_each_kind_of_authentication_has(tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    users.write_text(f'[users.ann]\npassword = "{hash_password("x")}"\n')
    users.chmod(0o600)
    key = tmp_path / "key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    jwt = {"key_file": str(key), "algorithms": ["HS256"], "audience": "a", "issuer": "i"}
    backends: dict[str, dict[str, Any]] = {
        "password_hashes": {"backend": "static", "users_file": str(users)},
        "key_reads": {"backend": "jwt", "jwt": jwt},
        "webhook_requests": {"backend": "http", "http": {"url": "https://auth.example/"}},
        "login_links_opened": {"backend": "rabbitmq"},
    }
    for own, auth in backends.items():
        found = await samples(made(auth=auth, broker=RABBITMQ))
        for name in backends:
            assert (f"stompbridge_{name}_total" in found) == (name == own)
        assert found['stompbridge_throttled_total{by="login"}'] == 0
        assert found['stompbridge_logins_total{result="refused"}'] == 0
    assert not [name for name in await samples(made()) if "logins" in name or "throttled" in name]


async def test_each_way_of_recognising_a_message_is_told_apart() -> None:
    daemon = made()
    daemon.hub.suppressed, daemon.hub.in_doubt = 1, 2
    history = daemon.router.history("q")
    history.suppressed, history.in_doubt = 3, 4
    daemon.idempotence.suppressed, daemon.idempotence.in_doubt, daemon.idempotence.bypassed = 5, 6, 7
    daemon.once.repeated, daemon.once.bypassed = 8, 9
    found = await samples(daemon)
    for measure, values in {
        "suppressed": {"mailbox": 1, "queue": 3, "receiver": 5, "sender": 8},
        "in_doubt": {"mailbox": 2, "queue": 4, "receiver": 6},
        "store_bypassed": {"receiver": 7, "sender": 9},
    }.items():
        for at, value in values.items():
            assert found[f'stompbridge_{measure}_total{{at="{at}"}}'] == value


async def test_ends_are_told_apart() -> None:
    daemon = made()
    closed = daemon.gateway.closed
    for number, reason in enumerate(CloseReason, 1):
        closed[reason] = number
    found = await samples(daemon)
    for reason, number in closed.items():
        assert found[f'stompbridge_sockets_closed_total{{reason="{reason.label}"}}'] == number
    assert found["stompbridge_slow_consumers_total"] == closed[CloseReason.SLOW_CONSUMER]
    assert found['stompbridge_heartbeats_missed_total{kind="stomp"}'] == closed[CloseReason.HEARTBEAT_LOST]
    assert found['stompbridge_heartbeats_missed_total{kind="websocket"}'] == closed[CloseReason.PING_LOST]


async def test_latencies_lag_and_checks() -> None:
    daemon = made()
    daemon.latency.delivery.observe(0.02, 3)
    for now in (1.0, 1.5, 2.3):
        daemon.lag.tick(now)
    found = await samples(daemon)
    assert found['stompbridge_delivery_seconds_bucket{le="0.01"}'] == 0
    assert found['stompbridge_delivery_seconds_bucket{le="0.025"}'] == 3
    assert found['stompbridge_delivery_seconds_bucket{le="+Inf"}'] == found["stompbridge_delivery_seconds_count"] == 3
    assert found["stompbridge_delivery_seconds_sum"] == pytest.approx(0.06)
    assert found["stompbridge_event_loop_lag_worst_seconds"] == pytest.approx(0.3)
    assert found["stompbridge_event_loop_lag_seconds_count"] == 2
    # It has not been started.
    assert found['stompbridge_check_ok{check="broker"}'] == 0
    assert found['stompbridge_check_ok{check="drain"}'] == 1


async def test_the_certificate_in_use(tmp_path: Path) -> None:
    daemon = made()
    assert "stompbridge_certificate_expiry_timestamp_seconds" not in await samples(daemon)
    certificate = Certificate(tmp_path)
    daemon = made(listen={"tls_cert": str(certificate.cert), "tls_key": str(certificate.key)})
    daemon.gateway.reload_tls()
    left = (await samples(daemon))["stompbridge_certificate_expiry_timestamp_seconds"] - time.time()
    assert 0 < left < 400 * 86400


def test_families() -> None:
    def read(_now: Snapshot) -> None: ...

    labelled = family(counter("c_total", "C.", read, "a", "b"), {("x", "y"): 2})
    assert (labelled.name, labelled.type) == ("stompbridge_c", "counter")
    assert [(sample.labels, sample.value) for sample in labelled.samples] == [({"a": "x", "b": "y"}, 2)]
    assert [sample.value for sample in family(gauge("g", "G.", read), 1.5).samples] == [1.5]
    assert family(gauge("g", "G.", read), None).samples == []
    histogram = Histogram((1.0,))
    histogram.observe(0.5)
    made = family(Measure("histogram", "h_seconds", "H.", read), histogram)
    assert [(sample.labels.get("le"), sample.value) for sample in made.samples] == [
        ("1.0", 1),
        ("+Inf", 1),
        (None, 1),
        (None, 0.5),
    ]
