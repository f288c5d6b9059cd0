-- name: tables
SELECT name FROM sqlite_master WHERE type = 'table';

-- name: insert_event
INSERT INTO events (job_id, at_s, kind, body) VALUES (:job_id, :at_s, :kind, :body);

-- name: insert_job
INSERT INTO jobs (id, name, folder, spec, created_s, updated_s, state)
VALUES (:id, :name, :folder, :spec, :at_s, :at_s, :state);

-- name: update_job
UPDATE jobs SET state = :state, why = :why, step = coalesce(:step, step), updated_s = :at_s
WHERE id = :job_id;

-- name: update_spec
UPDATE jobs SET spec = :spec WHERE id = :job_id;

-- name: update_progress
UPDATE jobs SET step = :step, total = :total, updated_s = :at_s WHERE id = :job_id;

-- name: runner_started
UPDATE jobs SET runner_pid = :pid, runner_ticks = :start_ticks, boot_id = :boot_id
WHERE id = :job_id;

-- name: attempt_chosen
INSERT INTO attempts (job_id, number, chosen_s, resumed_path, resumed_step, resumed_written_s)
VALUES (:job_id, :number, :at_s, :path, :step, :written_at_s);

-- name: attempt_spawned
UPDATE attempts SET pid = :pid, start_ticks = :start_ticks, spawned_s = :at_s
WHERE job_id = :job_id AND number = :number;

-- name: attempt_progress
UPDATE attempts SET progress_s = :at_s WHERE job_id = :job_id AND number = :number;

-- name: attempt_exited
UPDATE attempts SET exited_s = :at_s, exit_code = :exit_code, signal = :signal
WHERE job_id = :job_id AND number = :number;

-- name: attempt_ended
UPDATE attempts SET ended_s = :at_s, ran_s = :ran_s, cause = :cause, reason = :reason,
    decision = :action, decision_reason = :decision_reason, step = :step, evidence = :evidence
WHERE job_id = :job_id AND number = :number;

-- name: checkpoint_verified
INSERT INTO checkpoints (job_id, at_s, path, step, verified, kind, level, size_bytes, written_s, pinned)
VALUES (:job_id, :at_s, :path, :step, 1, :kind, :level, :size_bytes, :written_at_s, :pinned);

-- name: checkpoint_rejected
INSERT INTO checkpoints (job_id, at_s, path, step, verified, reason, set_aside_to)
VALUES (:job_id, :at_s, :path, :step, 0, :reason, :set_aside_to);

-- name: remember
INSERT INTO looked_at (job_id, path, fingerprint, verdict)
VALUES (:job_id, :path, :fingerprint, :verdict)
ON CONFLICT (job_id, path) DO UPDATE SET fingerprint = :fingerprint, verdict = :verdict;

-- name: recall
SELECT verdict FROM looked_at WHERE job_id = :job_id AND path = :path
AND fingerprint = :fingerprint;

-- name: events
SELECT seq, at_s, kind, body FROM events WHERE job_id = :job_id AND seq > :after ORDER BY seq
LIMIT :limit;

-- name: events_of_kind
SELECT seq, at_s, kind, body FROM events WHERE job_id = :job_id AND kind = :kind ORDER BY seq;

-- name: last_seq
SELECT coalesce(max(seq), 0) FROM events WHERE job_id = :job_id;

-- name: jobs
SELECT * FROM jobs ORDER BY created_s, rowid;

-- name: job
SELECT * FROM jobs WHERE id = :id;

-- name: last_attempts
SELECT job_id, max(number) AS number, (
    SELECT ended.cause FROM attempts AS ended
    WHERE ended.job_id = attempts.job_id AND ended.cause IS NOT NULL
    ORDER BY ended.number DESC LIMIT 1
) AS cause
FROM attempts GROUP BY job_id;

-- name: attempts
SELECT * FROM attempts WHERE job_id = :job_id ORDER BY number;

-- name: checkpoints
SELECT * FROM checkpoints WHERE job_id = :job_id ORDER BY seq;

-- name: begin_batch
INSERT INTO batches (job_id) VALUES (:job_id) ON CONFLICT (job_id) DO NOTHING;

-- name: batch
SELECT id FROM batches WHERE job_id = :job_id;

-- name: batch_counts
SELECT todo + done + suspect + quarantined, done, todo, suspect, quarantined, gone, repeated
FROM batches WHERE job_id = :job_id;

-- name: results_bytes
SELECT results_bytes FROM batches WHERE job_id = :job_id;

-- name: items_todo
SELECT number FROM items JOIN batches ON batches.id = items.batch
WHERE job_id = :job_id AND number > :after AND number <= planned AND state = 0 ORDER BY number;

-- name: items_suspect
SELECT number FROM items JOIN batches ON batches.id = items.batch
WHERE job_id = :job_id AND number <= planned AND state = 2 ORDER BY number;

-- name: item_texts
SELECT number, item FROM items WHERE batch = :batch AND number BETWEEN :low AND :high;

-- name: item_number
SELECT number FROM digests JOIN batches ON batches.id = digests.batch
WHERE job_id = :job_id AND digest = :digest AND number <= planned;

-- name: settle_items
UPDATE items SET state = 1 WHERE batch = ? AND number BETWEEN ? AND ?;

