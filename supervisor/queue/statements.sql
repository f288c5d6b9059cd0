-- name: tables
SELECT name FROM sqlite_master WHERE type = 'table';

-- name: next_seq
SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'entries';

-- name: entries
SELECT id, seq, uid, name, folder, gpus, gpu_memory_bytes, share_gpu, cpus, memory_bytes,
    submitted_s, queued_s, priority, after_jobs, key, group_name, claims, stop_s, phase, wish, state,
    why, placed_s, ended_s, launches, lost, boot_id
FROM entries ORDER BY seq;

-- name: entry
SELECT id, seq, uid, name, folder, gpus, gpu_memory_bytes, share_gpu, cpus, memory_bytes,
    submitted_s, queued_s, priority, after_jobs, key, group_name, claims, stop_s, phase, wish, state,
    why, placed_s, ended_s, launches, lost, boot_id
FROM entries WHERE id = :id;

-- name: add_entry
INSERT INTO entries (id, seq, uid, name, folder, gpus, gpu_memory_bytes, share_gpu, cpus,
    memory_bytes, submitted_s, queued_s, priority, after_jobs, key, group_name, claims, stop_s, phase,
    wish, state, why, placed_s, ended_s, launches, lost, boot_id)
VALUES (:id, :seq, :uid, :name, :folder, :gpus, :gpu_memory_bytes, :share_gpu, :cpus,
    :memory_bytes, :submitted_s, :queued_s, :priority, :after_jobs, :key, :group_name, :claims,
    :stop_s, :phase, :wish, :state, :why, :placed_s, :ended_s, :launches, :lost, :boot_id);

-- name: change_entry
UPDATE entries SET seq = :seq, uid = :uid, name = :name, folder = :folder, gpus = :gpus,
    gpu_memory_bytes = :gpu_memory_bytes, share_gpu = :share_gpu, cpus = :cpus,
    memory_bytes = :memory_bytes, submitted_s = :submitted_s, queued_s = :queued_s,
    priority = :priority, after_jobs = :after_jobs, key = :key, group_name = :group_name,
    claims = :claims, stop_s = :stop_s, phase = :phase, wish = :wish, state = :state, why = :why,
    placed_s = :placed_s, ended_s = :ended_s, launches = :launches, lost = :lost, boot_id = :boot_id
WHERE id = :id;

-- name: add_unshelved
INSERT INTO unshelved (id, spec, surroundings) VALUES (:id, :spec, :surroundings);

-- name: unshelved
SELECT unshelved.id, spec, surroundings FROM unshelved JOIN entries USING (id) ORDER BY seq;

-- name: shelved
DELETE FROM unshelved WHERE id = ?;

-- name: groups
SELECT uid, name, hold_after, failures, held FROM groups ORDER BY uid, name;

-- name: change_group
INSERT INTO groups (uid, name, hold_after, failures, held)
VALUES (:uid, :name, :hold_after, :failures, :held)
ON CONFLICT (uid, name) DO UPDATE SET hold_after = :hold_after, failures = :failures, held = :held;

-- name: add_happening
INSERT INTO happenings (at_s, job_id, kind, body) VALUES (:at_s, :job_id, :kind, :body);

-- name: happenings
SELECT seq, at_s, job_id, kind, body FROM happenings WHERE seq > :after ORDER BY seq LIMIT :limit;

-- name: happenings_of_job
SELECT seq, at_s, job_id, kind, body FROM happenings
WHERE job_id = :job_id AND seq > :after ORDER BY seq LIMIT :limit;

-- name: last_happening
SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'happenings';

-- name: forget_entry
DELETE FROM entries WHERE id = ?;

-- name: forget_happenings
DELETE FROM happenings WHERE job_id = ?;
