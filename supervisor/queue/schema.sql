-- `happenings` only ever grows: who did what, when. The other tables are what it came to, changed in
-- the same transaction. A column is never renamed or given another meaning: later versions only add,
-- each its own part of this file. An older queue is given the parts that it lacks.

-- version: 1
CREATE TABLE entries (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of submission; never used again
    id               TEXT NOT NULL UNIQUE,
    uid              INTEGER NOT NULL,
    name             TEXT NOT NULL,
    folder           TEXT NOT NULL,
    gpus             INTEGER NOT NULL,
    gpu_memory_bytes INTEGER,          -- of each GPU; NULL: it did not say
    share_gpu        INTEGER NOT NULL,
    cpus             INTEGER NOT NULL,
    memory_bytes     INTEGER,
    submitted_s      REAL NOT NULL,    -- all times: wall clock, seconds since the epoch
    queued_s         REAL NOT NULL,
    priority         INTEGER NOT NULL,
    after_jobs       TEXT NOT NULL,    -- JSON list of ids
    key              TEXT,
    group_name       TEXT,
    claims           TEXT NOT NULL,    -- JSON list of folders
    stop_s           REAL NOT NULL,
    phase            TEXT NOT NULL,
    wish             TEXT NOT NULL,
    state            TEXT NOT NULL,
    why              TEXT NOT NULL,
    placed_s         REAL,
    ended_s          REAL,
    launches         INTEGER NOT NULL,
    lost             INTEGER NOT NULL,
    boot_id          TEXT NOT NULL
);
-- Submitting twice under one key is one job, whoever forgot to look.
CREATE UNIQUE INDEX entries_by_key ON entries (uid, key) WHERE key IS NOT NULL;

CREATE TABLE unshelved (               -- kept until the job is on its owner's shelf
    id           TEXT PRIMARY KEY,
    spec         TEXT NOT NULL,        -- the frozen job.yaml
    surroundings TEXT NOT NULL         -- JSON: environment, umask, limits
);

CREATE TABLE groups (
    uid        INTEGER NOT NULL,
    name       TEXT NOT NULL,
    hold_after INTEGER,
    failures   INTEGER NOT NULL,
    held       INTEGER NOT NULL,
    PRIMARY KEY (uid, name)
) WITHOUT ROWID;

CREATE TABLE happenings (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s   REAL NOT NULL,
    job_id TEXT,                       -- NULL: of a group
    kind   TEXT NOT NULL,
    body   TEXT NOT NULL               -- JSON object
);
CREATE INDEX happenings_of_job ON happenings (job_id, seq);

-- What happened is not told otherwise later. It goes only together with the job that it is about.
CREATE TRIGGER happened_is_happened BEFORE UPDATE ON happenings
BEGIN
    SELECT raise(ABORT, 'happenings are only ever added');
END;
