"""One mutant on trial, in a process of its own: `python -m tests.laws.trial NAME`. Prints one line of JSON."""

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator

from tests.laws.guards import MODULES, TESTS, UNREACHABLE, guards_of
from tests.laws.mutants import MUTANTS, Mutant
from tests.laws.mutating import mutate

MOST_HISTORIES = 420
THEMES = 14


def all_mutants() -> dict[str, Mutant]:
    """Those written by hand, and one for each guard."""
    found = {mutant.name: mutant for mutant in MUTANTS}
    for module in MODULES:
        for guard in guards_of(module):
            name = f"{module}.{guard.name}"
            if name in UNREACHABLE:
                continue
            found[name] = Mutant(name, 0, (guard.edit,), tests=TESTS[module])
    return found


def seeds_of(mutant: Mutant) -> Iterator[int]:
    """The themes that lean towards it first, then all."""
    turns = range(MOST_HISTORIES // THEMES)
    yield from (turn * THEMES + theme for turn in turns for theme in mutant.themes)
    yield from (turn * THEMES + theme for turn in turns for theme in range(THEMES) if theme not in mutant.themes)


def by_simulation(mutant: Mutant) -> dict[str, object]:
    """Told until a law is broken."""
    from tests.simulation import primitives
    from tests.simulation.run import tell

    primitives.install()
    for count, seed in enumerate(seeds_of(mutant), 1):
        tally, _ = tell(seed)
        # That something never ends is found too, but a law must be broken.
        broken = [text for text in tally.wrong.get(seed, ()) if text.startswith("law ")]
        if broken:
            return {"by": f"seed {seed}", "histories": count, "what": broken[0]}
    return {"by": None, "histories": count}


def by_tests(mutant: Mutant) -> dict[str, object]:
    """The first test that fails."""
    import pytest

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-rfE", *mutant.tests])
    if code not in {0, 1}:
        return {"by": None, "what": f"pytest ended with {code}: {said.getvalue()[-500:]}"}
    failed = [line for line in said.getvalue().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {"by": failed[0].split(" ")[1] if code else None, "what": failed[0][:200] if failed else ""}


def main() -> int:
    """The trial of the mutant of this name."""
    mutant = all_mutants()[sys.argv[1]]
    mutate(mutant.edits)
    begun = time.process_time()
    found = by_tests(mutant) if mutant.tests else by_simulation(mutant)
    found["seconds"] = round(time.process_time() - begun, 1)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if found["by"] else 1


if __name__ == "__main__":
    sys.exit(main())
