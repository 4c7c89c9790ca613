-- Packs of bodies go through DEFLATE after LZ4 (store/coding.rs); those of schema 2 and 3 stay as they are and are read. Nothing
-- else changes: the number keeps older programs away, which would take such a pack for a damaged one.
--
-- For who reads body_pack.bodies: a first byte of 1 is an LZ4 block in raw DEFLATE, one of 16 or more an LZ4 block.
UPDATE meta SET value = '4' WHERE key = 'schema';
