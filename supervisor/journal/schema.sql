-- Version 1. `events` is the truth and only ever grows; the other tables are derived from it in the
-- same transaction. A column is never renamed or given another meaning: later versions only add.
CREATE TABLE events (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL,
    at_s   REAL NOT NULL,          -- wall clock, seconds since the epoch
    kind   TEXT NOT NULL,          -- a class of supervisor.core.events
    body   TEXT NOT NULL           -- its fields, as JSON
);
CREATE INDEX events_of_job ON events (job_id, seq);

CREATE TABLE jobs (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    folder       TEXT NOT NULL,
    spec         TEXT NOT NULL,    -- the frozen job.yaml
    created_s    REAL NOT NULL,
    updated_s    REAL NOT NULL,
    state        TEXT NOT NULL,
    why          TEXT NOT NULL DEFAULT '',
    step         INTEGER,
    total        INTEGER,
    runner_pid   INTEGER,
    runner_ticks INTEGER,
    boot_id      TEXT
);
CREATE INDEX jobs_of_folder ON jobs (folder, name, created_s);

CREATE TABLE attempts (
    job_id          TEXT NOT NULL REFERENCES jobs (id),
    number          INTEGER NOT NULL,
    chosen_s        REAL NOT NULL,  -- when it was decided to spawn it
    resumed_path    TEXT,
    resumed_step    INTEGER,
    resumed_written_s REAL,         -- when that checkpoint was written
    pid             INTEGER,
    start_ticks     INTEGER,
    spawned_s       REAL,
    progress_s      REAL,           -- first sign of progress
    exited_s        REAL,
    exit_code       INTEGER,
    signal          INTEGER,
    ended_s         REAL,
    ran_s           REAL,
    cause           TEXT,
    reason          TEXT,
    decision        TEXT,
    decision_reason TEXT,
    step            INTEGER,
    evidence        TEXT,           -- JSON
    PRIMARY KEY (job_id, number)
);

CREATE TABLE checkpoints (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id      TEXT NOT NULL REFERENCES jobs (id),
    at_s        REAL NOT NULL,
    path        TEXT NOT NULL,
    step        INTEGER,
    verified    INTEGER NOT NULL,
    kind        TEXT NOT NULL DEFAULT '',
    level       TEXT NOT NULL DEFAULT '',
    size_bytes  INTEGER,
    written_s   REAL,
    pinned      INTEGER NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    set_aside_to TEXT
);
CREATE INDEX checkpoints_of_job ON checkpoints (job_id, seq);

CREATE TABLE looked_at (            -- verified files are remembered and not read again
    job_id      TEXT NOT NULL REFERENCES jobs (id),
    path        TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    verdict     TEXT NOT NULL,      -- JSON
    PRIMARY KEY (job_id, path)
);
