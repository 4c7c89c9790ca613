//! What a field template may be written with: expressions, `if` and `for`, no more.
//!
//! The engine's fuel bounds how many steps a template takes, not how much text one step makes. Text can only grow
//! step by step when a grown value gets a name (`set`, `with`, a list in a `for`) and is used twice; without such
//! names a template's work is bounded by its own length. So they are refused here, before the engine sees them.
//! Nothing is parsed: every piece of code is found by its delimiters, quoted strings are skipped.

use super::Fault;

/// Longest template, in bytes.
pub(super) const TEMPLATE_MAX: usize = 8 * 1024;
/// Most `~` and `+` in one piece of code.
const JOINS_MAX: usize = 64;
/// Statements that bind nothing, or only an element of a list.
const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];

/// Whether the text has any code in it; if not, it is taken as it is.
pub(super) fn has_code(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// Checks every piece of code.
pub(super) fn check(text: &str) -> Result<(), Fault> {
    if text.len() > TEMPLATE_MAX {
        let problem = format!("{} bytes long, at most {TEMPLATE_MAX} are possible", text.len());
        return Err(Fault { line: None, problem });
    }
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let line = line_of(text, text.len() - rest.len() + open);
        let at = |problem: String| Fault { line: Some(line), problem };
        let code = &rest[open + 1..];
        rest = match code.as_bytes().first() {
            Some(b'#') => {
                let end = code.find("#}").ok_or_else(|| at("`{#` without `#}`".into()))?;
                &code[end + 2..]
            }
            Some(b'{') => {
                let (expression, after) = piece(&code[1..], "}}").map_err(at)?;
                check_code(&expression).map_err(at)?;
                after
            }
            Some(b'%') => {
                let (statement, after) = piece(&code[1..], "%}").map_err(at)?;
                check_code(&statement).and_then(|()| check_statement(&statement)).map_err(at)?;
                after
            }
            _ => code,
        };
    }
    Ok(())
}

/// The line of a byte, from 1.
pub(super) fn line_of(text: &str, byte: usize) -> usize {
    1 + memchr::memchr_iter(b'\n', &text.as_bytes()[..byte]).count()
}

/// The code up to `close`, with its quoted strings blanked, and what follows.
fn piece<'t>(code: &'t str, close: &str) -> Result<(String, &'t str), String> {
    let mut bare = String::with_capacity(code.len().min(256));
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in code.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => {
                quote = None;
                bare.push(c);
            }
            Some(_) => {}
            None if code[at..].starts_with(close) => return Ok((bare, &code[at + close.len()..])),
            None => {
                if matches!(c, '"' | '\'') {
                    quote = Some(c);
                }
                bare.push(c);
            }
        }
    }
    Err(match quote {
        Some(open) => format!("a string that begins with {open} does not end"),
        None => format!("`{close}` is missing"),
    })
}

fn check_code(code: &str) -> Result<(), String> {
    // A map in braces could hide where the code ends; a product of texts is the one step without a bound.
    if let Some(found) = code.chars().find(|c| matches!(c, '{' | '*')) {
        return Err(format!("`{found}` is not possible in a field template"));
    }
    let joins = code.chars().filter(|c| matches!(c, '~' | '+')).count();
    if joins > JOINS_MAX {
        return Err(format!("{joins} times `~` or `+` in one expression, at most {JOINS_MAX} are possible"));
    }
    Ok(())
}

fn check_statement(code: &str) -> Result<(), String> {
    let words: Vec<&str> = code.trim_start_matches(['-', '+']).split_whitespace().collect();
    let first = words.first().copied().unwrap_or_default().trim_end_matches(['-', '+']);
    if !STATEMENTS.contains(&first) {
        return Err(format!("`{first}` is not possible in a field template, only `if` and `for`"));
    }
    if first == "for" {
        if words.contains(&"recursive") {
            return Err("`recursive` is not possible in a field template".to_owned());
        }
        // The marks of `{%-` and `-%}` are no part of the expression.
        let walked = code.trim_matches(['-', '+']);
        if let Some(found) = walked.chars().find(|c| matches!(c, '~' | '+' | '[')) {
            return Err(format!("`{found}` is not possible in a `for`: walk a list as it is"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, problem: &str) {
        let fault = check(text).expect_err(text);
        assert!(fault.to_string().contains(problem), "{text}: {fault}");
    }

    #[test]
    fn if_and_for_are_possible() {
        for text in [
            "{{ title ~ ' + ' ~ site }}",
            "{% if site %}{{ site }}{% elif zone %}{{ zone }}{% else %}-{% endif %}",
            "{%- for r in references -%}{{ r }}\n{%- endfor -%}",
            "{# a comment with * and { #}{{ '{% set %} *' }} } {",
            "plain { text * } {",
        ] {
            assert!(check(text).is_ok(), "{text}: {:?}", check(text));
        }
    }

    #[test]
    fn what_gives_a_grown_value_a_name_is_refused() {
        refused("{% set x = raw ~ raw %}{{ x }}", "`set` is not possible");
        refused("{%- set x %}a{% endset %}", "`set` is not possible");
        refused("{% with x = raw ~ raw %}{{ x ~ x }}{% endwith %}", "`with`");
        refused("{% filter upper %}a{% endfilter %}", "`filter`");
        refused("{% raw %}{{ a }}{% endraw %}", "`raw`");
        refused("{% for x in [raw ~ raw] %}{{ x }}{% endfor %}", "in a `for`");
        refused("{% for x in (raw ~ raw, '') %}{{ x }}{% endfor %}", "in a `for`");
        refused("{% for x in references recursive %}{{ loop(x) }}{% endfor %}", "recursive");
        refused("{{ 'x' * 1000000000 }}", "`*`");
        refused("{{ {'a': {'b': 1}} }}", "`{`");
        refused(&format!("{{{{ raw{} }}}}", " ~ raw".repeat(65)), "65 times");
        refused(&" ".repeat(TEMPLATE_MAX + 1), "8193 bytes long");
    }

    #[test]
    fn broken_code_is_named_with_its_line() {
        refused("a\n{{ title }", "line 2: `}}` is missing");
        refused("{{ 'title }}", "a string that begins with '");
        refused("\n\n{# x", "line 3: `{#`");
    }
}