-- name: settle_results
UPDATE batches SET results_bytes = :results_bytes WHERE id = :batch;

-- name: quarantined
SELECT number, item, cause, reason, detail, at_s, attempt
FROM quarantine JOIN batches ON batches.id = quarantine.batch JOIN items USING (batch, number)
WHERE job_id = :job_id ORDER BY number LIMIT :limit;

-- name: planned
SELECT planned FROM batches WHERE id = :batch;

-- name: known_and_gone
SELECT todo + done + suspect + quarantined, gone FROM batches WHERE id = :batch;

-- name: make_arrivals
CREATE TEMP TABLE arrivals (digest BLOB NOT NULL, number INTEGER NOT NULL);

-- name: drop_arrivals
DROP TABLE IF EXISTS temp.arrivals;

-- name: sort_arrivals
CREATE INDEX temp.arrivals_sorted ON arrivals (digest, number);

-- name: unsort_arrivals
DROP INDEX temp.arrivals_sorted;

-- name: empty_arrivals
DELETE FROM temp.arrivals;

-- name: clear_items
DELETE FROM items WHERE batch = :batch AND number > :planned;

-- name: clear_digests
DELETE FROM digests WHERE batch = :batch AND number > :planned;

-- name: add_item
INSERT INTO items (batch, number, state, item) VALUES (?, ?, 0, ?);

-- name: add_arrival
INSERT INTO temp.arrivals (digest, number) VALUES (?, ?);

-- name: make_sought
CREATE TEMP TABLE sought (digest BLOB PRIMARY KEY) WITHOUT ROWID;

-- name: drop_sought
DROP TABLE IF EXISTS temp.sought;

-- name: empty_sought
DELETE FROM temp.sought;

-- name: add_sought
INSERT INTO temp.sought (digest) VALUES (?);

-- name: sought_found
SELECT digest, number FROM temp.sought CROSS JOIN digests USING (digest) WHERE batch = :batch;

-- name: items_after
SELECT item, number FROM items WHERE batch = :batch AND number > :after AND number <= :known
ORDER BY number LIMIT :size;

-- name: arrival_ahead
SELECT digest, number FROM temp.arrivals WHERE (digest, number) > (:low, :low_number)
ORDER BY digest, number LIMIT 1 OFFSET :size - 1;

-- name: merge_digests
INSERT OR IGNORE INTO digests (batch, digest, number)
SELECT :batch, digest, number FROM temp.arrivals
WHERE (digest, number) > (:low, :low_number) AND (digest, number) <= (:high, :high_number)
ORDER BY digest, number;

-- name: drop_repeated
DELETE FROM items WHERE batch = :batch AND number IN (
    SELECT arrived.number FROM temp.arrivals AS arrived JOIN digests
    ON digests.batch = :batch AND digests.digest = arrived.digest
    WHERE (arrived.digest, arrived.number) > (:low, :low_number)
    AND (arrived.digest, arrived.number) <= (:high, :high_number)
    AND digests.number <> arrived.number
);

-- name: merged
UPDATE batches SET planned = :planned, todo = todo + :added WHERE id = :batch;

-- name: items_not_done
SELECT number, state FROM items
WHERE batch = :batch AND number > :after AND number <= :known AND state <> 1
ORDER BY number LIMIT :size;

-- name: change_state
UPDATE items SET state = ? WHERE batch = ? AND number = ?;

-- name: plan_read
UPDATE batches SET repeated = :repeated WHERE id = :batch;

-- name: item_suspected
UPDATE items SET state = 2
WHERE batch = (SELECT id FROM batches WHERE job_id = :job_id) AND number = :item;

-- name: item_quarantined
UPDATE items SET state = 3
WHERE batch = (SELECT id FROM batches WHERE job_id = :job_id) AND number = :item;

-- name: item_set_aside
INSERT OR REPLACE INTO quarantine (batch, number, at_s, attempt, cause, reason, detail)
SELECT batch, items.number, :at_s, :number, :cause, :reason, :detail FROM items
WHERE batch = (SELECT id FROM batches WHERE job_id = :job_id) AND items.number = :item
AND state = 3;

-- name: item_requeued
UPDATE items SET state = 0
WHERE batch = (SELECT id FROM batches WHERE job_id = :job_id) AND number = :item
AND state IN (2, 3);

-- name: remove_quarantine
DELETE FROM quarantine WHERE batch = (SELECT id FROM batches WHERE job_id = :job_id);

-- name: remove_digests
DELETE FROM digests WHERE batch = (SELECT id FROM batches WHERE job_id = :job_id);

-- name: remove_items
DELETE FROM items WHERE batch = (SELECT id FROM batches WHERE job_id = :job_id);

-- name: remove_batches
DELETE FROM batches WHERE job_id = :job_id;

-- name: remove_looked_at
DELETE FROM looked_at WHERE job_id = :job_id;

-- name: remove_checkpoints
DELETE FROM checkpoints WHERE job_id = :job_id;

-- name: remove_attempts
DELETE FROM attempts WHERE job_id = :job_id;

-- name: remove_events
DELETE FROM events WHERE job_id = :job_id;

-- name: remove_jobs
DELETE FROM jobs WHERE id = :job_id;
