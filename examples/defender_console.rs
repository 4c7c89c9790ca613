//! The mock Defender for IoT console of the tests as a program, to try a `[[source]]` of kind `defender-console` or
//! `defender-sensor` against: `cargo run --example defender_console -- [--sensor] [--tls] [ALERTS]`.
//!
//! It begins with so many alerts (default 1000), raises one more every ten seconds and handles every third.

#[path = "../tests/it/support/console.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "it is the code of tests, and they use the rest of it")]
mod console;

use std::io::Write;
use std::time::Duration;

use console::{Console, NOW, TOKEN};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let alerts = args.iter().find_map(|arg| arg.parse::<i64>().ok()).unwrap_or(1_000);
    let console =
        if has("--tls") { Console::start_tls(!has("--sensor")) } else { Console::start(!has("--sensor")) };
    {
        let mut state = console.state();
        state.sensor(4, "west", "Plant West", "Line 2");
        for alert in 0..alerts {
            state.raise_at(4, NOW - alert * 60_000, NOW);
        }
    }
    let mut out = std::io::stdout();
    writeln!(out, "url = \"{}\"\ntoken = \"{TOKEN}\"", console.url())?;
    if has("--tls") {
        writeln!(out, "{}", console.ca_pem())?;
    }
    for second in 1.. {
        std::thread::sleep(Duration::from_secs(10));
        let mut state = console.state();
        state.now += 10_000;
        let id = state.raise(4);
        if second % 3 == 0 {
            state.handle(id);
        }
    }
    Ok(())
}
