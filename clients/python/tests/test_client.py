"""What an author holds, against a Keyturn in memory: outcomes, waiting, cancelling, coming back."""

import asyncio
import json
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_never

import pytest

import keyturn
from keyturn import Phase, ids, intents, testing
from keyturn.blocking import Intent
from keyturn.outcomes import Status
from keyturn.testing import Keyturn
from keyturn.transport import Transport

BUCKET = ("bucket", "acme-customers")
PLACE = {"source": "eu/2026/", "destination": "acme-exports"}
REASON = "the partner asked for it"
NOW = datetime.fromtimestamp(testing.NOON / 1000, UTC)
WITHIN = 5.0
S3 = Path(__file__).resolve().parents[3] / "executors" / "s3" / "manifest.json"


def described(outcome: keyturn.Outcome) -> str:
    """Exhaustive: a type checker says so, and `assert_never` at run time."""
    match outcome:
        case keyturn.Succeeded(receipt):
            return receipt.summary
        case keyturn.Failed(reason) | keyturn.Denied(reason) | keyturn.Revoked(reason) | keyturn.Withdrawn(reason):
            return f"{type(outcome).__name__}: {reason}"
        case keyturn.Refused(refusal):
            return refusal
        case keyturn.Expired() | keyturn.Unknown():
            return type(outcome).__name__
        case _:
            assert_never(outcome)


@pytest.mark.parametrize(
    ("answer", "is_described"),
    [
        (testing.Approve("Copied 3 objects."), "Copied 3 objects."),
        (testing.Deny("no contract"), "Denied: no contract"),
        (testing.Revoke("second thoughts"), "Revoked: second thoughts"),
        (testing.Expire(), "Expired"),
        (testing.Fail("access denied"), "Failed: access denied"),
        (testing.Refuse("no such bucket"), "bad_parameters"),
        (testing.Lose(), "Unknown"),
    ],
)
def test_every_end_is_a_value(answer: testing.Answer, is_described: str) -> None:
    world = Keyturn()
    world.decides(lambda _: answer)
    with world.connect("reporter") as client:
        outcome = client.ask("s3.export", BUCKET, PLACE, reason=REASON)

    assert described(outcome) == is_described
    assert outcome.intent == world.intents[0].id
    assert str(outcome)


def test_the_signed_bytes_are_what_was_asked_for() -> None:
    world = Keyturn()
    with world.connect("reporter") as client:
        client.submit("s3.export", BUCKET, PLACE, reason="e\u0301t\u00e9", ttl=timedelta(minutes=2), ticket="AUD-1")

    (asked,) = world.intents
    assert json.loads(asked.value) == {
        "id": asked.id,
        "subject": {"type": "agent", "id": "reporter"},
        "action": {"name": "s3.export", "properties": PLACE},
        "resource": {"type": "bucket", "id": "acme-customers"},
        "context": {"reason": "\u00e9t\u00e9", "ticket": "AUD-1"},
        "ttl": 120,
    }


def test_what_can_never_be_an_intent_is_refused_at_once_with_its_places() -> None:
    world = Keyturn()
    with world.connect("reporter") as client, pytest.raises(keyturn.ParametersError) as caught:
        client.submit("s3.export", ("bucket", "a\u202eb"), {"share": 0.5, "a b": 1}, reason="x" * 2001, ttl=0)  # type: ignore[dict-item]

    assert {error.path for error in caught.value.errors} == {
        "/resource/id",
        "/action/properties/share",
        "/action/properties/a b",
        "/context/reason",
        "/ttl",
    }
    assert world.intents == ()


def test_more_than_an_intent_can_hold_is_refused_at_once() -> None:
    with Keyturn().connect("reporter") as client, pytest.raises(keyturn.ParametersError, match="at most 16384"):
        client.submit("s3.export", BUCKET, {"note": "x" * 20_000}, reason=REASON)


