"""The texts of ERROR frames, which frontends match on."""

from __future__ import annotations

import pytest

from stompbridge.stomp import errors
from stompbridge.stomp.errors import StompError

# RabbitMQ's own texts, letter by letter.
RABBITMQ = [
    (errors.illegal_command(), "Illegal command", "You must log in using CONNECT first", False),
    (errors.bad_command("FOO"), "Bad command", 'Could not interpret command "FOO"\n', False),
    (errors.version_mismatch(), "Version mismatch", "Supported versions are 1.0,1.1,1.2\n", False),
    (errors.bad_host("v"), "Bad CONNECT", "Virtual host 'v' access denied", False),
    (
        errors.missing_destination("SEND"),
        "Missing destination",
        "\"SEND\" must include a 'destination' header\n",
        False,
    ),
    (errors.blank_destination(), "Invalid destination", "Destination cannot be blank", False),
    (
        errors.invalid_destination("/a/b", "queue"),
        "Invalid destination",
        "'/a/b' is not a valid queue destination\n",
        False,
    ),
    (
        errors.not_valid_for("/temp-queue/x", "SEND"),
        "Invalid destination",
        "'/temp-queue/x' is not a valid destination for 'SEND'\n",
        False,
    ),
    (errors.message_id_not_allowed(), "Invalid header", "'message-id' is not allowed on 'SEND'.\n", False),
    (
        errors.durable_needs_id(),
        "Missing Header",
        "Header 'id' is required for durable subscriptions",
        False,
    ),
    (
        errors.duplicate_subscription("T_1"),
        "Duplicated subscription identifier",
        "A subscription identified by 'T_1' already exists.",
        True,
    ),
    (
        errors.no_subscription(id="x"),
        "No subscription found",
        "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to \"id='x'\" not found.\n",
        False,
    ),
    (
        errors.no_subscription(destination="/queue/x"),
        "No subscription found",
        "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to \"destination='/queue/x'\" not found.\n",
        False,
    ),
    (
        errors.missing_destination_or_id(),
        "Missing destination or id",
        "UNSUBSCRIBE must include a 'destination' or 'id' header",
        False,
    ),
    (
        errors.invalid_unsubscribe_id(),
        "Invalid id",
        "UNSUBSCRIBE 'id' may not start with /temp-queue/\n",
        False,
    ),
    (
        errors.server_cancelled("s0", "id='s0'"),
        "Server cancelled subscription",
        "The server has canceled a subscription.\nNo more messages will be delivered for \"id='s0'\".\n",
        False,
    ),
    (
        errors.missing_ack_header("ACK", "id"),
        "Missing header",
        '"ACK" must include the "id" header\n',
        False,
    ),
    (
        errors.invalid_ack_header("NACK", "message-id"),
        "Invalid header",
        '"NACK" must include a valid "message-id" header\n',
        False,
    ),
    (
        errors.subscription_not_found("T_1@@s@@2"),
        "Subscription not found",
        'Message with id "T_1@@s@@2" has no subscription',
        False,
    ),
    (
        errors.unknown_delivery_tag("7"),
        "precondition_failed",
        "PRECONDITION_FAILED - unknown delivery tag 7",
        True,
    ),
    (
        errors.access_refused("/queue/a", "u"),
        "access_refused",
        "ACCESS_REFUSED - access to destination '/queue/a' refused for user 'u'",
        True,
    ),
    (
        errors.missing_transaction("BEGIN"),
        "Missing transaction",
        "\"BEGIN\" must include a 'transaction' header\n",
        False,
    ),
    (errors.bad_transaction("t9"), "Bad transaction", 'Invalid transaction identifier: "t9"\n', False),
    (
        errors.bad_transaction('a"b\\c\r\né'),
        "Bad transaction",
        'Invalid transaction identifier: "a\\"b\\\\c\\r\\né"\n',
        False,
    ),
    (
        errors.broker_error("not_found", "NOT_FOUND - no exchange 'x' in vhost '/'", True),
        "not_found",
        "NOT_FOUND - no exchange 'x' in vhost '/'",
        True,
    ),
]

OURS = [
    (errors.malformed("It is wrong."), "Malformed frame", True),
    (errors.frame_too_large(10), "Frame too large", True),
    (errors.limit("headers", 100, fatal=True), "Limit exceeded", True),
    (errors.limit("subscriptions", 100, fatal=False), "Limit exceeded", False),
    (errors.already_connected(), "Illegal command", True),
    (errors.bad_connect("Access refused for user 'x'\n"), "Bad CONNECT", False),
    (errors.auth_unavailable(), "Bad CONNECT", True),
    (errors.too_many_sessions("x"), "Bad CONNECT", False),
    (errors.session_expired(), "Session expired", True),
    (errors.connect_timeout(), "Connect timeout", True),
    (errors.processing_error("It makes no sense."), "Processing error", False),
    (errors.no_app_route("/app/x"), "Unknown destination", False),
    (errors.not_json_object("it is a list"), "Invalid body", False),
    (errors.too_many_transactions(16), "Transaction limit exceeded", False),
    (errors.transaction_too_large(16, "frames"), "Transaction too large", False),
    (errors.broker_unavailable("It is away."), "Broker unavailable", False),
    (errors.message_rejected("The queue is full."), "Message rejected", False),
    (errors.slow_consumer("Too much waits."), "Slow consumer", True),
    (errors.too_many_unacked(5), "Too many unacknowledged messages", True),
    (errors.too_fast("10 messages a second"), "Rate limit exceeded", True),
    (errors.taken_over("tablet"), "Session taken over", True),
    (errors.bad_client_id(255), "Bad CONNECT", False),
    (errors.bad_idempotency_key(255), "Invalid header", False),
    (errors.idempotency_mismatch(), "Idempotency key reused", False),
    (errors.idempotency_in_flight(), "Idempotency key in flight", False),
    (errors.store_unavailable(), "Store unavailable", False),
]


@pytest.mark.parametrize(("error", "message", "body", "fatal"), RABBITMQ, ids=lambda value: str(value)[:40])
def test_rabbitmq_texts(error: StompError, message: str, body: str, fatal: bool) -> None:
    assert (error.message, error.body, error.fatal) == (message, body, fatal)


@pytest.mark.parametrize(("error", "message", "fatal"), OURS, ids=lambda value: str(value)[:40])
def test_own_texts(error: StompError, message: str, fatal: bool) -> None:
    assert (error.message, error.fatal, error.headers) == (message, fatal, ())
    assert error.body.endswith("\n")


def test_unknown_destination_lists_what_is_known() -> None:
    error = errors.unknown_destination("/foo/bar")
    assert error.message == "Unknown destination"
    assert error.body == (
        "'/foo/bar' is not a valid destination.\n"
        "Valid destination types are: "
        "/temp-queue, /exchange, /topic, /queue, /amq/queue, /reply-queue/, /app, /user, /internal.\n"
    )
    assert not error.fatal


def test_server_cancelled_names_the_subscription_in_a_header() -> None:
    assert errors.server_cancelled("s0", "id='s0'").headers == (("subscription", "s0"),)


def test_error_reads_as_one_line() -> None:
    assert str(errors.bad_transaction("t9")) == 'Bad transaction: Invalid transaction identifier: "t9"'
