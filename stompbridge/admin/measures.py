"""What ``/metrics`` tells: the name, meaning and source of each measure.

Names follow Prometheus' conventions: base units, and ``_total`` for what only grows. Labels have few values, known from
the start: never a user, a destination or a session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stompbridge.admin.snapshot import Snapshot
from stompbridge.gateway.closing import CloseReason
from stompbridge.histogram import Histogram

Value = float | Mapping[str, int] | Mapping[tuple[str, ...], int] | Histogram | None
"""A number; numbers by the value of the label, or the values of the labels; ``None`` where the configuration leaves out
what is measured."""
Read = Callable[[Snapshot], Value]


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric family. ``name`` is without ``stompbridge_``, unless it begins with ``process_``."""

    kind: str
    name: str
    help: str
    read: Read
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As queries have it; a histogram's samples end in ``_bucket``, ``_sum`` and ``_count`` beside that."""
        return self.name if self.name.startswith("process_") else f"stompbridge_{self.name}"


def counter(name: str, help: str, read: Read, *labels: str) -> Measure:
    return Measure("counter", name, help, read, labels)


def gauge(name: str, help: str, read: Read, *labels: str) -> Measure:
    return Measure("gauge", name, help, read, labels)


def histogram(name: str, help: str, read: Read) -> Measure:
    return Measure("histogram", name, help, read)


PROCESS = (
    gauge(
        "build_info",
        "Always 1; the labels tell the program's version, Python's, and the node's name.",
        Snapshot.build,
        *("version", "python", "node"),
    ),
    gauge("check_ok", "Whether a condition of /readyz holds: 1 or 0.", Snapshot.checks, "check"),
    histogram(
        "event_loop_lag_seconds",
        "How late a timer of the event loop came, twice a second.",
        lambda now: now.daemon.lag.histogram,
    ),
    gauge(
        "event_loop_lag_worst_seconds",
        "The most that a timer of the event loop was late in the last 10 seconds.",
        lambda now: now.daemon.lag.worst(),
    ),
    gauge(
        "certificate_expiry_timestamp_seconds",
        "When the TLS certificate in use ends, in seconds since 1970.",
        lambda now: now.gateway.certificate_expires_at,
    ),
)

CLIENTS = (
    gauge("sessions_open", "Clients that are let in.", lambda now: len(now.traffic.sessions)),
    counter("sessions_opened_total", "Clients that were let in.", lambda now: now.traffic.sessions_total),
    counter(
        "sessions_refused_total",
        "Clients refused since their user had limits.connections_per_user sessions.",
        lambda now: now.daemon.shared.sessions_of.refused,
    ),
    gauge(
        "sockets_open",
        "Sockets, with those whose clients are not let in yet or are just leaving.",
        lambda now: now.gateway.connections_open,
    ),
    gauge(
        "sockets_pending",
        "Sockets whose clients are not let in yet.",
        lambda now: now.gateway.door.capacity.pending,
    ),
    gauge("sockets_limit", "limits.connections.", lambda now: now.settings.limits.connections),
    counter("sockets_opened_total", "Sockets that were accepted.", lambda now: now.gateway.connections_total),
    counter(
        "sockets_closed_total",
        "Sockets that have ended, by reason; failed handshakes are among them.",
        lambda now: {reason.label: count for reason, count in now.gateway.closed.items()},
        "reason",
    ),
    counter(
        "slow_consumers_total",
        "Clients cut off since they did not read what was sent to them.",
        lambda now: now.closed(CloseReason.SLOW_CONSUMER),
    ),
    counter(
        "heartbeats_missed_total",
        "Clients given up since their heart-beats stopped (stomp), or their answers to WebSocket pings (websocket).",
        lambda now: {
            "stomp": now.closed(CloseReason.HEARTBEAT_LOST),
            "websocket": now.closed(CloseReason.PING_LOST),
        },
        "kind",
    ),
    counter("heartbeats_sent_total", "STOMP heart-beats sent.", lambda now: now.traffic.heartbeats),
    counter(
        "logins_total",
        "CONNECTs by what became of the login: accepted, refused, throttled (refused unseen after too many refusals), "
        "or unavailable (nobody could say).",
        Snapshot.logins,
        "result",
    ),
)