def test_parameters_that_do_not_fit_the_manifest_are_refused_by_place() -> None:
    world = Keyturn.of_manifests(S3)
    with world.connect("reporter") as client:
        outcome = client.ask("s3.export", BUCKET, {"source_bucket": "A"}, reason=REASON)
        unknown = client.ask("s3.delete_all", BUCKET, {}, reason=REASON)

    assert isinstance(outcome, keyturn.Refused)
    assert outcome.refusal == "bad_parameters"
    assert "/action/properties/source_bucket" in {error.path for error in outcome.errors}
    assert isinstance(unknown, keyturn.Refused)
    assert unknown.refusal == "unknown_action"
    assert world.intents == ()


def test_events_tell_each_phase_and_end_with_the_end() -> None:
    world = Keyturn()
    world.approves()
    with world.connect("reporter") as client:
        phases = [status.phase for status in client.submit("s3.export", BUCKET, PLACE, reason=REASON).events()]

    assert phases == [Phase.PLANNING, Phase.PENDING, Phase.APPROVED, Phase.EXECUTING, Phase.SUCCEEDED]


def test_a_timeout_ends_the_waiting_and_not_the_intent() -> None:
    world = Keyturn()
    with world.connect("reporter") as client:
        intent = client.submit("s3.export", BUCKET, PLACE, reason=REASON)
        with pytest.raises(keyturn.StillOpenError, match="still pending") as caught:
            intent.wait(timeout=0.05)
        assert isinstance(caught.value, TimeoutError)

        world.answer(intent.id, testing.Approve())
        assert isinstance(intent.wait(WITHIN), keyturn.Succeeded)


def test_time_that_passes_expires_what_nobody_decided() -> None:
    world = Keyturn()
    with world.connect("reporter") as client:
        intent = client.submit("s3.export", BUCKET, PLACE, reason=REASON, ttl=60)
        world.advance(timedelta(seconds=59))
        assert intent.status().phase is Phase.PENDING
        world.advance(timedelta(seconds=2))

        assert isinstance(intent.wait(WITHIN), keyturn.Expired)


def test_an_unknown_end_is_told_at_once_or_waited_through() -> None:
    world = Keyturn()
    world.decides(lambda _: testing.Lose())
    with world.connect("reporter") as client:
        intent = client.submit("s3.export", BUCKET, PLACE, reason=REASON)
        assert isinstance(intent.wait(WITHIN), keyturn.Unknown)

        threading.Timer(0.05, world.answer, (intent.id, testing.Approve("found: it was done"))).start()
        outcome = intent.wait(WITHIN, until_known=True)
    assert outcome == keyturn.Succeeded(keyturn.Receipt("found: it was done"), intent=intent.id, at=testing.NOON)


def test_a_withdrawal_counts_before_the_end_and_changes_nothing_after_it() -> None:
    world = Keyturn()
    with world.connect("reporter") as client:
        intent = client.submit("s3.export", BUCKET, PLACE, reason=REASON)
        intent.withdraw("no longer needed")
        assert intent.wait(WITHIN) == keyturn.Withdrawn("no longer needed", intent=intent.id, at=testing.NOON)
        intent.withdraw()
        with pytest.raises(testing.ImpossibleError, match="can't become"):
            world.answer(intent.id, testing.Approve())


async def test_cancelling_the_waiting_takes_nothing_back() -> None:
    world = Keyturn()
    async with world.connect_async("reporter") as client:
        intent = await client.submit("s3.export", BUCKET, PLACE, reason=REASON)
        waiting = asyncio.create_task(intent.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert (await intent.status()).phase is Phase.PENDING


async def test_cancelling_the_waiting_withdraws_when_asked_to() -> None:
    world = Keyturn()
    async with world.connect_async("reporter") as client:
        intent = await client.submit("s3.export", BUCKET, PLACE, reason=REASON)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await intent.wait(withdraw_on_cancel=True)

        assert (await intent.status()).phase is Phase.WITHDRAWN


async def test_one_that_waits_does_not_disturb_another() -> None:
    world = Keyturn()
    async with world.connect_async("reporter") as client:
        intent = await client.submit("s3.export", BUCKET, PLACE, reason=REASON)
        impatient, patient = asyncio.create_task(intent.wait(0.01)), asyncio.create_task(intent.wait(WITHIN))
        with pytest.raises(keyturn.StillOpenError):
            await impatient
        world.answer(intent.id, testing.Approve())
        assert isinstance(await patient, keyturn.Succeeded)


async def test_the_blocking_client_works_inside_a_running_loop() -> None:
    world = Keyturn()
    world.approves()
    with world.connect("reporter") as client:
        assert isinstance(client.ask("s3.export", BUCKET, PLACE, reason=REASON), keyturn.Succeeded)


def test_the_blocking_client_is_shared_by_threads() -> None:
    world = Keyturn()
    world.approves()
    outcomes: list[keyturn.Outcome] = []
    with world.connect("reporter") as client:

        def ask() -> None:
            outcomes.append(client.ask("s3.export", BUCKET, PLACE, reason=REASON))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN)

    assert len({outcome.intent for outcome in outcomes}) == 8


