"""Everything that can be wrong with what a client sends, and the text of the ERROR frame that says so.

Existing frontends match on these texts, so they are RabbitMQ's own wherever its STOMP plugin has one. Each factory
returns the error; raising it, or carrying it in an event, is the caller's choice.
"""

from __future__ import annotations

DESTINATION_TYPES = (
    "/temp-queue",
    "/exchange",
    "/topic",
    "/queue",
    "/amq/queue",
    "/reply-queue/",
    "/app",
    "/user",
    "/internal",
)
"""What a destination may start with, as the "Unknown destination" error lists it."""
_ERLANG = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


class StompError(Exception):
    """One ERROR frame (STOMP 1.2, section "ERROR").

    ``message`` is the frame's ``message`` header and ``body`` its body; ``headers`` go out beside the usual ones.
    ``fatal`` says that the connection ends after it whatever the configuration says.
    """

    def __init__(
        self, message: str, body: str, *, fatal: bool = False, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message, body)
        self.message = message
        self.body = body
        self.fatal = fatal
        self.headers = headers

    def __str__(self) -> str:
        return f"{self.message}: {self.body.strip()}"


# Framing


def malformed(detail: str) -> StompError:
    """Bytes that are no STOMP frame. Where the next frame begins cannot be known, so this is fatal."""
    return StompError("Malformed frame", f"{detail}\n", fatal=True)


def frame_too_large(limit: int) -> StompError:
    """A frame of more than ``limit`` bytes."""
    return StompError("Frame too large", f"A frame may have at most {limit} bytes.\n", fatal=True)


def limit(what: str, value: int, *, fatal: bool) -> StompError:
    """More than ``value`` of ``what`` (a plural noun)."""
    return StompError("Limit exceeded", f"No more than {value} {what} are allowed.\n", fatal=fatal)


# Commands and CONNECT


def illegal_command() -> StompError:
    """Any other frame before CONNECT."""
    return StompError("Illegal command", "You must log in using CONNECT first")


def already_connected() -> StompError:
    """A second CONNECT."""
    return StompError("Illegal command", "You are connected already\n", fatal=True)


def bad_command(command: str) -> StompError:
    """A command that no version of STOMP has for clients."""
    return StompError("Bad command", f'Could not interpret command "{command}"\n')


def version_mismatch() -> StompError:
    """``accept-version`` names no version that the server speaks."""
    return StompError("Version mismatch", "Supported versions are 1.0,1.1,1.2\n")


def bad_host(host: str) -> StompError:
    """CONNECT asks for a virtual host that is not served."""
    return StompError("Bad CONNECT", f"Virtual host '{host}' access denied")


def bad_connect(text: str) -> StompError:
    """A CONNECT that is refused, for reasons that ``text`` tells as far as a client may know them."""
    return StompError("Bad CONNECT", text)


def auth_unavailable() -> StompError:
    """What knows the users does not answer."""
    return StompError("Bad CONNECT", "Credentials cannot be checked at present. Try again later.\n", fatal=True)


def too_many_sessions(user: str) -> StompError:
    """A user with as many sessions as one may have."""
    return StompError("Bad CONNECT", f"Connection refused: connection limit of user '{user}' reached\n")


def session_expired() -> StompError:
    """The credentials are not valid any longer."""
    return StompError("Session expired", "The credentials have expired. Connect again with new ones.\n", fatal=True)


def connect_timeout() -> StompError:
    """No CONNECT within the time allowed."""
    return StompError("Connect timeout", "No CONNECT frame arrived in time.\n", fatal=True)


def processing_error(detail: str) -> StompError:
    """A header value that makes no sense."""
    return StompError("Processing error", f"{detail}\n")


# Destinations and SEND


def missing_destination(command: str) -> StompError:
    """SEND or SUBSCRIBE without a ``destination``."""
    return StompError("Missing destination", f"\"{command}\" must include a 'destination' header\n")