MESSAGES = (
    counter(
        "frames_total",
        "STOMP frames from (in) and to (out) clients, by command; invalid: not allowed then, or no frame at all.",
        Snapshot.frames,
        *("direction", "command"),
    ),
    counter(
        "client_bytes_total",
        "Bytes from (in) and to (out) clients, those of TLS left out.",
        lambda now: {"in": now.sums.bytes_in, "out": now.sums.bytes_out},
        "direction",
    ),
    counter("sends_total", "SENDs of clients that were taken to be published.", lambda now: now.sums.messages_in),
    counter("deliveries_total", "MESSAGE frames to clients.", lambda now: now.sums.messages_out),
    histogram(
        "publish_seconds",
        "From taking a message to the broker's confirm, with the time that it waited for the broker.",
        lambda now: now.daemon.latency.publish,
    ),
    histogram(
        "delivery_seconds",
        "From reading a message from the broker to writing it to the last of its receivers' sockets; what waits for a "
        "client or for the deduplication store is not waited for.",
        lambda now: now.daemon.latency.delivery,
    ),
    gauge(
        "client_unsent_bytes",
        "Bytes for clients that the operating system has not taken yet.",
        lambda now: now.sums.unsent,
    ),
    gauge(
        "client_unread_bytes",
        "Bytes from clients that are not handled yet.",
        lambda now: now.sums.unread,
    ),
    gauge("clients_behind", "Clients that take less than is written to them.", lambda now: now.sums.behind),
    gauge("clients_paused", "Clients that are not read from for now.", lambda now: now.sums.paused),
    gauge("unacked_messages", "Messages that clients have yet to acknowledge.", lambda now: now.sums.unacked),
    gauge(
        "waiting_messages",
        "Messages that wait behind a subscription's prefetch-count, or for the deduplication store.",
        lambda now: now.sums.waiting,
    ),
)

DEDUPLICATION = (
    counter(
        "suppressed_total",
        "Duplicates that were not delivered, or, of a sender, not published, by what recognised them: the mailbox of "
        "an exchange, the history of a queue, of a named receiver, or the sender's idempotency-key.",
        Snapshot.suppressed,
        "at",
    ),
    counter(
        "in_doubt_total",
        "Deliveries of which nobody knows whether the receiver had the message before.",
        Snapshot.in_doubt,
        "at",
    ),
    gauge("store_up", "Whether the deduplication store can be reached: 1 or 0.", lambda now: int(now.store.available)),
    counter(
        "store_bypassed_total",
        "Messages delivered (receiver) or published (sender) without the store's word, since it was out of reach.",
        lambda now: {"receiver": now.daemon.idempotence.bypassed, "sender": now.daemon.once.bypassed},
        "at",
    ),
    counter("store_calls_total", "Calls to the store's server.", lambda now: now.store.counters.calls),
    counter(
        "store_unavailable_total",
        "Questions that the store could not answer.",
        lambda now: now.store.counters.unavailable,
    ),
    counter(
        "store_unsent_total",
        "Settlements that were given up since the store was out of reach.",
        lambda now: now.store.counters.unsent,
    ),
    counter(
        "store_void_total",
        "Settlements without effect: somebody else had the message by then.",
        lambda now: now.store.counters.void,
    ),
    counter(
        "store_evicted_total",
        "Keys and message ids forgotten before their time, since there were too many.",
        lambda now: now.store.counters.evicted,
    ),
    counter(
        "sessions_taken_over_total",
        "Sessions that ended since the same client-id connected again.",
        lambda now: now.store.counters.taken_over,
    ),
)

BROKER = (
    gauge("broker_up", "Whether the broker can be used: 1 or 0.", lambda now: int(now.daemon.broker.up)),
    counter("broker_reconnects_total", "Losses of the link to RabbitMQ.", lambda now: now.own.get("reconnects")),
    gauge(
        "broker_blocked_links",
        "Links that RabbitMQ takes no messages on for now, because of a resource alarm.",
        lambda now: now.if_rabbitmq_now("blocked"),
    ),
    gauge(
        "probe_round_trip_seconds",
        "What the last health probe took, through the broker and back.",
        lambda now: now.daemon.probe.round_trip,
    ),
    counter(
        "publishes_total",
        "Messages given to the broker, those given again after a loss among them.",
        lambda now: now.total["published"],
    ),
    counter(
        "republished_total",
        "Messages given to RabbitMQ again, since a link was lost before their confirm.",
        lambda now: now.if_rabbitmq("republished"),
    ),
    counter(
        "publish_results_total",
        "What became of messages: confirmed, rejected (by the broker), returned (no such queue), refused (no such "
        "exchange, no permission), expired (waited for longer than broker.outage_grace), overflowed (outbox full).",
        Snapshot.results,
        "result",
    ),
    gauge(
        "outbox_messages",
        "Messages that wait for RabbitMQ or for its confirm.",
        lambda now: now.if_rabbitmq_now("held"),
    ),
    gauge("outbox_bytes", "About what they take.", lambda now: now.if_rabbitmq_now("held_bytes")),
    gauge(
        "outbox_limit_messages",
        "broker.outbox_max_messages.",
        lambda now: now.settings.broker.outbox_max_messages if now.rabbitmq else None,
    ),
    gauge(
        "outbox_limit_bytes",
        "broker.outbox_max_bytes.",
        lambda now: now.settings.broker.outbox_max_bytes if now.rabbitmq else None,
    ),
    gauge(
        "unconfirmed_messages",
        "Messages that RabbitMQ has got and not confirmed yet.",
        lambda now: now.if_rabbitmq_now("unconfirmed"),
    ),
    counter(
        "consumed_total",
        "Messages from RabbitMQ, through mailboxes and from queues; what is delivered to many clients counts once.",
        lambda now: (
            {"mailbox": now.total["mailbox_delivered"], "queue": now.total["queue_delivered"]} if now.rabbitmq else None
        ),
        "source",
    ),
    counter(
        "mailboxes_lost_total",
        "Mailboxes lost with what was in them: their subscribers have missed messages.",
        lambda now: now.if_rabbitmq("mailboxes_lost"),
    ),
    gauge("bindings", "Keys that mailboxes are bound to.", lambda now: now.if_rabbitmq_now("bindings")),
    counter("binds_total", "Keys that were bound.", lambda now: now.if_rabbitmq("binds")),
    counter("unbinds_total", "Keys that were unbound.", lambda now: now.if_rabbitmq("unbinds")),
    counter(
        "bind_storms_total",
        "Times that a mailbox was bound to all messages for a while, since too many subscribed at once.",
        lambda now: now.if_rabbitmq("bind_storms"),
    ),
    gauge("consumers", "Consumers on queues in RabbitMQ.", lambda now: now.if_rabbitmq_now("consumers")),
    counter(
        "consumers_restored_total",
        "Consumers that were set up again after a loss of the link.",
        lambda now: now.if_rabbitmq("consumers_restored"),
    ),
    gauge(
        "embedded_stored_bytes",
        "About what the embedded broker's queues and their messages take.",
        lambda now: None if now.rabbitmq else now.now["stored_bytes"],
    ),
    counter(
        "embedded_unroutable_total",
        "Messages that no queue and no subscription of the embedded broker wanted.",
        lambda now: now.if_embedded("unroutable"),
    ),
)

