"""Which plugin is run, and what it is told."""

import pytest

from executors import process
from executors.errors import PluginError
from executors.settings import ExecutorSettings, of_plugin
from streams.settings import SettingsError


def test_a_plugin_gets_its_own_settings_and_nobody_elses() -> None:
    environ = {
        "KEYTURN_S3_REGION": "eu-west-1",
        "KEYTURN_S3_READ_ROLE": "reader",
        "KEYTURN_KAFKA_PASSWORD": "secret",
        "KEYTURN_S3X_REGION": "other",
        "HOME": "/home",
    }
    assert of_plugin("s3", environ) == {"region": "eu-west-1", "read_role": "reader"}


@pytest.mark.parametrize("name", ["kafka", "key", "root", "executor", "admin", "realm"])
def test_a_plugin_whose_name_would_catch_other_settings_is_refused(name: str) -> None:
    with pytest.raises(PluginError):
        of_plugin(name, {"KEYTURN_KAFKA_PASSWORD": "secret"})


def test_settings_come_from_the_environment() -> None:
    own = ExecutorSettings.of({"KEYTURN_EXECUTOR_ACTS": "2", "KEYTURN_KAFKA": "localhost:1"})
    assert own.acts == 2
    assert own.stop_seconds == 10


@pytest.mark.parametrize(
    ("name", "text"),
    [("CLOCK_MS", "30001"), ("SKEW_MS", "999"), ("SKEW_MS", "0"), ("ACTS", "0"), ("ACTS", "many"), ("UNHEARD", "1")],
)
def test_no_setting_loosens_a_law_and_none_is_misspelt(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"KEYTURN_EXECUTOR_{name}"):
        ExecutorSettings.of({f"KEYTURN_EXECUTOR_{name}": text})


def test_an_installed_plugin_is_found_by_its_name() -> None:
    assert process.find("s3").manifest.executor == "s3"


def test_a_plugin_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(PluginError, match=r"installed: .*s3"):
        process.find("nothing")