def access_refused(destination: str, user: str) -> StompError:
    """The access rules do not let ``user`` do this."""
    text = f"ACCESS_REFUSED - access to destination '{destination}' refused for user '{user}'"
    return StompError("access_refused", text, fatal=True)


def blank_destination() -> StompError:
    """An empty ``destination``."""
    return StompError("Invalid destination", "Destination cannot be blank")


def unknown_destination(destination: str) -> StompError:
    """A destination of no known type."""
    types = ", ".join(DESTINATION_TYPES)
    return StompError(
        "Unknown destination",
        f"'{destination}' is not a valid destination.\nValid destination types are: {types}.\n",
    )


def no_app_route(destination: str) -> StompError:
    """A SEND to an application destination that no configured route matches."""
    return StompError("Unknown destination", f"'{destination}' is not a valid destination.\nNo app route matches it.\n")


def invalid_destination(rest: str, kind: str) -> StompError:
    """A destination of a known type whose ``rest`` (leading slash included) does not fit the type ``kind``."""
    return StompError("Invalid destination", f"'{rest}' is not a valid {kind} destination\n")


def not_valid_for(destination: str, command: str) -> StompError:
    """A destination that this command cannot use."""
    return StompError("Invalid destination", f"'{destination}' is not a valid destination for '{command}'\n")


def message_id_not_allowed() -> StompError:
    """``message-id`` on a SEND; it is the server's to give."""
    return StompError("Invalid header", "'message-id' is not allowed on 'SEND'.\n")


def not_json_object(detail: str) -> StompError:
    """A body that an application route cannot stamp."""
    return StompError("Invalid body", f"The body must be a JSON object: {detail}\n")


# Subscriptions


def durable_needs_id() -> StompError:
    """``durable`` or ``persistent`` on a SUBSCRIBE or UNSUBSCRIBE without ``id``."""
    return StompError("Missing Header", "Header 'id' is required for durable subscriptions")


def duplicate_subscription(tag: str) -> StompError:
    """A SUBSCRIBE under an identifier that is in use; ``tag`` is the consumer tag made of it."""
    return StompError(
        "Duplicated subscription identifier", f"A subscription identified by '{tag}' already exists.", fatal=True
    )


def no_subscription(*, id: str | None = None, destination: str | None = None) -> StompError:
    """UNSUBSCRIBE of something that was never subscribed, named by ``id`` or else by ``destination``."""
    subscription = f"destination='{destination}'" if id is None else f"id='{id}'"
    return StompError(
        "No subscription found",
        f'UNSUBSCRIBE must refer to an existing subscription.\nSubscription to "{subscription}" not found.\n',
    )


def missing_destination_or_id() -> StompError:
    """UNSUBSCRIBE that names nothing."""
    return StompError("Missing destination or id", "UNSUBSCRIBE must include a 'destination' or 'id' header")


def invalid_unsubscribe_id() -> StompError:
    """UNSUBSCRIBE of a temporary queue, which lives as long as its session."""
    return StompError("Invalid id", "UNSUBSCRIBE 'id' may not start with /temp-queue/\n")


def server_cancelled(subscription: str, description: str) -> StompError:
    """The broker ended a subscription, such as by the deletion of its queue; the session goes on.

    ``subscription`` is its id, or its destination where it has none; ``description`` is ``id='...'`` or the like.
    """
    return StompError(
        "Server cancelled subscription",
        f'The server has canceled a subscription.\nNo more messages will be delivered for "{description}".\n',
        headers=(("subscription", subscription),),
    )


# ACK and NACK


def missing_ack_header(command: str, header: str) -> StompError:
    """ACK or NACK without the header that names the message: ``id`` in 1.2, ``message-id`` before."""
    return StompError("Missing header", f'"{command}" must include the "{header}" header\n')


def invalid_ack_header(command: str, header: str) -> StompError:
    """ACK or NACK of something that was never a message's identifier."""
    return StompError("Invalid header", f'"{command}" must include a valid "{header}" header\n')