def test_a_closed_client_says_so() -> None:
    client = Keyturn().connect("reporter")
    client.close()

    client.close()
    with pytest.raises(keyturn.ClosedError, match="closed"):
        client.submit("s3.export", BUCKET, PLACE, reason=REASON)


class Telling:
    """A transport that says whenever somebody has heard the first of an intent and now waits for more."""

    def __init__(self, inner: Transport, waits: Callable[[], object]) -> None:
        self._inner = inner
        self._waits = waits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def watch(self, intent_id: str) -> AsyncGenerator[Status, None]:
        async with aclosing(self._inner.watch(intent_id)) as watch:
            yield await anext(watch)
            # No await between this and the wait: whoever hears of it on this loop, or by it, comes after.
            self._waits()
            async for status in watch:
                yield status


@pytest.mark.parametrize("withdraws", [False, True])
def test_closing_ends_what_other_threads_wait_for_and_takes_nothing_back(withdraws: bool) -> None:
    world = Keyturn()
    world.waits()
    waiting = threading.Semaphore(0)
    inner = world.connect_async("reporter")
    inner.transport = Telling(inner.transport, waiting.release)
    client = keyturn.Client(inner)
    intents = [client.submit("s3.export", BUCKET, PLACE, reason=REASON) for _ in range(3)]
    ended: dict[str, keyturn.KeyturnError] = {}

    def wait(intent: Intent) -> None:
        try:
            intent.wait(withdraw_on_cancel=withdraws)
        except keyturn.KeyturnError as exc:
            ended[intent.id] = exc

    threads = [threading.Thread(target=wait, args=(intent,), daemon=True) for intent in intents]
    for thread in threads:
        thread.start()
    assert all(waiting.acquire(timeout=60) for _ in threads)
    client.close()
    for thread in threads:
        thread.join(60)

    assert {name: type(exc) for name, exc in ended.items()} == {each.id: keyturn.ClosedError for each in intents}
    assert all(exc.intent_id == name for name, exc in ended.items())
    assert all(Phase.WITHDRAWN not in world.history(intent.id) for intent in intents)


async def test_closing_ends_what_other_tasks_wait_for_with_the_id_to_go_on_with() -> None:
    world = Keyturn()
    world.waits()
    begun = asyncio.Event()
    client = world.connect_async("reporter")
    client.transport = Telling(client.transport, begun.set)
    await client.__aenter__()
    intent = await client.submit("s3.export", BUCKET, PLACE, reason=REASON)
    events = intent.events()
    await anext(events)
    assert not begun.is_set()
    waiting = asyncio.create_task(intent.wait(withdraw_on_cancel=True))
    await asyncio.wait_for(begun.wait(), 60)

    await client.aclose()

    with pytest.raises(keyturn.ClosedError, match="goes on without it") as caught:
        await asyncio.wait_for(waiting, 60)
    assert caught.value.intent_id == intent.id
    assert Phase.WITHDRAWN not in world.history(intent.id)
    with pytest.raises(keyturn.ClosedError):
        await anext(events)


# ---------------------------------------------------------------- coming back


