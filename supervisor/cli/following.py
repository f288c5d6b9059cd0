"""Follows a job's output across its attempts.

Owns `logs -f`: stdout carries the worker's bytes alone, a new attempt and the job's end are told on
stderr. It ends when the job does, or when nobody is left to bring it on.
"""

import sys
import time
from dataclasses import replace

import click

from supervisor.cli.copying import copy_from, unfinished
from supervisor.cli.titles import title
from supervisor.journal import AttemptRecord
from supervisor.runner.alive import ATTENDED, runner_lives
from supervisor.views.chosen import Chosen
from supervisor.views.next_step import RUNNER_GONE, note
from supervisor.views.plain import printable

POLL_S = 0.2
GONE_POLLS = 5  # a runner that takes a job over is named in the journal a moment later


def follow(chosen: Chosen, number: int, offset: int, *, only: bool) -> None:
    """Copy what attempt `number` writes behind `offset`, then what the next ones write.

    `number` 0 waits for the first attempt; `only` ends with this one.
    """
    out = sys.stdout.buffer
    gone = 0
    while True:
        # The state is read before the file: what a finished job wrote is complete by then.
        record = chosen.journal.job(chosen.record.id) or chosen.record
        attempts = chosen.journal.attempts(record.id)
        offset = copy_from(chosen.folder.attempt(number).log, offset, out) if number else 0
        out.flush()
        later = [one for one in attempts if one.number > number]
        if only and _ended(attempts, number):
            return
        if later and not only:
            _aside(chosen, number, title(later[0]))
            number, offset = later[0].number, 0
            continue
        if record.state not in ATTENDED:
            why = f": {printable(record.why)}" if record.why else ""
            _aside(chosen, number, f"==> {record.id} is {record.state}{why} <==")
            return
        gone = 0 if runner_lives(record) else gone + 1
        if gone == GONE_POLLS:
            told = note(replace(chosen, record=record))
            _aside(chosen, number, f"==> {record.id}: {told or RUNNER_GONE} <==")
            if not chosen.submitted:  # else the daemon takes it up, when it is its turn
                return
        time.sleep(POLL_S)


def _ended(attempts: list[AttemptRecord], number: int) -> bool:
    return any(one.number == number and one.ended_s is not None for one in attempts)


def _aside(chosen: Chosen, number: int, line: str) -> None:
    """Tell something that is not the worker's, and keep lines of two attempts apart."""
    if number and unfinished(chosen.folder.attempt(number).log):
        click.echo()
    click.echo(line, err=True)
