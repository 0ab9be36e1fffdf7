-- Where a received message came from (JSON); NULL for published ones.
ALTER TABLE message ADD COLUMN origin TEXT;
-- Where it is in a pack: at pack_at, before the payload.
ALTER TABLE message ADD COLUMN origin_bytes INTEGER;