def test_a_lost_answer_is_repaired_by_sending_the_same_again() -> None:
    world = Keyturn()
    world.approves()
    with world.connect("reporter") as client:
        world.loses_next_answer()
        with pytest.raises(keyturn.NoConnectionError) as caught:
            client.submit("s3.export", BUCKET, PLACE, reason=REASON, idempotency_key="order-7", since=NOW)
        again = client.submit("s3.export", BUCKET, PLACE, reason=REASON, idempotency_key="order-7", since=NOW)

        assert again.id == caught.value.intent_id
        assert isinstance(again.wait(WITHIN), keyturn.Succeeded)
    assert len(world.intents) == 1


def test_what_was_lost_without_a_key_can_be_sent_again_too() -> None:
    world = Keyturn()
    world.approves()
    with world.connect("reporter") as client:
        world.loses_next_answer()
        with pytest.raises(keyturn.NoConnectionError) as caught:
            client.ask("s3.export", BUCKET, PLACE, reason=REASON)
        intent = caught.value.intent
        assert isinstance(intent, Intent)
        intent.resend()

        assert isinstance(intent.wait(WITHIN), keyturn.Succeeded)
    assert [asked.id for asked in world.intents] == [intent.id]


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Whoever runs in the background of a shell was started with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_takes_back_when_asked_to_and_else_nothing() -> None:
    world = Keyturn()
    with world.connect("reporter") as client:
        for withdraws, phase in ((True, Phase.WITHDRAWN), (False, Phase.PENDING)):
            intent = client.submit("s3.export", BUCKET, PLACE, reason=REASON)
            threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                intent.wait(withdraw_on_cancel=withdraws)

            assert intent.status().phase is phase


def test_a_process_that_starts_anew_finds_its_intent_by_key_or_by_id() -> None:
    world = Keyturn()

    def ask(client: keyturn.Client) -> Intent:
        return client.submit("s3.export", BUCKET, PLACE, reason=REASON, idempotency_key="order-7", since=NOW)

    with world.connect("reporter") as before:
        intent_id = ask(before).id
    world.answer(intent_id, testing.Deny("no"))
    with world.connect("reporter") as after:
        assert ask(after).id == intent_id
        assert isinstance(after.intent(intent_id).wait(WITHIN), keyturn.Denied)
    assert len(world.intents) == 1


def test_another_body_under_the_same_key_is_another_intent() -> None:
    world = Keyturn()
    with world.connect("reporter") as client:
        first = client.submit("s3.export", BUCKET, PLACE, reason=REASON, idempotency_key="order-7", since=NOW)
        other = client.submit("s3.export", BUCKET, {}, reason=REASON, idempotency_key="order-7", since=NOW)

    assert first.id != other.id


def test_a_key_older_than_a_day_is_refused_and_names_the_intent_it_stood_for() -> None:
    world = Keyturn()
    with world.connect("reporter") as client:
        intent = client.submit("s3.export", BUCKET, PLACE, reason=REASON, idempotency_key="order-7", since=NOW)
        world.advance(timedelta(hours=25))

        with pytest.raises(keyturn.ParametersError, match=intent.id):
            client.submit("s3.export", BUCKET, PLACE, reason=REASON, idempotency_key="order-7", since=NOW)
        assert isinstance(client.intent(intent.id).wait(WITHIN), keyturn.Expired)


def test_a_key_needs_its_moment() -> None:
    with Keyturn().connect("reporter") as client:
        for more in ({"idempotency_key": "order-7"}, {"since": NOW}, {"idempotency_key": "a", "since": datetime.now()}):  # noqa: DTZ005
            with pytest.raises(keyturn.ParametersError, match="/since"):
                client.submit("s3.export", BUCKET, PLACE, reason=REASON, **more)  # type: ignore[arg-type]


def test_what_nobody_has_heard_of_is_said_to_be_unknown() -> None:
    with Keyturn().connect("reporter") as client:
        with pytest.raises(keyturn.UnknownIntentError, match="directory"):
            client.intent(ids.intent_id("reporter", testing.NOON, bytes(10))).status()
        with pytest.raises(keyturn.ParametersError):
            client.intent("../../admin")


