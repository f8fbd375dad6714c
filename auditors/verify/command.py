"""`python -m auditors.verify BUNDLE --root-key …`: 0 clean, 6 a fault, 1 nothing that can be checked, 2 usage."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .chains import KEY
from .check import Head
from .files import Bundle, BundleError, spooled, verify
from .findings import Report
from .lines import LineError
from .shapes import DIGEST
from .signatures import RootKeyError

CLEAN: Final = 0
UNREADABLE: Final = 1
FAULTY: Final = 6


def main(arguments: Sequence[str]) -> int:
    """Run once; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="verify",
        description="Checks a bundle of a Keyturn trail. Exit codes: 0 clean, 6 a fault, 1 nothing to check.",
    )
    parser.add_argument("bundle", help="folder or .jsonl file that `keyturn audit export` wrote; - reads it from stdin")
    parser.add_argument("--root-key", action="append", required=True, help="public root key, base64; got out of band")
    parser.add_argument("--realm", help="the installation it must be of; otherwise learnt from the trail")
    parser.add_argument(
        "--head", action="append", default=[], metavar="CHAIN/SEQ:DIGEST", help="a head remembered from the last check"
    )
    parser.add_argument("--json", action="store_true", help="the report as one JSON value")
    given = parser.parse_args(arguments)
    try:
        heads = [head(text) for text in given.head]
        with tempfile.TemporaryDirectory() as folder:
            bundle = spooled(sys.stdin.buffer, Path(folder)) if given.bundle == "-" else Bundle(Path(given.bundle))
            report = verify(bundle, given.root_key, realm=given.realm, heads=heads)
    except (BundleError, RootKeyError, LineError) as exc:
        sys.stderr.write(f"verify: {exc}\n")
        return UNREADABLE
    sys.stdout.write((json.dumps(report.to_json()) if given.json else shown(report)) + "\n")
    return CLEAN if report.is_clean else FAULTY


def head(text: str) -> Head:
    """A remembered head: `core-0/17:<sha256>`."""
    place, _, digest = text.partition(":")
    match = KEY.fullmatch(place)
    if match is None or DIGEST.fullmatch(digest) is None:
        raise LineError(f"{text!r}: a head is CHAIN/SEQ:DIGEST, as the report prints it")
    return Head(match[1], int(match[2]), digest)


def shown(report: Report) -> str:
    """The report as a page of text."""
    lines = [f"realm {report.realm}: {report.records} records in {len(report.heads)} chains"]
    lines += [f"head {chain}/{seq}:{digest}" for chain, (seq, digest) in sorted(report.heads.items())]
    for name, counts in (
        ("intents", report.phases),
        ("decisions that counted", report.decisions),
        ("refusals", report.refusals),
        ("versions", report.versions),
    ):
        lines.append(f"{name}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items())) or 'none'}")
    lines.append(f"grants: {report.grants}")
    if report.inputs_compared or report.inputs_expired:
        lines.append(
            f"inputs: {report.inputs_compared} compared with their topics, {report.inputs_expired} expired there"
        )
    lines += [f"note: {printable(note)}" for note in report.notes]
    lines += [f"FAULT {printable(str(fault))}" for fault in report.faults]
    if report.faults_found > len(report.faults):
        lines.append(f"… and {report.faults_found - len(report.faults)} more faults")
    lines.append("clean" if report.is_clean else f"{report.faults_found} faults")
    return "\n".join(lines)


def printable(text: str) -> str:
    """Text from a trail, which may be anybody's: nothing in it steers a terminal."""
    return "".join(char if char.isprintable() else f"\\u{{{ord(char):04x}}}" for char in text)
