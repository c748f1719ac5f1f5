The statements of edge.outbox and edge.memory.

-- name: hub
-- Whose file this is and where its numbering stands.
SELECT name, epoch, next_sequence, place, open_in_boot FROM hub;

-- name: put_hub
-- Begin an epoch, or note that the file is open in this boot.
INSERT OR REPLACE INTO hub (one, name, epoch, next_sequence, place, open_in_boot)
VALUES (1, :name, :epoch, :next_sequence, :place, :open_in_boot);

-- name: close_hub
-- Note that the file was closed in order.
UPDATE hub SET open_in_boot = NULL;

-- name: put_next_sequence
-- Move the numbering on, in the transaction that seals.
UPDATE hub SET next_sequence = :next_sequence;

-- name: depth
-- How much waits: entries, batches, and measurements in batches.
SELECT (SELECT count(*) FROM entry), count(*), coalesce(sum(count), 0) FROM batch;

-- name: resent
-- How many measurements wait although they had their receipt: somebody asked for them.
SELECT coalesce(sum(count), 0) FROM batch WHERE times_receipted > 0;

-- name: put_entry
-- Keep one measurement or undecoded payload.
INSERT INTO entry (kind, received_ms, body) VALUES (:kind, :received_ms, :body);

-- name: entries
-- The oldest entries.
SELECT id, kind, received_ms, body FROM entry ORDER BY id LIMIT :limit;

-- name: delete_entries
-- Forget the entries that were sealed in the same transaction.
DELETE FROM entry WHERE id <= :last_id;

-- name: put_batch
-- Seal a batch.
INSERT INTO batch (epoch, sequence, count, message) VALUES (:epoch, :sequence, :count, :message);

-- name: batches
-- Batches without a receipt, oldest first, behind the one with this id.
SELECT id, epoch, sequence, count, message FROM batch
WHERE id > :after ORDER BY id LIMIT :limit;

-- name: newest_batches
-- Batches without a receipt, newest first.
SELECT id, epoch, sequence, count, message FROM batch ORDER BY id DESC LIMIT :limit;

-- name: batch_count
-- The measurements in one batch, and how often it was receipted; no row where it does not wait.
SELECT count, times_receipted FROM batch WHERE epoch = :epoch AND sequence = :sequence;

-- name: delete_batch
-- Forget a batch: only on its receipt.
DELETE FROM batch WHERE epoch = :epoch AND sequence = :sequence;

-- name: keep_receipted
-- Keep a batch aside on its receipt.
INSERT OR REPLACE INTO receipted (epoch, sequence, count, message, receipted_ms, times_receipted)
SELECT epoch, sequence, count, message, :now_ms, times_receipted + 1 FROM batch
WHERE epoch = :epoch AND sequence = :sequence;

-- name: receipted_since
-- How many batches and measurements were receipted since a time.
SELECT count(*), coalesce(sum(count), 0) FROM receipted WHERE receipted_ms >= :since_ms;

-- name: queue_receipted
-- Put them back into the queue, in their order.
INSERT INTO batch (epoch, sequence, count, message, times_receipted)
SELECT epoch, sequence, count, message, times_receipted FROM receipted
WHERE receipted_ms >= :since_ms ORDER BY id;

-- name: delete_receipted
-- They wait again.
DELETE FROM receipted WHERE receipted_ms >= :since_ms;

-- name: date_receipted
-- The hub knows the time again: what was receipted meanwhile counts from now.
UPDATE receipted SET receipted_ms = :now_ms WHERE receipted_ms = :never_ms;

-- name: forget_receipted
-- Kept long enough.
DELETE FROM receipted WHERE receipted_ms < :before_ms;

-- name: trim_receipted
-- Forget the oldest until so many measurements are gone.
DELETE FROM receipted WHERE id IN (
    SELECT id FROM (SELECT id, count, sum(count) OVER (ORDER BY id) AS upto FROM receipted)
    WHERE upto - count < :surplus
);

-- name: request
-- Whether a request was met.
SELECT 1 FROM request WHERE id = :id;

-- name: put_request
-- Note the last request: it is retained by the broker, and comes again at each connection.
INSERT OR REPLACE INTO request (one, id) VALUES (1, :id);

-- name: oldest_batch
-- What goes first where a person chose to lose the oldest at capacity.
SELECT epoch, sequence, count FROM batch WHERE times_receipted = 0 ORDER BY id LIMIT 1;

-- name: add_tally
-- Count on.
INSERT INTO tally (name, n) VALUES (:name, :n) ON CONFLICT (name) DO UPDATE SET n = n + :n;

-- name: tallies
-- All counts.
SELECT name, n FROM tally;

-- name: time_lines
-- What is remembered of a device's clock, oldest line first.
SELECT type, ahead_ms, first_ms, last_ms, set_ms, drift_ppm, observed_ms, doubtful
FROM time_line
WHERE device = :device ORDER BY position;

-- name: delete_time_lines
-- Make room for a device's lines as they are now.
DELETE FROM time_line WHERE device = :device;

-- name: put_time_line
-- Remember one line.
INSERT INTO time_line (
    device, position, type, ahead_ms, first_ms, last_ms, set_ms, drift_ppm, observed_ms, doubtful
)
VALUES (
    :device, :position, :type, :ahead_ms, :first_ms, :last_ms, :set_ms, :drift_ppm, :observed_ms,
    :doubtful
);

-- name: trim_devices
-- Forget the devices met longest ago, beyond the bound.
DELETE FROM time_line WHERE device IN (
    SELECT device FROM time_line GROUP BY device
    ORDER BY max(last_ms) DESC LIMIT -1 OFFSET :devices_max
);

-- name: packets
-- The packets that were taken, oldest first.
SELECT device, source, digest FROM packet ORDER BY id;

-- name: put_packet
-- Remember a packet as the latest.
INSERT OR REPLACE INTO packet (device, source, digest) VALUES (:device, :source, :digest);

-- name: trim_packets
-- Forget the oldest packets, beyond the bound.
DELETE FROM packet WHERE id <= (SELECT max(id) FROM packet) - :packets_max;

-- name: put_undated
-- Keep a payload that came while the hub did not know the time.
INSERT INTO undated (boot, device, counted_ms, source, stored, body)
VALUES (:boot, :device, :counted_ms, :source, :stored, :body);

-- name: undated
-- The oldest of them.
SELECT id, boot, device, counted_ms, source, stored, body FROM undated ORDER BY id LIMIT :limit;

-- name: undated_count
-- How many there are.
SELECT count(*) FROM undated;

-- name: delete_undated
-- Forget those that were placed, in the transaction that keeps what became of them.
DELETE FROM undated WHERE id <= :last_id;

-- name: boot
-- When the machine's boot began, if that was ever known.
SELECT name, started_ms FROM boot;

-- name: put_boot
-- Remember it.
INSERT OR REPLACE INTO boot (one, name, started_ms) VALUES (1, :name, :started_ms);
