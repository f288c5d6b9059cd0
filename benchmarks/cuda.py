"""The CUDA driver as one process sees it, and a process that holds GPU memory until it is told.

Owns the few calls of libcuda.so.1 that a context, an allocation and a kernel need; torch is not
among them. Runs with the standard library of any Python from 3.9 on, also as a copy elsewhere.
Invariant: a call that the driver refuses is an error with the call's name and the driver's words.

As a program: `cuda.py [BYTES] [--for SECONDS]` makes a context, allocates, says so in a line of
JSON, and holds both until its standard input ends, or for so long.
"""

import argparse
import contextlib
import ctypes
import json
import sys
import threading
import time
import uuid

LIBRARY = "libcuda.so.1"
OLDER_DRIVER = "no such function"

# Polls a word of memory that nobody ever writes: always there, and next to no work. The driver
# compiles it for the GPU at hand; Turing and newer know the first head, older ones the second.
HEADS = (".version 6.3\n.target sm_75", ".version 6.0\n.target sm_50")
WAITING_KERNEL = """
.address_size 64
.visible .entry wait_for_flag(.param .u64 flag)
{
    .reg .pred %still;
    .reg .b32 %seen;
    .reg .b64 %where;
    ld.param.u64 %where, [flag];
    cvta.to.global.u64 %where, %where;
again:
    ld.volatile.global.u32 %seen, [%where];
    setp.eq.u32 %still, %seen, 0;
    @%still bra again;
    ret;
}
"""

# CUDA Driver API reference: what each call takes. All return a CUresult, an int; 0 is success.
# Device memory is a 64-bit number (CUdeviceptr), a CUdevice an int, every other handle a pointer.
_OUT, _HANDLE, _MEMORY, _UINT = (
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_uint,
)
SIGNATURES: "dict[str, tuple[type, ...]]" = {
    "cuInit": (_UINT,),
    "cuGetErrorString": (ctypes.c_int, _OUT),
    "cuDeviceGetCount": (_OUT,),
    "cuDeviceGet": (_OUT, ctypes.c_int),
    "cuDeviceGetUuid_v2": (_OUT, ctypes.c_int),
    "cuDeviceGetUuid": (_OUT, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (_OUT, ctypes.c_int),
    "cuCtxSetCurrent": (_HANDLE,),
    "cuCtxSynchronize": (),
    "cuMemGetInfo_v2": (_OUT, _OUT),
    "cuMemAlloc_v2": (_OUT, ctypes.c_size_t),
    "cuMemFree_v2": (_MEMORY,),
    "cuMemsetD8_v2": (_MEMORY, ctypes.c_ubyte, ctypes.c_size_t),
    "cuModuleLoadData": (_OUT, ctypes.c_char_p),
    "cuModuleGetFunction": (_OUT, _HANDLE, ctypes.c_char_p),
    # function; grid x, y, z; block x, y, z; shared bytes; stream; parameters; extra
    "cuLaunchKernel": (_HANDLE, *[_UINT] * 7, _HANDLE, _OUT, _OUT),
}


class CudaError(RuntimeError):
    """The driver is not there, or refused a call; the message says which and why."""


class Cuda:
    """This process on its first visible GPU, with a context. Raises CudaError."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise CudaError(f"no CUDA driver here: {error}") from error
        self._call("cuInit", 0)
        count, device, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self.count = count.value
        self.uuid = self._uuid(device)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def free_bytes(self) -> int:
        """How much memory of the GPU is free, as the driver sees it now."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, count_bytes: int) -> int:
        """Take so much memory, write to all of it, and return where it is."""
        where = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(where), count_bytes)
        self._call("cuMemsetD8_v2", where, 0, count_bytes)
        self.wait()
        return where.value

    def free(self, where: int) -> None:
        """Give back what `allocate` returned."""
        self._call("cuMemFree_v2", where)

    def spin(self) -> None:
        """Start a kernel that never ends; returns at once."""
        function = ctypes.c_void_p()
        module = self._loaded()
        self._call("cuModuleGetFunction", ctypes.byref(function), module, b"wait_for_flag")
        flag = ctypes.c_uint64(self.allocate(4))
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(flag))
        self._call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, None, parameters, None)

    def wait(self) -> None:
        """Wait until the GPU has done what it was given."""
        self._call("cuCtxSynchronize")

    def _loaded(self) -> ctypes.c_void_p:
        module = ctypes.c_void_p()
        for head in HEADS:
            try:
                text = (head + WAITING_KERNEL).encode()
                self._call("cuModuleLoadData", ctypes.byref(module), text)
            except CudaError as error:
                refusal = error
            else:
                return module
        raise refusal

    def _uuid(self, device: ctypes.c_int) -> str:
        """Of the GPU, or of the MIG instance, without `GPU-` or `MIG-`."""
        raw = (ctypes.c_ubyte * 16)()
        newer = hasattr(self._library, "cuDeviceGetUuid_v2")
        self._call("cuDeviceGetUuid_v2" if newer else "cuDeviceGetUuid", ctypes.byref(raw), device)
        return str(uuid.UUID(bytes=bytes(raw)))

    def _call(self, name: str, *arguments: object) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise CudaError(f"{name}: {OLDER_DRIVER} in this CUDA driver")
        function.argtypes, function.restype = SIGNATURES[name], ctypes.c_int
        code = function(*arguments)
        if code:
            words = ctypes.c_char_p()
            with contextlib.suppress(AttributeError):
                self._library.cuGetErrorString(ctypes.c_int(code), ctypes.byref(words))
            told = (words.value or b"unknown error").decode(errors="replace")
            raise CudaError(f"{name}: {told} (CUDA error {code})")


def main() -> None:
    """Hold a context, and memory if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count_bytes", nargs="?", type=int, default=0, metavar="BYTES")
    parser.add_argument("--for", dest="time_s", type=float, metavar="SECONDS")
    given = parser.parse_args()
    gpu = Cuda()
    made_ns = time.monotonic_ns()
    if given.count_bytes:
        gpu.allocate(given.count_bytes)
    print(json.dumps({"uuid": gpu.uuid, "made_ns": made_ns}), flush=True)
    if given.time_s is None:
        sys.stdin.read()
    else:
        threading.Event().wait(given.time_s)


if __name__ == "__main__":
    try:
        main()
    except CudaError as error:
        sys.exit(str(error))
