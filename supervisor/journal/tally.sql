-- name: newest_event
SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events';

-- name: job_states
SELECT state, count(*) FROM jobs GROUP BY state;

-- name: jobs_without_specs
SELECT id, name, folder, '', created_s, updated_s, state, why, step, total, runner_pid,
    runner_ticks, boot_id
FROM jobs ORDER BY created_s, rowid;

-- name: milestones
SELECT events.job_id, events.kind, events.at_s,
    CASE WHEN json_valid(body) THEN json_extract(body, '$.number') END AS number
FROM events WHERE seq > :after AND seq <= :upto
AND kind IN ('AttemptSpawned', 'ProgressBegan', 'AttemptEnded') ORDER BY seq;

-- name: runs_up_to
SELECT job_id, number, chosen_s, NULL, resumed_step, resumed_written_s, NULL, NULL, spawned_s,
    progress_s, exited_s, NULL, NULL, ended_s, ran_s, cause, NULL, decision, NULL, step, NULL
FROM attempts WHERE job_id = :job_id AND number > :number - 3 AND number <= :number
ORDER BY number;

-- name: is_batch
SELECT count(*) FROM batches WHERE job_id = :job_id;

-- name: running_jobs
SELECT id, name, state, step, updated_s, runner_pid, runner_ticks, boot_id, (
    SELECT max(number) FROM attempts WHERE attempts.job_id = jobs.id
), (
    SELECT coalesce(written_s, at_s) FROM checkpoints
    WHERE checkpoints.job_id = jobs.id AND verified ORDER BY seq DESC LIMIT 1
)
FROM jobs WHERE state IN ('running', 'stopping') ORDER BY created_s LIMIT :limit;