def subscription_not_found(ack_id: str) -> StompError:
    """ACK or NACK of a message whose subscription has ended."""
    return StompError("Subscription not found", f'Message with id "{ack_id}" has no subscription')


def unknown_delivery_tag(tag: str) -> StompError:
    """ACK or NACK of a message that is acknowledged already, or never had to be."""
    return StompError("precondition_failed", f"PRECONDITION_FAILED - unknown delivery tag {tag}", fatal=True)


# Transactions


def missing_transaction(command: str) -> StompError:
    """BEGIN, COMMIT or ABORT without ``transaction``."""
    return StompError("Missing transaction", f"\"{command}\" must include a 'transaction' header\n")


def bad_transaction(transaction: str) -> StompError:
    """A transaction that was not begun. It is shown as Erlang writes a string."""
    return StompError("Bad transaction", f'Invalid transaction identifier: "{transaction.translate(_ERLANG)}"\n')


def too_many_transactions(limit: int) -> StompError:
    """A BEGIN beyond ``limit`` open transactions."""
    return StompError("Transaction limit exceeded", f"No more than {limit} transactions may be open.\n")


def transaction_too_large(limit: int, unit: str) -> StompError:
    """One more frame than an open transaction may hold; ``unit`` is what ``limit`` counts."""
    return StompError("Transaction too large", f"No more than {limit} {unit} may wait for COMMIT.\n")


# The broker's side


def broker_error(code: str, text: str, fatal: bool) -> StompError:
    """What the broker refused: ``code`` is its lower-case AMQP name, ``text`` its own words."""
    return StompError(code, text, fatal=fatal)


def broker_unavailable(detail: str) -> StompError:
    """The broker is out of reach for longer than a frame may wait."""
    return StompError("Broker unavailable", f"{detail}\n")


def message_rejected(detail: str) -> StompError:
    """The broker did not take a message: it is not in any queue, and the session goes on."""
    return StompError("Message rejected", f"{detail}\n")


# The client's pace


def slow_consumer(detail: str) -> StompError:
    """The client does not read what it subscribed to."""
    return StompError("Slow consumer", f"{detail}\n", fatal=True)


def too_many_unacked(limit: int) -> StompError:
    """More unacknowledged messages than a session may hold."""
    return StompError(
        "Too many unacknowledged messages", f"No more than {limit} messages may be unacknowledged.\n", fatal=True
    )


def too_fast(detail: str) -> StompError:
    """The client keeps sending faster than it may."""
    return StompError("Rate limit exceeded", f"{detail}\n", fatal=True)


# Idempotence


def taken_over(client_id: str) -> StompError:
    """A newer session has connected under the same ``client-id``."""
    return StompError("Session taken over", f"A newer session connected as '{client_id}'.\n", fatal=True)


def bad_client_id(limit: int) -> StompError:
    """A ``client-id`` that is empty or too long; ``limit`` counts bytes."""
    return StompError("Bad CONNECT", f"'client-id' must have 1 to {limit} bytes.\n")


def bad_idempotency_key(limit: int) -> StompError:
    """An ``idempotency-key`` that is empty or too long; ``limit`` counts bytes."""
    return StompError("Invalid header", f"'idempotency-key' must have 1 to {limit} bytes.\n")


def idempotency_mismatch() -> StompError:
    """An ``idempotency-key`` that came with another body before."""
    return StompError("Idempotency key reused", "The idempotency-key was used for another message.\n")


def idempotency_in_flight() -> StompError:
    """Another attempt to send the same message has not ended in time."""
    return StompError("Idempotency key in flight", "The message with this idempotency-key is still being sent.\n")


def store_unavailable() -> StompError:
    """The store that tells what was delivered and sent is out of reach."""
    return StompError("Store unavailable", "The deduplication store is out of reach; try again later.\n")
