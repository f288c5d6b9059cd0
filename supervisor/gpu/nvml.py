"""NVIDIA's library in this process: asked with care, and its refusals in words.

Owns initialising it, the handles, and the errors' meaning. Any question may block for ever in the
driver, so only the probe's child process imports this; before each one it says, to whoever watches
from outside, which function of which GPU it is about to ask.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import pynvml

Note = Callable[[str, str], None]
"""Is told the function that is about to be called and the GPU's uuid; two blanks after it."""

Handle = Any
"""A pointer of the C library; nothing looks into it."""

Answer = Any
"""What a function of pynvml returns: a number, a text, one of its structures. It has no types."""

Error: TypeAlias = pynvml.NVMLError

INIT_PROBLEMS = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "libnvidia-ml.so.1 was not found: no NVIDIA driver is installed here, or the container was"
        " started without --gpus all"
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "the NVIDIA driver is not loaded: `nvidia-smi` and the lines with NVRM in `dmesg` say why;"
        " `modprobe nvidia` loads it"
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "driver and library are of different versions, as after an update of the driver: reboot,"
        " or reload the nvidia kernel modules; in a container, restart it"
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "this user may not open the GPUs: look at the owner and mode of /dev/nvidiactl and"
        " /dev/nvidia0; in a container, give it the devices"
    ),
    pynvml.NVML_ERROR_UNKNOWN: (
        "NVML does not say what is wrong: in a container the GPUs were often taken away when"
        " systemd reloaded (restart it); elsewhere see the lines with NVRM in `dmesg`"
    ),
}

# nvmlDeviceGpuRecoveryAction_t of nvml.h.
RECOVERY_ACTIONS = {
    1: "a reset of the GPU",
    2: "a reboot",
    3: "an end of all peer-to-peer traffic",
    4: "no new work, and a reset when the present work is done",
    5: "a recovery of the IMEX domain",
    6: "a reset of the bus",
    7: "a reboot of the system",
}

# Of a GPU that answers one of these, every further question only costs time.
GONE = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)


class Nvml:
    """NVML of this process. `lost` is told, each time, of a GPU that answers with one of `GONE`."""

    def __init__(self, note: Note, lost: Callable[[str, Error], None]) -> None:
        self._note = note
        self._lost = lost
        self._ready = False
        self._handles: dict[str, Handle] = {}

    def begin(self) -> str | None:
        """Initialise NVML, if that has not been done; return why it cannot be used, if so."""
        try:
            if not self._ready:
                self.ask("", "nvmlInit")
                self._ready = True
        except Error as error:
            why = INIT_PROBLEMS.get(error.value) or f"{words(error)}; `nvidia-smi` may say more"
            return f"NVML: {why}"
        return None

    def ask(self, uuid: str, function: str, *arguments: Answer) -> Answer:
        """Call a function of pynvml. Raises its NVMLError."""
        self._note(function, uuid)
        try:
            return getattr(pynvml, function)(*arguments)
        except Error as error:
            if error.value in GONE:
                self._lost(uuid, error)
            raise
        finally:
            self._note("", "")

    def handle(self, uuid: str) -> Handle:
        """Return NVML's handle of a GPU or instance. Raises NVMLError."""
        if uuid not in self._handles:
            asked = uuid.encode()
            self._handles[uuid] = self.ask(uuid, "nvmlDeviceGetHandleByUUID", asked)
        return self._handles[uuid]

    def remember(self, handle: Handle, asked_for: str) -> str:
        """Keep a handle that was found by counting, and return its uuid. Raises NVMLError."""
        uuid = text(self.ask(asked_for, "nvmlDeviceGetUUID", handle))
        self._handles[uuid] = handle
        return uuid

    def recovery_action(self, uuid: str) -> int | None:
        """Return what the driver wants done about a GPU; None where it has no such field."""
        field = getattr(pynvml, "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", None)
        if field is None:  # an older binding
            return None
        try:
            value = self.ask(uuid, "nvmlDeviceGetFieldValues", self.handle(uuid), [field])[0]
        except Error:
            return None
        return int(value.value.uiVal) if value.nvmlReturn == pynvml.NVML_SUCCESS else None

    def uncorrected_errors(self, uuid: str) -> int | None:
        """Return the uncorrectable ECC errors since the driver was loaded; None without ECC."""
        kind, counter = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        try:
            handle = self.handle(uuid)
            return int(self.ask(uuid, "nvmlDeviceGetTotalEccErrors", handle, kind, counter))
        except Error:
            return None


def words(error: Error) -> str:
    """Return what an error says, with its number, which is what one searches for."""
    said = str(error)
    if said.startswith("b'"):  # the binding's own conversion of a code it does not know
        said = said[2:-1]
    return f"{said} (NVML error {error.value})"


def text(value: str | bytes) -> str:
    """Return a name, which older versions of the binding give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
