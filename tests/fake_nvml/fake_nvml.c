/* A libnvidia-ml.so.1 without a GPU: NVIDIA's own binding runs on it unmodified.
 *
 * Owns the C side of the tests' NVML. What it answers stands in the text file that the environment
 * variable FAKE_NVML_STATE names; tests/fake_nvml/driver.py writes it, by rename, with a new mtime
 * each time. It is looked at before every answer, so a test changes the GPUs while somebody watches
 * them. Lines, in any order; WHERE is a uuid or `*`; unknown ones are ignored:
 *
 *   driver VERSION
 *   gpu UUID - DOMAIN BUS NAME...            physical; their order is NVML's index
 *   gpu UUID PARENT INSTANCE 0 NAME...       a MIG instance of PARENT
 *   set UUID KEY NUMBER                      see `number`; -1 where NVML has none
 *   process UUID PID BYTES KIND              BYTES -1: not available; KIND compute, graphics, mps
 *   event SEQUENCE UUID TYPE DATA            type and data as nvmlEventData_t has them
 *   fail FUNCTION WHERE CODE                 FUNCTION without the suffix of its newest version; an
 *                                            older one has it (..._v2, MemoryInfo_v1); or `*`
 *   block FUNCTION WHERE SECONDS             -1: until the line is gone
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef unsigned int u32;
typedef unsigned long long u64;
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15
};
enum { NAME = 96, UUID = 96, MAX_GPUS = 64, MAX_SETTINGS = 1024, MAX_PROCESSES = 4096,
       MAX_EVENTS = 8192, MAX_RULES = 128, NONE = -1 };

struct gpu { char uuid[UUID], parent[UUID], name[NAME]; u32 first, second; };
struct setting { char uuid[UUID], key[32]; long long value; };
struct process { char uuid[UUID], kind[16]; long long pid, bytes; };
struct event { char uuid[UUID]; u64 sequence, type, data; };
struct rule { char function[64], where[UUID]; double value; };

static struct {
    char driver[64];
    int gpus, settings, processes, events, fails, blocks;
    struct gpu gpu[MAX_GPUS];
    struct setting setting[MAX_SETTINGS];
    struct process process[MAX_PROCESSES];
    struct event event[MAX_EVENTS];
    struct rule fail[MAX_RULES], block[MAX_RULES];
} state;
static struct timespec state_mtime;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int initialised;
/* A handle points to its GPU's uuid here, and stays valid when the GPU is gone. */
static char handles[MAX_GPUS][UUID];

static void read_line(char *line) {
    char word[16];
    int used = 0;
    if (sscanf(line, "%15s %n", word, &used) != 1) return;
    char *rest = line + used;
    rest[strcspn(rest, "\n")] = 0;
    struct gpu *g = &state.gpu[state.gpus];
    struct setting *s = &state.setting[state.settings];
    struct process *p = &state.process[state.processes];
    struct event *e = &state.event[state.events];
    struct rule *f = &state.fail[state.fails], *b = &state.block[state.blocks];
    if (!strcmp(word, "driver")) snprintf(state.driver, sizeof state.driver, "%s", rest);
    else if (!strcmp(word, "gpu") && state.gpus < MAX_GPUS)
        state.gpus += sscanf(rest, "%95s %95s %x %x %95[^\n]", g->uuid, g->parent, &g->first,
                             &g->second, g->name) == 5;
    else if (!strcmp(word, "set") && state.settings < MAX_SETTINGS)
        state.settings += sscanf(rest, "%95s %31s %lld", s->uuid, s->key, &s->value) == 3;
    else if (!strcmp(word, "process") && state.processes < MAX_PROCESSES)
        state.processes +=
            sscanf(rest, "%95s %lld %lld %15s", p->uuid, &p->pid, &p->bytes, p->kind) == 4;
    else if (!strcmp(word, "event") && state.events < MAX_EVENTS)
        state.events +=
            sscanf(rest, "%llu %95s %llu %llu", &e->sequence, e->uuid, &e->type, &e->data) == 4;
    else if (!strcmp(word, "fail") && state.fails < MAX_RULES)
        state.fails += sscanf(rest, "%63s %95s %lf", f->function, f->where, &f->value) == 3;
    else if (!strcmp(word, "block") && state.blocks < MAX_RULES)
        state.blocks += sscanf(rest, "%63s %95s %lf", b->function, b->where, &b->value) == 3;
}

