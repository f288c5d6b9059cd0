-- `events` is the truth and only ever grows, until a job is removed whole; the other tables are
-- derived from it in the same transaction. A column is never renamed or given another meaning: later versions only add, each its
-- own part of this file. An older journal is given the parts that it lacks.

-- version: 1
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

-- version: 2
-- The ledger of batch jobs. Its items are no events, for there may be millions: what was planned and
-- what is done stands here alone. Suspicion and quarantine are derived from events, as all else is.
CREATE TABLE batches (
    id            INTEGER PRIMARY KEY,
    job_id        TEXT NOT NULL UNIQUE REFERENCES jobs (id),
    planned       INTEGER NOT NULL DEFAULT 0,  -- items up to this number are known to be different
    todo          INTEGER NOT NULL DEFAULT 0,  -- how many of those are in each state
    done          INTEGER NOT NULL DEFAULT 0,
    suspect       INTEGER NOT NULL DEFAULT 0,
    quarantined   INTEGER NOT NULL DEFAULT 0,
    gone          INTEGER NOT NULL DEFAULT 0,
    repeated      INTEGER NOT NULL DEFAULT 0,  -- how often the last plan named one again
    results_bytes INTEGER NOT NULL DEFAULT 0   -- length of the results file with all that is done
);

CREATE TABLE items (
    batch  INTEGER NOT NULL REFERENCES batches (id),
    number INTEGER NOT NULL,        -- from 1; there may be gaps
    state  INTEGER NOT NULL,        -- 0 todo, 1 done, 2 suspect, 3 quarantined, 4 gone
    item   TEXT NOT NULL,           -- canonical JSON
    PRIMARY KEY (batch, number)
) WITHOUT ROWID;
CREATE INDEX items_suspect ON items (batch, number) WHERE state = 2;

CREATE TABLE digests (              -- which number an item has
    batch  INTEGER NOT NULL REFERENCES batches (id),
    digest BLOB NOT NULL,           -- BLAKE2b of its text, 16 bytes
    number INTEGER NOT NULL,
    PRIMARY KEY (batch, digest)
) WITHOUT ROWID;

CREATE TABLE quarantine (
    batch   INTEGER NOT NULL REFERENCES batches (id),
    number  INTEGER NOT NULL,
    at_s    REAL NOT NULL,
    attempt INTEGER NOT NULL,
    cause   TEXT NOT NULL,
    reason  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    PRIMARY KEY (batch, number)
) WITHOUT ROWID;

-- An acknowledged item never runs again, whatever is said of it later.
CREATE TRIGGER done_is_done BEFORE UPDATE OF state ON items WHEN old.state = 1
BEGIN
    SELECT raise(IGNORE);
END;

CREATE TRIGGER items_counted AFTER UPDATE OF state ON items WHEN old.state <> new.state
BEGIN
    UPDATE batches SET
        todo = todo + (new.state = 0) - (old.state = 0),
        done = done + (new.state = 1),
        suspect = suspect + (new.state = 2) - (old.state = 2),
        quarantined = quarantined + (new.state = 3) - (old.state = 3),
        gone = gone + (new.state = 4) - (old.state = 4)
    WHERE id = new.batch;
END;

CREATE TRIGGER quarantine_left AFTER UPDATE OF state ON items
WHEN old.state = 3 AND new.state <> 3
BEGIN
    DELETE FROM quarantine WHERE batch = new.batch AND number = new.number;
END;
