-- Where a received message came from (JSON); NULL for published ones.
ALTER TABLE message ADD COLUMN origin TEXT;
