//! Key and certificate files: any bytes are blocks or one error with a line, and never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otrelay::model::der::{Der, SEQUENCE};
use otrelay::net::pem::blocks;

fuzz_target!(|data: &[u8]| {
    let Ok(found) = blocks(data) else { return };
    for block in found {
        assert!(block.line >= 1 && block.der.len() <= data.len());
        let mut der = Der(&block.der);
        while let Some((tag, content)) = der.element() {
            if tag == SEQUENCE {
                let _ = Der(content).element();
            }
        }
    }
});