def test_an_agent_without_a_key_asks_too() -> None:
    world = Keyturn()
    world.approves()
    with world.connect("reporter", has_key=False) as client:
        first = client.submit("s3.export", BUCKET, PLACE, reason=REASON, idempotency_key="order-7", since=NOW)
        again = client.submit("s3.export", BUCKET, PLACE, reason=REASON, idempotency_key="order-7", since=NOW)

        assert first.id == again.id
        assert isinstance(again.wait(WITHIN), keyturn.Succeeded)


# ---------------------------------------------------------------- the memory is strict


async def test_nobody_speaks_for_another_nor_hears_of_anothers() -> None:
    world = Keyturn()
    mallory = world.key("mallory")
    async with world.connect_async("reporter", key=mallory) as client:
        with pytest.raises(keyturn.NotAllowedError, match="may not speak for reporter"):
            await client.submit("s3.export", BUCKET, PLACE, reason=REASON)
    async with world.connect_async("reporter") as client, world.connect_async("mallory") as other:
        intent = await client.submit("s3.export", BUCKET, PLACE, reason=REASON)
        with pytest.raises(keyturn.UnknownIntentError):
            await other.intent(intent.id).status()


async def test_a_key_that_is_not_listed_and_another_realm_are_refused() -> None:
    world, staging = Keyturn(realm="production"), Keyturn(realm="staging")
    stranger = keyturn.Key.from_seed(bytes(32))
    async with world.connect_async("reporter", key=stranger) as client:
        with pytest.raises(keyturn.NotAllowedError, match="no listed key"):
            await client.submit("s3.export", BUCKET, PLACE, reason=REASON)
    async with world.connect_async("reporter") as client, staging.connect_async("reporter") as elsewhere:
        asked = elsewhere.author.ask(intents.Draft("s3.export", BUCKET, PLACE, REASON, 60), None, None)
        with pytest.raises(keyturn.NotAllowedError, match="production"):
            await client.transport.submit(asked, None)


async def test_another_body_under_one_id_is_a_conflict() -> None:
    world = Keyturn()
    async with world.connect_async("reporter") as client:
        intent = await client.submit("s3.export", BUCKET, PLACE, reason=REASON)
        members = intents.Draft("s3.export", BUCKET, {}, REASON, 60).members()
        value = intents.intent_bytes(intent.id, "reporter", members)
        other = intents.seal("intent", intent.id, value, world.key("reporter"), world.realm)

        submitted = await client.transport.submit(other, None)

    assert submitted.refused is not None
    assert submitted.refused.refusal == "conflict"


async def test_an_id_outside_its_window_is_refused() -> None:
    world = Keyturn()
    async with world.connect_async("reporter") as client:
        asked = client.author.ask(intents.Draft("s3.export", BUCKET, PLACE, REASON, 60), None, None)
        world.advance(timedelta(hours=25))

        submitted = await client.transport.submit(asked, None)

    assert submitted.refused is not None
    assert submitted.refused.refusal == "id_out_of_window"
    assert world.intents == ()


def test_ids_rise_also_when_the_clock_steps_back_a_little() -> None:
    clock = iter([5_000, 5_000, 4_990, 5_001])
    maker = ids.IdMaker("reporter", lambda: next(clock), bytes)
    made = [maker.next() for _ in range(4)]

    assert made == sorted(set(made))
    assert ids.split(made[2])[1] == 5_000
    jumping = iter([10**6, 0])
    far = ids.IdMaker("reporter", lambda: next(jumping), bytes)
    far.next()
    assert ids.split(far.next())[1] == 0  # a step of many minutes is a clock that was set right


def test_the_trace_is_passed_on_where_there_is_one() -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1)))
    world = Keyturn()
    with world.connect("reporter") as client, trace.use_span(span):
        client.submit("s3.export", BUCKET, PLACE, reason=REASON)
        client.submit("s3.export", BUCKET, PLACE, reason=REASON, idempotency_key="order-7", since=NOW)

    traced, keyed = world.intents
    assert traced.context["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert "traceparent" not in keyed.context
