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
SELECT seq, at_s, kind, body FROM events WHERE job_id = :job_id AND seq > :after ORDER BY seq;

-- name: jobs
SELECT * FROM jobs ORDER BY created_s, rowid;

-- name: job
SELECT * FROM jobs WHERE id = :id;

-- name: attempts
SELECT * FROM attempts WHERE job_id = :job_id ORDER BY number;

-- name: checkpoints
SELECT * FROM checkpoints WHERE job_id = :job_id ORDER BY seq;
