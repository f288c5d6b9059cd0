"""The rows of the table that tell of phases and of revivals: data for test_core_machine."""

from dataclasses import replace

from supervisor.core.deadlines import Deadlines
from supervisor.core.events import PhaseBegan, PhaseEnded, SignSeen, WorkerRevived
from supervisor.core.evidence import DeadlineName
from tests.unit.core_rows import ALIVE, EXITED, NOW, RUNNING, STOPPING, Row

COMPILING = {"phase_until": NOW + 60}
HELD = {"deadlines": Deadlines(heartbeat=NOW + 60)}

HUNG_AND_ASKED = replace(STOPPING, fired=DeadlineName.HEARTBEAT, seen="idle", stop_requested=False)

PHASE_ROWS: list[Row] = [
    (HUNG_AND_ASKED, WorkerRevived(3), {"fired": None, "seen": "", "stop_requested": True}, ()),
    (replace(HUNG_AND_ASKED, fired=DeadlineName.TOTAL), WorkerRevived(3), {}, ()),
    (HUNG_AND_ASKED, WorkerRevived(2), {}, ()),
    (RUNNING, PhaseBegan(3, "compile", 60.0), COMPILING | HELD, ()),
    (replace(RUNNING, **COMPILING), PhaseBegan(3, "save", 5.0), COMPILING | HELD, ()),
    (
        replace(RUNNING, deadlines=Deadlines(startup=NOW + 1)),
        PhaseBegan(3, "compile", 60.0),
        COMPILING | {"deadlines": Deadlines(startup=NOW + 60)},
        (),
    ),
    (EXITED, PhaseBegan(3, "compile", 60.0), {}, ()),
    (RUNNING, PhaseBegan(2, "compile", 60.0), {}, ()),  # of an earlier worker
    (replace(RUNNING, **COMPILING), SignSeen(360), {"step": 360} | HELD, ()),
    (replace(RUNNING, **COMPILING), PhaseEnded(3), {"phase_until": None} | ALIVE, ()),
    (
        replace(RUNNING, **COMPILING, deadlines=Deadlines(startup=NOW + 60)),
        PhaseEnded(3),
        {"phase_until": None, "deadlines": Deadlines(startup=NOW + 10)},
        (),
    ),
    (replace(RUNNING, deadlines=Deadlines()), PhaseEnded(3), {}, ()),
    (replace(EXITED, **COMPILING), PhaseEnded(3), {"phase_until": None}, ()),
    (replace(RUNNING, **COMPILING), PhaseEnded(2), {}, ()),
]
