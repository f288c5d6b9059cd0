"""Trouble of GPUs as it happens: Xid and ECC events, counters that rise, GPUs that are gone.

Owns the event set of the probe's child process, in a thread of its own, because waiting for an
event blocks. Never decides what a trouble means for a job. A trouble that lasts is told once, until
the GPU has been well again.
"""

import ctypes
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pynvml

from supervisor.core.gpu import GpuTrouble, Severity, TroubleKind, xid_trouble
from supervisor.gpu.nvml import RECOVERY_ACTIONS, Answer, Error, Handle, Nvml, words

WAIT_MS = 1000
CHECK_S = 5.0
ANY_INSTANCE = 0xFFFFFFFF

RECOVERY_SEVERITY = {
    1: Severity.RESET,
    2: Severity.AVOID,
    3: Severity.RESTART,
    4: Severity.RESET,
    5: Severity.RESET,
    6: Severity.RESET,
    7: Severity.AVOID,
}
GONE_MEANS = {
    pynvml.NVML_ERROR_GPU_IS_LOST: (TroubleKind.LOST, Severity.AVOID),
    pynvml.NVML_ERROR_RESET_REQUIRED: (TroubleKind.RECOVERY, Severity.RESET),
}


@dataclass(slots=True)
class Watched:
    """A physical GPU: what of it is watched (itself or instances), and what is normal for it."""

    handle: Handle
    names: list[tuple[str, int | None]] = field(default_factory=list)
    ecc: int | None = None
    recovery: int | None = None


@dataclass(slots=True)
class EventSet:
    """What one call of `watch` asked for."""

    handle: Handle
    waits: bool = False
    gpus: dict[str, Watched] = field(default_factory=dict)


