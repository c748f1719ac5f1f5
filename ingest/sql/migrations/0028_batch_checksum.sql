-- What a batch held, so that another one under its number is told from the same one again.
ALTER TABLE batch ADD COLUMN checksum integer;
COMMENT ON COLUMN batch.checksum IS 'CRC-32 of its body, signed; null: committed before there were any';
