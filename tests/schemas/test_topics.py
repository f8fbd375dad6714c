import pytest

from schemas import topics
from schemas.topics import TOPICS, Names

NAMES = Names("acme.")


def test_a_topic_of_each_executor_is_there_once_for_each() -> None:
    found = list(NAMES.all(("s3", "iam")))
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names) == len(TOPICS) + sum(topic.is_per_executor for topic in TOPICS)
    assert {name: executor for name, topic, executor in found if topic is topics.APPROVED} == {
        "acme.approved.s3": "s3",
        "acme.approved.iam": "iam",
    }


def test_there_is_none_without_its_executor_and_none_of_an_executor_that_has_none() -> None:
    with pytest.raises(ValueError, match="name the executor exactly when"):
        NAMES.of(topics.APPROVED)
    with pytest.raises(ValueError, match="name the executor exactly when"):
        NAMES.of(topics.AUDIT, "s3")


def test_a_name_reads_the_same_in_every_installation() -> None:
    assert NAMES.plain("acme.audit") == Names("keyturn.").plain("keyturn.audit") == "audit"
