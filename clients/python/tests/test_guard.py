"""A guarded function runs on nothing but the right outcome, and on nothing but what was approved."""

import asyncio
import inspect
from typing import get_type_hints

import pytest

import keyturn
from keyturn import testing
from keyturn.testing import Keyturn

BUCKET = ("bucket", "acme-customers")
EVERY_NO = [
    testing.Deny("no"),
    testing.Revoke(),
    testing.Expire(),
    testing.Fail(),
    testing.Refuse(),
    testing.Lose(),
]


def test_it_runs_on_success_with_the_outcome_and_its_arguments() -> None:
    world = Keyturn()
    world.approves("Copied 3 objects.")
    with world.connect("reporter") as client:

        @keyturn.guard(
            client,
            action="s3.export",
            resource=lambda source: ("bucket", source),
            reason=lambda source, destination, max_objects: f"{source} to {destination}, {max_objects} at most",
            fixed={"max_objects": 10},
        )
        def export(done: keyturn.Succeeded, source: str, destination: str = "acme-exports") -> str:
            """Export."""
            return f"{source} {destination} {done.receipt.summary}"

        assert export("acme-customers") == "acme-customers acme-exports Copied 3 objects."

    (asked,) = world.intents
    assert asked.properties == {"source": "acme-customers", "destination": "acme-exports", "max_objects": 10}
    assert asked.resource == BUCKET
    assert asked.context["reason"] == "acme-customers to acme-exports, 10 at most"


@pytest.mark.parametrize("answer", EVERY_NO, ids=lambda answer: type(answer).__name__)
def test_it_does_not_run_on_anything_else(answer: testing.Answer) -> None:
    world = Keyturn()
    world.decides(lambda _: answer)
    ran: list[str] = []
    with world.connect("reporter") as client:

        @keyturn.guard(client, action="s3.export", resource=BUCKET, reason="why")
        def export(_done: keyturn.Succeeded, source: str) -> None:
            ran.append(source)

        with pytest.raises(keyturn.NotDoneError) as caught:
            export("eu/")

    assert ran == []
    assert not isinstance(caught.value.outcome, keyturn.Succeeded)


def test_otherwise_makes_an_answer_of_a_no() -> None:
    world = Keyturn()
    world.denies("no contract")
    with world.connect("reporter") as client:

        @keyturn.guard(client, action="s3.export", resource=BUCKET, reason="why", otherwise=str)
        def export(done: keyturn.Succeeded, source: str) -> str:
            return f"{source}: {done}"

        assert export("eu/") == "denied, nothing was done: no contract"


def test_what_is_changed_while_people_think_changes_nothing() -> None:
    world = Keyturn()
    prefixes = ["eu/"]

    def tampering(_: testing.Asked) -> testing.Answer:
        prefixes.append("us/")
        return testing.Approve()

    world.decides(tampering)
    with world.connect("reporter") as client:

        @keyturn.guard(client, action="s3.export", resource=BUCKET, reason="why")
        def export(_done: keyturn.Succeeded, prefixes: list[str]) -> list[str]:
            return prefixes

        assert export(prefixes) == ["eu/"]
    assert world.intents[0].properties == {"prefixes": ["eu/"]}


def test_what_people_cannot_be_shown_is_no_argument_unless_it_is_named() -> None:
    world = Keyturn()
    world.approves()
    session = object()
    with world.connect("reporter") as client:

        @keyturn.guard(client, action="s3.export", resource=BUCKET, reason="why")
        def strict(_done: keyturn.Succeeded, session: object) -> None: ...

        @keyturn.guard(client, action="s3.export", resource=BUCKET, reason="why", unbound=("session",))
        def lenient(_done: keyturn.Succeeded, prefix: str | None, session: object) -> object:
            return prefix, session

        with pytest.raises(keyturn.ParametersError, match="/action/properties/session"):
            strict(session)
        assert world.intents == ()
        assert lenient(None, session=session) == (None, session)
    assert world.intents[0].properties == {}


def test_a_call_that_does_not_fit_is_pythons_own_error_and_asks_nobody() -> None:
    world = Keyturn()
    with world.connect("reporter") as client:

        @keyturn.guard(client, action="s3.export", resource=BUCKET, reason="why")
        def export(_done: keyturn.Succeeded, source: str) -> None: ...

        with pytest.raises(TypeError):
            export()  # type: ignore[call-arg]
    assert world.intents == ()


def test_a_framework_that_reads_the_signature_does_not_see_the_outcome() -> None:
    with Keyturn().connect("reporter") as client:

        @keyturn.guard(client, action="s3.export", resource=BUCKET, reason="why")
        def export(done: keyturn.Succeeded, source: str) -> str:
            """Export a prefix."""
            return f"{done}{source}"

    assert list(inspect.signature(export).parameters) == ["source"]
    assert get_type_hints(export) == {"source": str, "return": str}
    assert (export.__name__, export.__doc__) == ("export", "Export a prefix.")


def test_what_cannot_be_guarded_is_refused_when_it_is_decorated() -> None:
    world = Keyturn()
    with world.connect("reporter") as client:
        guard = keyturn.guard(client, action="s3.export", resource=lambda bucket: ("bucket", bucket), reason="why")

        def nothing() -> None: ...
        def anything(_done: keyturn.Succeeded, **bucket: str) -> None: ...
        def another(_done: keyturn.Succeeded, source: str) -> None: ...
        async def waiting(_done: keyturn.Succeeded, bucket: str) -> None: ...

        for function, says in ((nothing, "outcome"), (anything, "name"), (another, "bucket"), (waiting, "async")):
            with pytest.raises(keyturn.ConfigurationError, match=says):
                guard(function)  # type: ignore[arg-type]
        with pytest.raises(keyturn.ConfigurationError, match="unbound"):
            keyturn.guard(client, action="s3.export", resource=BUCKET, reason="why", unbound=("typo",))(another)


async def test_an_async_function_is_guarded_without_blocking() -> None:
    world = Keyturn()
    async with world.connect_async("reporter") as client:

        @keyturn.guard(client, action="s3.export", resource=BUCKET, reason="why", withdraw_on_cancel=True)
        async def export(done: keyturn.Succeeded, source: str) -> str:
            await asyncio.sleep(0)
            return f"{source}: {done}"

        async with asyncio.timeout(5):
            first = asyncio.create_task(export("eu/"))
            while not world.intents:  # noqa: ASYNC110 - the memory sets no event of ours
                await asyncio.sleep(0)
            world.answer(world.intents[0].id, testing.Approve("copied"))
            assert await first == "eu/: done: copied"

            second = asyncio.create_task(export("us/"))
            while len(world.intents) == 1:  # noqa: ASYNC110
                await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
        assert world.history(world.intents[1].id)[-1] is keyturn.Phase.WITHDRAWN
