"""Follows a job's output across its attempts.

Owns `logs -f`: stdout carries the worker's bytes alone, a new attempt and the job's end are told on
stderr. It ends when the job does, or when nobody is left to bring it on.
"""

import sys
import time
from dataclasses import dataclass

import click

from supervisor.cli.copying import copy_from, unfinished
from supervisor.cli.remote_queue import Served
from supervisor.cli.titles import title
from supervisor.journal import AttemptRecord
from supervisor.runner.alive import runner_lives
from supervisor.views.chosen import Chosen
from supervisor.views.next_step import RUNNER_GONE
from supervisor.views.plain import printable

POLL_S = 0.2
GONE_POLLS = 5  # a runner that takes a job over is named in the journal a moment later


@dataclass(frozen=True, slots=True)
class Place:
    """Behind `offset` of attempt `number`; 0 waits for the first. `only`: of this one alone."""

    number: int
    offset: int
    only: bool = False


def follow(chosen: Chosen, served: Served, place: Place) -> None:
    """Copy what is printed behind a place, and by the next attempts, until the job is over."""
    out = sys.stdout.buffer
    number, offset, gone = place.number, place.offset, 0
    while True:
        # The state is read before the file: what a finished job wrote is complete by then.
        record = chosen.journal.job(chosen.record.id)
        if record is None:
            _aside(chosen, number, f"==> {chosen.record.id} was removed <==")
            return
        lives = runner_lives(record)
        if lives and chosen.submitted:
            served.has_runner()
            over = None
        else:
            over = served.over(record, submitted=chosen.submitted)
        attempts = chosen.journal.attempts(record.id)
        offset = copy_from(chosen.folder.attempt(number).log, offset, out) if number else 0
        out.flush()
        later = [one for one in attempts if one.number > number]
        if place.only and _ended(attempts, number):
            return
        if later and not place.only:
            _aside(chosen, number, title(later[0]))
            number, offset = later[0].number, 0
            continue
        if over is not None:
            why = f": {printable(over.why)}" if over.why else ""
            _aside(chosen, number, f"==> {record.id} is {over.state}{why} <==")
            return
        gone = 0 if lives else gone + 1
        if gone == GONE_POLLS and not chosen.submitted:
            _aside(chosen, number, f"==> {record.id}: {RUNNER_GONE} <==")
            return
        if gone == GONE_POLLS:
            waits = served.waits(began=record.runner_pid is not None)
            _aside(chosen, number, f"==> {record.id}: {waits} <==")
        time.sleep(POLL_S)


def _ended(attempts: list[AttemptRecord], number: int) -> bool:
    return any(one.number == number and one.ended_s is not None for one in attempts)


def _aside(chosen: Chosen, number: int, line: str) -> None:
    """Tell something that is not the worker's, and keep lines of two attempts apart."""
    if number and unfinished(chosen.folder.attempt(number).log):
        click.echo()
    click.echo(line, err=True)
