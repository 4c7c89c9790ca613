//! Any text as a config file: no panic, no endless work, every problem one line with a place that exists, the same
//! answer twice, and what is accepted can be compiled or is refused with words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otrelay::config::{ConfigError, parse_str};

fuzz_target!(|text: &str| {
    let check = |problem: &otrelay::config::Problem| {
        let words = problem.to_string();
        assert!(!words.is_empty() && !words.chars().any(char::is_control), "{words:?}");
        assert!(words.len() < 4_096, "a problem of {} bytes", words.len());
        let lines = text.split('\n').count();
        assert!(problem.place.as_ref().is_none_or(|place| place.line <= lines), "{words}");
    };
    match parse_str("otrelay.toml", text) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(check);
            // The templates inside are the operator's too.
            let _ = otrelay::app::compile(&loaded.config);
            let again = parse_str("otrelay.toml", text).expect("the same text, the same answer");
            assert_eq!(format!("{:?}", loaded.config.rules), format!("{:?}", again.config.rules));
        }
        Err(ConfigError { problems }) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(check);
        }
    }
});