AUTHENTICATION = (
    counter(
        "throttled_total",
        "CONNECTs refused unseen since there were too many refusals of the address, or for the login.",
        lambda now: now.authentication(address="throttled_addresses", login="throttled_logins"),
        "by",
    ),
    counter("password_hashes_total", "Passwords that cost a hash.", lambda now: now.auth.get("password_hashes")),
    counter(
        "passwords_turned_away_total",
        "Clients whose password could not be verified, since too many were waiting.",
        lambda now: now.auth.get("passwords_turned_away"),
    ),
    counter("webhook_requests_total", "Requests to auth.http.url.", lambda now: now.auth.get("webhook_requests")),
    counter(
        "webhook_unanswered_total",
        "Requests to auth.http.url without a usable answer.",
        lambda now: now.auth.get("webhook_unanswered"),
    ),
    counter(
        "webhook_recalled_total",
        "Clients let in by an answer of auth.http.url that was kept.",
        lambda now: now.auth.get("webhook_recalled"),
    ),
    counter(
        "webhook_turned_away_total",
        "Clients that auth.http.url was not asked about, since too many were waiting.",
        lambda now: now.auth.get("webhook_turned_away"),
    ),
    counter("key_reads_total", "Attempts to read the keys for tokens.", lambda now: now.auth.get("key_reads")),
    counter(
        "key_read_failures_total",
        "Attempts to read the keys for tokens that failed; those at hand stay in force.",
        lambda now: now.auth.get("key_read_failures"),
    ),
    gauge("login_links", "Links to RabbitMQ under clients' logins.", lambda now: now.link(len)),
    counter(
        "login_links_opened_total",
        "Links to RabbitMQ that were opened under clients' logins.",
        lambda now: now.link(lambda links: links.opened),
    ),
    counter(
        "login_links_refused_total",
        "Clients whose login RabbitMQ did not let in.",
        lambda now: now.link(lambda links: links.refused),
    ),
    counter(
        "login_links_revoked_total",
        "Links that ended since RabbitMQ did not let the login in any more.",
        lambda now: now.link(lambda links: links.revoked),
    ),
    counter(
        "login_links_overflowed_total",
        "Clients turned away since there were auth.max_links links.",
        lambda now: now.link(lambda links: links.overflowed),
    ),
)

KERNEL = (
    counter(
        "process_cpu_seconds_total",
        "User and system CPU time, in seconds.",
        lambda now: now.system(lambda kernel: kernel.cpu),
    ),
    gauge(
        "process_resident_memory_bytes",
        "Memory that the process occupies.",
        lambda now: now.system(lambda kernel: kernel.resident),
    ),
    gauge(
        "process_virtual_memory_bytes",
        "The process's address space.",
        lambda now: now.system(lambda kernel: kernel.virtual),
    ),
    gauge(
        "process_start_time_seconds",
        "When the process began, in seconds since 1970.",
        lambda now: now.system(lambda kernel: kernel.started_at),
    ),
    gauge(
        "process_open_fds",
        "Files that are open, sockets among them.",
        lambda now: now.system(lambda kernel: kernel.open_files),
    ),
    gauge("process_max_fds", "How many files may be open.", lambda now: now.system(lambda kernel: kernel.max_files)),
)

SECTIONS: Mapping[str, tuple[Measure, ...]] = {
    "The process": PROCESS,
    "Clients": CLIENTS,
    "Messages": MESSAGES,
    "Nothing twice": DEDUPLICATION,
    "The broker": BROKER,
    "Authentication": AUTHENTICATION,
    "The process, as the operating system has it": KERNEL,
}
"""All measures, in chapters."""
