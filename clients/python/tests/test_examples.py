"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest

import keyturn

MODULES = sorted(module.name for module in pkgutil.iter_modules(keyturn.__path__, "keyturn."))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run_as_printed(name: str) -> None:
    module = importlib.import_module(name)

    failed, _ = doctest.testmod(module, optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)

    assert failed == 0


def test_every_public_name_is_documented() -> None:
    for name in keyturn.__all__:
        named = getattr(keyturn, name)
        # The unions of outcomes are documented where they are defined.
        assert name in {"NotDone", "Outcome"} or named.__doc__, name