class Health:
    """Watches GPUs, and tells `push` of every trouble. `run` is for a thread of its own."""

    def __init__(self, push: Callable[[GpuTrouble], None]) -> None:
        self._push = push
        self._set: EventSet | None = None
        self._changed = threading.Event()
        self._never = threading.Event()
        self._told: set[tuple[str, TroubleKind]] = set()
        self._telling = threading.Lock()
        self._in_both: Counter[tuple[int, int, int]] = Counter()

    def lost(self, uuid: str, error: Error) -> None:
        """Tell, once, of a GPU that is watched and answers no more. For any thread."""
        kind, severity = GONE_MEANS[error.value]
        with self._telling:
            names = [name for name in self._watched(uuid) if (name, kind) not in self._told]
            self._told |= {(name, kind) for name in names}
        for name in names:
            self._tell(name, kind, words(error), severity)

    def watch(self, nvml: Nvml, uuids: Iterable[str]) -> list[str]:
        """Watch these from now on, and no others; return a sentence for each that cannot be."""
        problem = nvml.begin()
        if problem:
            return [problem]
        problems: list[str] = []
        try:
            new = EventSet(nvml.ask("", "nvmlEventSetCreate"))
        except Error as error:
            new = EventSet(None)
            problems.append(f"no GPU events: {words(error)}")
        for uuid in uuids:
            try:
                self._add(nvml, new, uuid)
            except Error as error:
                problems.append(f"{uuid} cannot be watched: {words(error)}")
        for uuid, gpu in new.gpus.items():
            gpu.ecc, gpu.recovery = nvml.uncorrected_errors(uuid), nvml.recovery_action(uuid)
            problems += self._register(nvml, new, uuid, gpu)
        self._set = new
        self._changed.set()
        return problems

    def _watched(self, uuid: str) -> list[str]:
        """Return what is watched of a GPU, or the instance itself, if it is."""
        gpus = self._set.gpus if self._set else {}
        named = {name: [name] for gpu in gpus.values() for name, _ in gpu.names}
        return [name for name, _ in gpus[uuid].names] if uuid in gpus else named.get(uuid, [])

    def run(self, nvml: Nvml) -> None:
        """Wait for events and look at counters, for ever."""
        nvml.begin()
        current: EventSet | None = None
        checked_s = time.monotonic()
        while True:
            if current is not self._set:
                _free(nvml, current)
                current = self._set
            if current is None or not current.waits:
                self._changed.wait(CHECK_S)
                self._changed.clear()
            elif not self._wait(nvml, current):
                checked_s = -math.inf
            if current is not None and time.monotonic() - checked_s >= CHECK_S:
                self.check(nvml, current)
                checked_s = time.monotonic()

    def check(self, nvml: Nvml, current: EventSet) -> None:
        """Compare what has no event of its own with what it was."""
        for uuid, gpu in current.gpus.items():
            ecc, recovery = nvml.uncorrected_errors(uuid), nvml.recovery_action(uuid)
            if ecc is not None and gpu.ecc is not None and ecc > gpu.ecc:
                self._uncorrected(gpu, f"{ecc - gpu.ecc} more uncorrectable ECC errors", recovery)
            if recovery and recovery != gpu.recovery:
                self._recovery(gpu, recovery)
            gpu.ecc = gpu.ecc if ecc is None else ecc
            gpu.recovery = gpu.recovery if recovery is None else recovery
            if ecc is not None or recovery is not None:  # it answers
                well = {(name, kind) for name, _ in gpu.names for kind, _ in GONE_MEANS.values()}
                with self._telling:
                    self._told -= well

    def _wait(self, nvml: Nvml, current: EventSet) -> bool:
        """Wait for one event. False: something else came, and the counters may know what."""
        try:
            event = pynvml.nvmlEventSetWait_v2(current.handle, WAIT_MS)
        except Error as error:
            if error.value == pynvml.NVML_ERROR_TIMEOUT:
                self._in_both.clear()
                return True
            self._never.wait(WAIT_MS / 1000)  # it may say the same at once, for ever
            return False
        where = _address(event.device)
        if not self._again(current, (where, event.eventType, event.eventData)):
            for uuid, gpu in current.gpus.items():
                if _address(gpu.handle) == where:
                    self._event(nvml, uuid, gpu, event)
        return True

    def _again(self, current: EventSet, event: tuple[int, int, int]) -> bool:
        """Whether an event was told already: of two sets, while they overlap, both have it."""
        if current is not self._set:
            self._in_both[event] += 1
        elif self._in_both[event]:
            self._in_both[event] -= 1
            return True
        return False

    def _event(self, nvml: Nvml, uuid: str, gpu: Watched, event: Answer) -> None:
        if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
            trouble = xid_trouble(uuid, int(event.eventData), time.time())
            for name in _hit(gpu, event.gpuInstanceId, trouble):
                self._tell(name, trouble.kind, trouble.text, trouble.severity, trouble.code)
            return
        gpu.ecc = nvml.uncorrected_errors(uuid)  # told here, and not again by the counter
        self._uncorrected(gpu, "an uncorrectable ECC error", nvml.recovery_action(uuid))

    def _uncorrected(self, gpu: Watched, said: str, recovery: int | None) -> None:
        # A driver that names a recovery action asks for a reset itself, where one is needed.
        severity = Severity.RESET if recovery is None else Severity.RESTART
        for name, _ in gpu.names:
            self._tell(name, TroubleKind.ECC, said, severity)

    def _recovery(self, gpu: Watched, action: int) -> None:
        wanted = RECOVERY_ACTIONS.get(action, f"recovery action {action}")
        severity = RECOVERY_SEVERITY.get(action, Severity.RESET)
        for name, _ in gpu.names:
            said = f"the driver asks for {wanted}"
            self._tell(name, TroubleKind.RECOVERY, said, severity)

    def _tell(
        self, uuid: str, kind: TroubleKind, said: str, severity: Severity, code: int | None = None
    ) -> None:
        self._push(GpuTrouble(uuid, kind, code, said, severity, time.time()))

    def _add(self, nvml: Nvml, new: EventSet, uuid: str) -> None:
        handle, instance, whole = nvml.handle(uuid), None, uuid
        if uuid.startswith("MIG-"):
            instance = int(nvml.ask(uuid, "nvmlDeviceGetGpuInstanceId", handle))
            handle = nvml.ask(uuid, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
            whole = nvml.remember(handle, uuid)
        new.gpus.setdefault(whole, Watched(handle)).names.append((uuid, instance))

    def _register(self, nvml: Nvml, new: EventSet, uuid: str, gpu: Watched) -> list[str]:
        if new.handle is None:
            return []
        wanted = pynvml.nvmlEventTypeXidCriticalError | pynvml.nvmlEventTypeDoubleBitEccError
        try:
            types = wanted & nvml.ask(uuid, "nvmlDeviceGetSupportedEventTypes", gpu.handle)
            if not types & pynvml.nvmlEventTypeXidCriticalError:
                return [f"{uuid} reports no Xid events through NVML: the kernel log must do"]
            nvml.ask(uuid, "nvmlDeviceRegisterEvents", gpu.handle, types, new.handle)
            new.waits = True
        except Error as error:
            return [f"{uuid} reports no events: {words(error)}"]
        return []


def _hit(gpu: Watched, instance: int, trouble: GpuTrouble) -> list[str]:
    """Return what of a GPU a trouble hit: one MIG instance, or all where the GPU itself is ill."""
    everywhere = instance == ANY_INSTANCE or trouble.spoils_gpu
    return [name for name, one in gpu.names if everywhere or one is None or one == instance]


def _address(handle: Handle) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _free(nvml: Nvml, old: EventSet | None) -> None:
    if old is not None and old.handle is not None:
        try:
            nvml.ask("", "nvmlEventSetFree", old.handle)
        except Error:
            return