/* Bring `state` up to date. Called with the lock held. False: there is no state file. */
static int refresh(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    struct stat now;
    if (!path || stat(path, &now)) return 0;
    if (now.st_mtim.tv_sec == state_mtime.tv_sec && now.st_mtim.tv_nsec == state_mtime.tv_nsec)
        return 1;
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    fstat(fileno(file), &now);
    state.gpus = state.settings = state.processes = state.events = state.fails = state.blocks = 0;
    char line[512];
    while (fgets(line, sizeof line, file)) read_line(line);
    fclose(file);
    state_mtime = now.st_mtim;
    return 1;
}

static struct gpu *gpu_of(const char *uuid) {
    for (int i = 0; i < state.gpus; i++)
        if (!strcmp(state.gpu[i].uuid, uuid)) return &state.gpu[i];
    return NULL;
}

static long long number(const char *uuid, const char *key, long long otherwise) {
    for (int i = 0; i < state.settings; i++)
        if (!strcmp(state.setting[i].uuid, uuid) && !strcmp(state.setting[i].key, key))
            return state.setting[i].value;
    return otherwise;
}

static const struct rule *matching(const struct rule *rules, int count, const char *function,
                                   const char *uuid) {
    for (int i = 0; i < count; i++)
        if ((!strcmp(rules[i].function, function) || !strcmp(rules[i].function, "*")) &&
            (!strcmp(rules[i].where, "*") || !strcmp(rules[i].where, uuid)))
            return &rules[i];
    return NULL;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

/* Begin a call: block and fail as told. On success the lock is held, and `state` is current. */
static int enter(const char *function, const char *uuid) {
    const struct timespec nap = {0, 10000000};
    double begun = now_s();
    for (;;) {
        pthread_mutex_lock(&lock);
        if (!refresh()) {
            pthread_mutex_unlock(&lock);
            return DRIVER_NOT_LOADED;
        }
        const struct rule *block = matching(state.block, state.blocks, function, uuid);
        if (!block || (block->value >= 0 && now_s() - begun >= block->value)) break;
        pthread_mutex_unlock(&lock);
        nanosleep(&nap, NULL);
    }
    const struct rule *fail = matching(state.fail, state.fails, function, uuid);
    int code = fail ? (int)fail->value : SUCCESS;
    if (code) pthread_mutex_unlock(&lock);
    return code;
}

static int enter_gpu(const char *function, const char *handle, struct gpu **gpu) {
    if (!initialised) return UNINITIALIZED;
    if (handle < handles[0] || handle > handles[MAX_GPUS - 1]) return INVALID_ARGUMENT;
    int code = enter(function, handle);
    if (code) return code;
    if ((*gpu = gpu_of(handle))) return SUCCESS;
    pthread_mutex_unlock(&lock);
    return GPU_IS_LOST;
}

/* End a call. */
static int leave(int code) {
    pthread_mutex_unlock(&lock);
    return code;
}

#define API __attribute__((visibility("default"))) int
/* The beginning of a call on one GPU: from here to `leave` the lock is held and `gpu` is set. */
#define ON(name) \
    struct gpu *gpu; \
    int failed = enter_gpu(name, device, &gpu); \
    if (failed) return failed

static int text(const char *value, char *out, u32 size) {
    if (strlen(value) >= size) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return SUCCESS;
}

static int figure(const char *uuid, const char *key, u32 *out) {
    long long value = number(uuid, key, 0);
    if (value < 0) return NOT_SUPPORTED;
    *out = (u32)value;
    return SUCCESS;
}

static char *handle_of(const char *uuid) {
    for (int i = 0; i < MAX_GPUS; i++) {
        if (!handles[i][0]) snprintf(handles[i], UUID, "%s", uuid);
        if (!strcmp(handles[i], uuid)) return handles[i];
    }
    return NULL;
}

/* The library ------------------------------------------------------------------------------- */

API nvmlInitWithFlags(u32 flags) {
    (void)flags;
    int code = enter("nvmlInit", "");
    if (code) return code;
    initialised++;
    return leave(SUCCESS);
}
API nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

API nvmlShutdown(void) {
    if (!initialised) return UNINITIALIZED;
    initialised--;
    return SUCCESS;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(int code) {
    static const char *const known[] = {
        [0] = "Success", [1] = "Uninitialized", [2] = "Invalid Argument", [3] = "Not Supported",
        [4] = "Insufficient Permissions", [6] = "Not Found", [7] = "Insufficient Size",
        [9] = "Driver Not Loaded", [10] = "Timeout", [12] = "NVML Shared Library Not Found",
        [13] = "Function Not Found", [15] = "GPU is lost", [16] = "GPU requires restart",
        [18] = "Driver/library version mismatch"};
    if (code >= 0 && code < (int)(sizeof known / sizeof *known) && known[code]) return known[code];
    return code == 999 ? "Unknown Error" : "An error that this library has no words for";
}

API nvmlSystemGetDriverVersion(char *out, u32 size) {
    int code = initialised ? enter("nvmlSystemGetDriverVersion", "") : UNINITIALIZED;
    return code ? code : leave(text(state.driver, out, size));
}

API nvmlDeviceGetCount_v2(u32 *count) {
    int code = initialised ? enter("nvmlDeviceGetCount", "") : UNINITIALIZED;
    if (code) return code;
    *count = 0;
    for (int i = 0; i < state.gpus; i++) *count += !strcmp(state.gpu[i].parent, "-");
    return leave(SUCCESS);
}

/* The `index`-th GPU of a parent; "-" is the parent of the physical ones. */
static int by_index(const char *function, const char *parent, u32 index, char **device) {
    int code = enter(function, "");
    if (code) return code;
    code = strcmp(parent, "-") ? NOT_FOUND : INVALID_ARGUMENT;
    const char *uuid = NULL;
    for (int i = 0; i < state.gpus && !uuid; i++)
        if (!strcmp(state.gpu[i].parent, parent) && index-- == 0) uuid = state.gpu[i].uuid;
    if (!uuid) return leave(code);
    const struct rule *fail = matching(state.fail, state.fails, function, uuid);
    if (fail) return leave((int)fail->value);
    *device = handle_of(uuid);
    return leave(SUCCESS);
}

API nvmlDeviceGetHandleByIndex_v2(u32 index, char **device) {
    if (!initialised) return UNINITIALIZED;
    return by_index("nvmlDeviceGetHandleByIndex", "-", index, device);
}

API nvmlDeviceGetHandleByUUID(const char *uuid, char **device) {
    int code = initialised ? enter("nvmlDeviceGetHandleByUUID", uuid) : UNINITIALIZED;
    if (code) return code;
    struct gpu *gpu = gpu_of(uuid);
    if (gpu) *device = handle_of(uuid);
    return leave(gpu ? SUCCESS : NOT_FOUND);
}

/* One GPU ------------------------------------------------------------------------------------ */

API nvmlDeviceGetUUID(const char *device, char *out, u32 size) {
    ON("nvmlDeviceGetUUID");
    return leave(text(gpu->uuid, out, size));
}

API nvmlDeviceGetName(const char *device, char *out, u32 size) {
    ON("nvmlDeviceGetName");
    return leave(text(gpu->name, out, size));
}

struct pci { char legacy[16]; u32 domain, bus, device, id, subsystem; char id_text[32]; };
API nvmlDeviceGetPciInfo_v3(const char *device, struct pci *out) {
    ON("nvmlDeviceGetPciInfo");
    memset(out, 0, sizeof *out);
    out->domain = gpu->first;
    out->bus = gpu->second;
    snprintf(out->id_text, sizeof out->id_text, "%08X:%02X:00.0", gpu->first, gpu->second);
    return leave(SUCCESS);
}

struct memory { u64 total, free, used; };
struct memory_v2 { u32 version; u64 total, reserved, free, used; };
static int memory(const char *function, const char *device, struct memory_v2 *out) {
    ON(function);
    long long total = number(gpu->uuid, "total", 0), used = number(gpu->uuid, "used", 0);
    if (total < 0) return leave(NOT_SUPPORTED);
    *out = (struct memory_v2){out->version, total, 0, total - used, used};
    return leave(SUCCESS);
}
API nvmlDeviceGetMemoryInfo_v2(const char *device, struct memory_v2 *out) {
    return memory("nvmlDeviceGetMemoryInfo", device, out);
}
API nvmlDeviceGetMemoryInfo(const char *device, struct memory *out) {
    struct memory_v2 all = {0};
    int code = memory("nvmlDeviceGetMemoryInfo_v1", device, &all);
    *out = (struct memory){all.total, all.free, all.used};
    return code;
}

struct rates { u32 gpu, memory; };
API nvmlDeviceGetUtilizationRates(const char *device, struct rates *out) {
    ON("nvmlDeviceGetUtilizationRates");
    int code = figure(gpu->uuid, "utilization", &out->gpu);
    return leave(code ? code : figure(gpu->uuid, "memory_utilization", &out->memory));
}

#define FIGURE(function, key) \
    API function(const char *device, u32 *out) { \
        ON(#function); \
        return leave(figure(gpu->uuid, key, out)); \
    }
FIGURE(nvmlDeviceGetPowerUsage, "power_mw")
FIGURE(nvmlDeviceGetEnforcedPowerLimit, "power_limit_mw")
FIGURE(nvmlDeviceGetComputeMode, "compute_mode")
FIGURE(nvmlDeviceGetIndex, "index")

API nvmlDeviceGetTemperature(const char *device, int sensor, u32 *out) {
    (void)sensor;
    ON("nvmlDeviceGetTemperature");
    return leave(figure(gpu->uuid, "temperature_c", out));
}

API nvmlDeviceGetTotalEccErrors(const char *device, int corrected_or_not, int lifetime, u64 *out) {
    (void)lifetime;
    ON("nvmlDeviceGetTotalEccErrors");
    u32 value = 0;
    int code = corrected_or_not ? figure(gpu->uuid, "ecc_uncorrected", &value) : SUCCESS;
    *out = value;
    return leave(code);
}

struct field { u32 id, scope; long long at, took; u32 type, code; u64 value; };
enum { FIELD_RECOVERY_ACTION = 230, TYPE_UNSIGNED_INT = 1 };
API nvmlDeviceGetFieldValues(const char *device, int count, struct field *fields) {
    ON("nvmlDeviceGetFieldValues");
    for (int i = 0; i < count; i++) {
        u32 value = 0;
        int known = fields[i].id == FIELD_RECOVERY_ACTION;
        fields[i].type = TYPE_UNSIGNED_INT;
        fields[i].code = known ? figure(gpu->uuid, "recovery_action", &value) : NOT_SUPPORTED;
        fields[i].value = value;
    }
    return leave(SUCCESS);
}

struct process_info { u32 pid; u64 bytes; u32 gpu_instance, compute_instance; };
static int processes(const char *function, const char *device, const char *kind, u32 *count,
                     struct process_info *out) {
    ON(function);
    u32 room = *count, found = 0;
    for (int i = 0; i < state.processes; i++) {
        struct process *p = &state.process[i];
        if (strcmp(p->uuid, gpu->uuid) || strcmp(p->kind, kind)) continue;
        if (out && found < room) out[found] = (struct process_info){p->pid, p->bytes, ~0U, ~0U};
        found++;
    }
    *count = found;
    return leave(found > (out ? room : 0) ? INSUFFICIENT_SIZE : SUCCESS);
}
#define PROCESSES(function, kind) \
    API function##_v2(const char *device, u32 *count, struct process_info *out) { \
        return processes(#function "_v2", device, kind, count, out); \
    } \
    API function##_v3(const char *device, u32 *count, struct process_info *out) { \
        return processes(#function, device, kind, count, out); \
    }
PROCESSES(nvmlDeviceGetComputeRunningProcesses, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, "graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, "mps")

/* MIG ----------------------------------------------------------------------------------------- */

API nvmlDeviceGetMigMode(const char *device, u32 *current, u32 *pending) {
    ON("nvmlDeviceGetMigMode");
    int code = figure(gpu->uuid, "mig", current);
    *pending = *current;
    return leave(code);
}

API nvmlDeviceGetMaxMigDeviceCount(const char *device, u32 *out) {
    ON("nvmlDeviceGetMaxMigDeviceCount");
    *out = 7;
    return leave(SUCCESS);
}

API nvmlDeviceGetMigDeviceHandleByIndex(const char *device, u32 index, char **out) {
    ON("nvmlDeviceGetMigDeviceHandleByIndex");
    leave(SUCCESS);
    return by_index("nvmlDeviceGetMigDeviceHandleByIndex", device, index, out);
}

API nvmlDeviceGetGpuInstanceId(const char *device, u32 *out) {
    ON("nvmlDeviceGetGpuInstanceId");
    *out = gpu->first;
    return leave(strcmp(gpu->parent, "-") ? SUCCESS : INVALID_ARGUMENT);
}

API nvmlDeviceGetDeviceHandleFromMigDeviceHandle(const char *device, char **out) {
    ON("nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
    int physical = !strcmp(gpu->parent, "-");
    if (!physical) *out = handle_of(gpu->parent);
    return leave(physical ? INVALID_ARGUMENT : SUCCESS);
}

/* Events -------------------------------------------------------------------------------------- */

struct event_set { u64 seen; int watch, registered; char uuid[MAX_GPUS][UUID]; u64 types[MAX_GPUS]; };
struct event_data { char *device; u64 type, data; u32 gpu_instance, compute_instance; };

API nvmlEventSetCreate(struct event_set **out) {
    int code = initialised ? enter("nvmlEventSetCreate", "") : UNINITIALIZED;
    if (code) return code;
    *out = calloc(1, sizeof **out);
    /* What happened before nobody is told of, as with the real one. */
    for (int i = 0; i < state.events; i++)
        if (state.event[i].sequence > (*out)->seen) (*out)->seen = state.event[i].sequence;
    (*out)->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", getenv("FAKE_NVML_STATE"));
    char *slash = strrchr(folder, '/');
    if (slash) *slash = 0;
    if ((*out)->watch >= 0) inotify_add_watch((*out)->watch, slash ? folder : ".", IN_MOVED_TO);
    return leave(SUCCESS);
}

API nvmlDeviceGetSupportedEventTypes(const char *device, u64 *out) {
    ON("nvmlDeviceGetSupportedEventTypes");
    *out = (u64)number(gpu->uuid, "event_types", 0x2 | 0x8);
    return leave(SUCCESS);
}

API nvmlDeviceRegisterEvents(const char *device, u64 types, struct event_set *set) {
    ON("nvmlDeviceRegisterEvents");
    if (set->registered == MAX_GPUS) return leave(INVALID_ARGUMENT);
    snprintf(set->uuid[set->registered], UUID, "%s", gpu->uuid);
    set->types[set->registered++] = types;
    return leave(SUCCESS);
}

static int wanted(const struct event_set *set, const struct event *event) {
    for (int i = 0; i < set->registered; i++)
        if (!strcmp(set->uuid[i], event->uuid) && (set->types[i] & event->type)) return 1;
    return 0;
}

/* The next event of the set, or NULL. Events stand in the file in the order of their numbers. */
static struct event *next_event(struct event_set *set) {
    for (int i = 0; i < state.events; i++) {
        if (state.event[i].sequence <= set->seen) continue;
        set->seen = state.event[i].sequence;
        if (wanted(set, &state.event[i])) return &state.event[i];
    }
    return NULL;
}

API nvmlEventSetWait_v2(struct event_set *set, struct event_data *out, u32 timeout_ms) {
    double deadline = now_s() + timeout_ms / 1e3;
    for (;;) {
        int code = initialised ? enter("nvmlEventSetWait", "") : UNINITIALIZED;
        if (code) return code;
        struct event *event = next_event(set);
        if (event) {
            long long instance = number(event->uuid, "event_instance", -1);
            *out = (struct event_data){handle_of(event->uuid), event->type, event->data,
                                       (u32)instance, ~0U};
            return leave(SUCCESS);
        }
        leave(SUCCESS);
        int left_ms = (int)((deadline - now_s()) * 1e3);
        if (left_ms <= 0) return TIMEOUT;
        struct pollfd changed = {set->watch, POLLIN, 0};
        poll(&changed, 1, set->watch < 0 && left_ms > 20 ? 20 : left_ms);
        char ignored[4096];
        while (set->watch >= 0 && read(set->watch, ignored, sizeof ignored) > 0) continue;
    }
}

API nvmlEventSetFree(struct event_set *set) {
    if (set->watch >= 0) close(set->watch);
    free(set);
    return SUCCESS;
}
