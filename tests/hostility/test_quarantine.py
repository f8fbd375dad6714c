"""An operator finds out what was set aside and why, and puts it back once it can be read."""

import dataclasses
import json

from schemas import topics
from schemas.records import Phase, Redrive, Refusal
from schemas.snapshots import Agent
from tests.broker.builders import key
from tests.hostility.commands import keyturn
from tests.house import House, bot_of, enact
from tests.intake.answers import answered

WHY = "its key was listed too late"


async def test_what_an_unlisted_key_signed_is_put_back_once_the_key_is_listed(realm: House) -> None:
    late = next(name for name in (f"late{number}" for number in range(99)) if _is_on_first(name))
    [intent] = realm.intents(1, late)
    nasty = b'\x1b[2J{"a":1}\r\n'
    async with realm.run("intake") as intake, realm.run("core") as core:
        await intake.ready()
        await core.ready()
        [source] = await realm.ask([intent])
        broken = await realm.say_raw(
            topics.INTENTS, 0, dataclasses.replace(realm.sealed(intent, intent.id, late), value=nasty, key=b"\x07bell")
        )
        await answered(realm, [source, broken])
        name = f"intents/0/{source.offset}"

        listed = await keyturn(realm, "quarantine", "ls")
        assert listed.code == 0
        [line] = [line for line in listed.out.splitlines() if f" {name} " in line]
        assert "bad_signature" in line
        members = json.loads((await keyturn(realm, "quarantine", "ls", "--json")).out)
        assert {each["id"] for each in members} == {name, f"intents/0/{broken.offset}"}

        shown = await keyturn(realm, "quarantine", "show", f"intents/0/{broken.offset}")
        assert shown.code == 0
        assert all(" " <= char <= "~" or char == "\n" for char in shown.out)
        assert "1b 5b 32 4a 7b" in shown.out
        assert "malformed" in shown.out
        assert "\\u{7}bell" in shown.out

        # Not while it would only be set aside again.
        dry = await keyturn(realm, "quarantine", "redrive", name, "--reason", WHY)
        assert dry.code == 1
        assert "intake would set it aside again: bad_signature" in dry.out
        before = realm.world.directory
        assert before is not None
        changed = {
            "version": before.version + 1,
            "previous": dict(realm.world.digests)[before.TYPE],
            "agents": (*before.agents, Agent(id=late, owners=("ada",))),
            "keys": (*before.keys, key(late, "agent", late)),
        }
        await enact(realm, before.model_copy(update=changed))
        assert not [record for record in await realm.trail() if record.event == "input.redriven"]

        dry = await keyturn(realm, "quarantine", "redrive", name, "--reason", WHY, "--dry-run")
        assert (dry.code, dry.out.strip()) == (0, f"{name} would pass: intake would classify {intent.id}")
        assert await realm.row(intent) is None
        done = await keyturn(realm, "quarantine", "redrive", name, "--reason", WHY)
        assert done.code == 0
        assert f"{name} is on the log again, at intents/0/" in done.out
        await realm.until_row(intent, lambda row: row.phase is Phase.PLANNING)
        assert await intake.stop() == 0
        assert await core.stop() == 0

    [record] = [record for record in await realm.trail() if record.event == "input.redriven"]
    assert (record.refusal, record.reason) == (None, WHY)
    assert record.statement is not None
    assert record.statement.read(Redrive).source == source
    key_of_operator = realm.world.authority.key(record.statement.keyid)
    assert key_of_operator is not None
    assert key_of_operator.role == "operator"
    checked = await keyturn(realm, "audit", "verify")
    assert checked.code == 0, checked.out


async def test_what_the_core_set_aside_is_tried_with_the_row_it_is_about(realm: House) -> None:
    [intent] = realm.intents(1, bot_of(0))
    sealed = realm.sealed(realm.classified(intent), intent.id, "intake")
    async with realm.run("core") as core:
        await core.ready()
        # Right, but for its key: whoever puts it back as it was gets the same answer.
        odd = await realm.say_raw(topics.CLASSIFIED, 0, dataclasses.replace(sealed, key=b"another"))
        await realm.decided(topics.CLASSIFIED, odd)
        said = await keyturn(realm, "quarantine", "redrive", f"classified/0/{odd.offset}", "--reason", WHY)
        assert said.code == 1
        assert "the core would refuse it: wrong_partition" in said.out
        assert await core.stop() == 0


async def test_what_only_one_role_may_write_and_what_is_not_there_is_refused_by_name(realm: House) -> None:
    odd = await realm.say_raw(topics.POLICIES, 0, realm.sealed(realm.intents(1)[0], "9", "root"))
    async with realm.run("core") as core:
        await core.ready()
        await realm.decided(topics.POLICIES, odd)
        assert await core.stop() == 0
    said = await keyturn(realm, "quarantine", "redrive", f"policies/0/{odd.offset}", "--reason", WHY)
    assert "cannot be redriven" in said.error
    assert "is not in quarantine" in (await keyturn(realm, "quarantine", "show", "intents/0/99999")).error
    assert Refusal.MALFORMED in {each.refusal for each in await realm.quarantined()}


def _is_on_first(name: str) -> bool:
    from schemas.partition import partition_of
    from tests.house import PARTITIONS

    return partition_of(name, PARTITIONS) == 0
