"""What an operator sees from outside: counts that agree with the trail, and one trace an intent."""

import hashlib

from prometheus_client.parser import text_string_to_metric_families

from schemas import topics
from schemas.records import Phase, Verdict
from tests.core.test_barrier import a_decision, a_plan
from tests.house import BOTS, House, Process, until
from tests.watching.conftest import Collector


async def counted(process: Process) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await process.health("/metrics")
    assert answer is not None
    assert answer.status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def of(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return sum(value for (each, said), value in found.items() if each == name and labels.items() <= dict(said).items())


async def test_counts_agree_with_the_trail_and_a_trace_follows_an_intent(realm: House, collector: Collector) -> None:
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    own, given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c"
    [plain, traced] = realm.intents(2, BOTS[0])
    traced = traced.model_copy(update={"context": traced.context.model_copy(update={"traceparent": own})})
    async with realm.run("intake", **told) as intake, realm.run("core", **told) as core:
        await intake.ready()
        await core.ready()
        await realm.ask([plain, traced])
        row = await realm.until_row(traced, lambda row: row.phase is Phase.PLANNING)
        await realm.say(topics.REPORTS, a_plan(row, traced), by="s3", key=traced.id)
        row = await realm.until_row(traced, lambda row: row.phase is Phase.PENDING)
        await realm.say(topics.DECISIONS, a_decision(row, Verdict.APPROVE, "ada"), by="api")
        denied = await realm.say(topics.DECISIONS, a_decision(row, Verdict.DENY, "dan"), by="api")
        await realm.decided(topics.DECISIONS, denied)

        inside, heard = await counted(core), await counted(intake)
        trail = await realm.trail()
        for event in {each.event for each in trail}:
            due = sum(each.event == event for each in trail)
            assert of(inside, "keyturn_core_inputs_total", event=event) == due, event
        assert of(inside, "keyturn_core_decisions_total", verdict="approve", counted="no") == 1
        assert of(inside, "keyturn_core_decisions_total", verdict="deny", counted="yes") == 1
        assert of(inside, "keyturn_core_refusals_total", refusal="self_approval") == 1
        assert of(inside, "keyturn_core_transaction_seconds_count") > 0
        assert of(inside, "keyturn_core_lag_records") == 0
        assert of(inside, "keyturn_core_rows", phase="planning") == 1
        assert of(inside, "keyturn_core_rows", phase="denied") == 1
        assert of(heard, "keyturn_intake_answers_total", answer="require_approval") == 2
        assert of(heard, "keyturn_intake_batch_seconds_count") > 0

        async def all_there() -> bool:
            return len(collector.of(given)) >= 5

        await until(all_there)
    spans = collector.of(given)
    assert {(service, span.name) for service, span in spans} == {
        ("keyturn-intake", "intake"),
        ("keyturn-core", "core intent.classified"),
        ("keyturn-core", "core plan.reported"),
        ("keyturn-core", "core decision.recorded"),
    }
    assert {span.parent_span_id.hex() for _, span in spans} == {"b7ad6b7169203331"}
    decided = [span.status.message for _, span in spans if span.name == "core decision.recorded"]
    assert decided == ["self_approval", ""]
    # An agent that gave no trace still has one, and every role finds the same.
    found = collector.of(hashlib.sha256(plain.id.encode()).digest()[:16].hex())
    assert {service for service, _ in found} == {"keyturn-intake", "keyturn-core"}
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for _, span in found)
