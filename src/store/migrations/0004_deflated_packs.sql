-- Packs may be LZ4 blocks in DEFLATE (store/coding.rs). The number keeps older programs away from them.
UPDATE meta SET value = '4' WHERE key = 'schema';
