"""Checks a Keyturn trail without trusting Keyturn: stdlib and `cryptography` only, no line shared with what it checks.

The folder can be copied out and run alone: `python -I verify BUNDLE --root-key …`. That is why modules in here import
one another relatively. Nothing but `files` and `command` touches the machine.

    files -> check -> chains -> lives -> judging, saying
                   -> inputs          -> world, people, signatures, shapes, canonical

`docs/audit.md` lists what is checked, by law, and what cannot be.
"""

from .check import Head, Verification
from .findings import CODES, Fault, Report
from .lines import Line, Unreadable

__all__ = ["CODES", "Fault", "Head", "Line", "Report", "Unreadable", "Verification"]
