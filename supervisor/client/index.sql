-- The jobs of a state folder, as far as a verb must know them to tell which one is meant. Parameters:
-- `sources` 1 asks for the path of each job file too, which means reading every spec.
SELECT id, name, folder, state, created_s,
    CASE WHEN :sources AND json_valid(spec) THEN json_extract(spec, '$.job.source') END AS source
FROM jobs ORDER BY created_s, rowid;
