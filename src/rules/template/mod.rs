//! Field templates: text with `{{ variables }}` that becomes a field of a ticket.
//!
//! Templates come from the config and are compiled once; alerts are only ever data in them, so `{{ 7*7 }}` in a title
//! stays as it is. Every template is bounded: its text, its steps (fuel), what one filter makes and what comes out.
//! A template that could fail at delivery fails at load: [`check_template`] knows every variable and renders one
//! alert with everything and one with nothing optional.

mod context;

mod filters;

mod syntax;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;

use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};

use crate::model::text;

pub use context::{TicketContext, VARIABLES};
pub use filters::FILTERS;

/// Longest value of a field, in bytes; what is longer is cut and ends in `…`.
pub const FIELD_MAX: usize = 32 * 1024;
/// Steps of one template.
const FUEL: u64 = 20_000;

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rules) struct Fault {
    /// Line of the template, from 1.
    pub(super) line: Option<usize>,
    pub(super) problem: String,
}

impl Fault {
    /// With the field's name before it.
    pub(in crate::rules) fn in_field(&self, field: &str) -> String {
        let field = text::one_line(&text::clip(field, 80)).into_owned();
        match self.line {
            Some(line) => format!("field `{field}`, line {line}: {}", self.problem),
            None => format!("field `{field}`: {}", self.problem),
        }
    }

    fn of(error: &minijinja::Error) -> Self {
        let problem = match (error.kind(), error.detail()) {
            (ErrorKind::OutOfFuel, _) => format!("more than {FUEL} steps: a loop over too much text?"),
            (ErrorKind::UnknownFilter, Some(detail)) => {
                let possible: Vec<_> = FILTERS.iter().map(|(name, _)| *name).collect();
                format!("{detail}; possible are {}", possible.join(", "))
            }
            (kind, Some(detail)) => format!("{kind}: {detail}"),
            (kind, None) => kind.to_string(),
        };
        Self { line: error.line(), problem: text::clip(&text::one_line(&problem), 600).into_owned() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

/// Checks one field and its template as [`crate::rules::Rules::compile`] does.
///
/// # Errors
/// Names the field, the line, what is wrong and the nearest variable.
pub fn check_template(field: &str, template: &str) -> Result<(), String> {
    Templates::new().compile(field, template).map(|_| ())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rules) enum FieldTemplate {
    /// No code in it: the value itself.
    Literal(String),
    /// Name in the engine.
    Compiled(String),
}

/// All templates of all rules; equal texts are compiled and checked once.
pub(in crate::rules) struct Templates {
    engine: Environment<'static>,
    by_text: HashMap<String, String>,
    /// One alert with everything, one without anything optional.
    samples: [Value; 2],
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates").field("count", &self.by_text.len()).finish_non_exhaustive()
    }
}

impl Templates {
    pub(in crate::rules) fn new() -> Self {
        Self { engine: filters::engine(), by_text: HashMap::new(), samples: context::samples() }
    }

    /// Compiles and checks the fields of one action.
    pub(in crate::rules) fn compile_all(
        &mut self,
        fields: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, FieldTemplate>, String> {
        fields.iter().map(|(field, text)| Ok((field.clone(), self.compile(field, text)?))).collect()
    }

    /// Compiles the fields of a row, of which one is the key.
    pub(in crate::rules) fn compile_row(
        &mut self,
        fields: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, FieldTemplate>, String> {
        let one = |(field, text): (&String, &String)| {
            let compiled = self.compile_text(text).map_err(|fault| fault.in_field(field))?;
            Ok((field.clone(), compiled))
        };
        fields.iter().map(one).collect()
    }

    fn compile(&mut self, field: &str, template: &str) -> Result<FieldTemplate, String> {
        check_field(field)?;
        self.compile_text(template).map_err(|fault| fault.in_field(field))
    }

    fn compile_text(&mut self, template: &str) -> Result<FieldTemplate, Fault> {
        syntax::check(template)?;
        if !syntax::has_code(template) {
            // The engine drops the last newline of a template (TOML's `"""` leaves one); so do we.
            let literal = template.strip_suffix('\n').unwrap_or(template);
            return Ok(FieldTemplate::Literal(text::lines(literal).into_owned()));
        }
        if let Some(name) = self.by_text.get(template) {
            return Ok(FieldTemplate::Compiled(name.clone()));
        }
        let name = self.by_text.len().to_string();
        self.engine.add_template_owned(name.clone(), template.to_owned()).map_err(|e| Fault::of(&e))?;
        self.check_variables(&name, template)?;
        let compiled = FieldTemplate::Compiled(name.clone());
        for sample in &self.samples {
            self.render(&compiled, sample)?;
        }
        self.by_text.insert(template.to_owned(), name);
        Ok(compiled)
    }

    /// Also finds what stands in a branch that neither sample takes.
    fn check_variables(&self, name: &str, template: &str) -> Result<(), Fault> {
        let used = self.engine.get_template(name).map_err(|e| Fault::of(&e))?.undeclared_variables(true);
        let known = |name: &str| VARIABLES.iter().any(|(known, _)| *known == name);
        let Some(unknown) = used.into_iter().filter(|name| !known(name)).min() else {
            return Ok(());
        };
        let last = unknown.rsplit('.').next().unwrap_or(&unknown);
        let line =
            template.find(&unknown).or_else(|| template.find(last)).map(|at| syntax::line_of(template, at));
        let mut problem = format!("there is no variable `{}`", text::clip(&unknown, 80));
        if let Some(near) = nearest(&unknown) {
            problem = format!("{problem}, the nearest is `{near}`");
        }
        Err(Fault { line, problem })
    }

    /// The value of a field: cleaned and cut to [`FIELD_MAX`].
    pub(in crate::rules) fn render(&self, template: &FieldTemplate, values: &Value) -> Result<String, Fault> {
        let name = match template {
            FieldTemplate::Literal(literal) => return Ok(literal.clone()),
            FieldTemplate::Compiled(name) => name,
        };
        let template = self.engine.get_template(name).map_err(|e| Fault::of(&e))?;
        let mut out = Capped::default();
        let rendered = template.render_captured_to(values.clone(), &mut out).map(|_| ());
        match rendered {
            // A full field is no failure: what came before is the value.
            Err(_) if out.is_full() => {}
            Err(error) => return Err(Fault::of(&error)),
            Ok(()) => {}
        }
        let value = String::from_utf8_lossy(&out.0);
        let value = value.trim_end_matches(char::REPLACEMENT_CHARACTER);
        Ok(text::clip(&text::lines(value), FIELD_MAX).into_owned())
    }
}

/// What a ServiceNow field may be called, and which two are otrelay's own.
fn check_field(field: &str) -> Result<(), String> {
    let shown = text::one_line(&text::clip(field, 80)).into_owned();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if field.is_empty() || field.len() > 80 || !field.bytes().all(plain) {
        return Err(format!("`{shown}` is not a field name: 1 to 80 of a-z 0-9 _"));
    }
    if matches!(field, "sys_id" | "correlation_id") {
        return Err(format!("field `{shown}`: otrelay sets it itself, it finds its tickets by it"));
    }
    Ok(())
}

/// The known variable that is most like `name`, if any is.
fn nearest(name: &str) -> Option<&'static str> {
    VARIABLES
        .iter()
        .map(|(known, _)| (strsim::damerau_levenshtein(name, known), *known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= name.chars().count() / 2 + 1)
        .map(|(_, known)| known)
}

/// Takes [`FIELD_MAX`] bytes and a little more, so that a cut can be seen, and then refuses.
#[derive(Default)]
struct Capped(Vec<u8>);

impl Capped {
    fn is_full(&self) -> bool {
        self.0.len() > FIELD_MAX
    }
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_full() {
            return Err(io::Error::other("the field is full"));
        }
        let taken = bytes.len().min(FIELD_MAX + 4 - self.0.len());
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(template: &str, problem: &str) {
        let error = check_template("short_description", template).expect_err(template);
        assert!(error.contains(problem) && error.contains("short_description"), "{template}: {error}");
    }

    /// What `template` gives for an alert with this title and everything else as in the full or the bare sample.
    fn rendered(template: &str, sample: usize) -> String {
        let mut templates = Templates::new();
        let compiled = templates.compile("work_notes", template).unwrap();
        templates.render(&compiled, &templates.samples[sample]).unwrap()
    }

    #[test]
    fn the_table_names_exactly_the_variables() {
        for sample in context::samples() {
            let mut found = Vec::new();
            for name in sample.try_iter().unwrap() {
                let value = sample.get_item(&name).unwrap();
                found.push(name.to_string());
                if value.kind() == minijinja::value::ValueKind::Map {
                    found.extend(value.try_iter().unwrap().map(|part| format!("{name}.{part}")));
                }
            }
            found.sort();
            let mut documented: Vec<_> = VARIABLES.iter().map(|(name, _)| (*name).to_owned()).collect();
            documented.sort();
            assert_eq!(found, documented);
        }
    }

    #[test]
    fn every_filter_of_the_table_is_there() {
        for (name, _) in FILTERS {
            let error = filters::engine().render_str(&format!("{{{{ 1|{name}(1, 2, 3, 4) }}}}"), ()).err();
            let kind = error.map(|e| e.kind());
            assert_ne!(kind, Some(ErrorKind::UnknownFilter), "{name}");
        }
        refused("{{ title|urlencode }}", "possible are capitalize, default");
        refused("{{ title is divisibleby(2) }}", "unknown test");
    }

    #[test]
    fn every_variable_can_be_written_whatever_is_absent() {
        for (name, _) in VARIABLES {
            for sample in [0, 1] {
                let _ = rendered(&format!("{{{{ {name} }}}}"), sample);
            }
        }
        assert_eq!(rendered("[{{ source.port }}|{{ site }}|{{ source.label }}]", 1), "[||unknown]");
        assert_eq!(rendered("{{ source.port }} {{ source.label }} {{ severity_number }}", 0), "502 plc-1 1");
        assert_eq!(rendered("{{ time }}", 0), "2026-11-21 08:15:00");
        assert_eq!(rendered("{{ site|default('no site', true) }}", 1), "no site");
        assert_eq!(
            rendered("{% for r in references %}{{ r }};{% endfor %}", 0),
            "CVE-2015-5374;sid:2250005;"
        );
        assert_eq!(rendered("{% if source.port == 502 %}Modbus{% endif %}", 0), "Modbus");
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_nearest() {
        refused("{{ titel }}", "line 1: there is no variable `titel`, the nearest is `title`");
        refused(
            "{{ title }}\n{{ source.ipp }}",
            "line 2: there is no variable `source.ipp`, the nearest is `source.ip`",
        );
        refused("{% if state == 'no' %}{{ sevrity }}{% endif %}", "`severity`");
        refused("{{ range(10) }}", "no variable `range`");
    }

    #[test]
    fn broken_templates_are_refused_with_field_and_line() {
        refused("a\n{{ title", "line 2");
        refused("{% if title %}", "line 1");
        refused("{{ title|nofilter }}", "nofilter");
        refused("{{ title / 2 }}", "line 1");
        let error = check_template("sys_id", "x").unwrap_err();
        assert!(error.contains("sets it itself"), "{error}");
        let error = check_template("Short Description", "x").unwrap_err();
        assert!(error.contains("not a field name"), "{error}");
    }

    #[test]
    fn bombs_end() {
        refused(
            "{% for c in raw %}{% for d in raw %}{{ c }}{% endfor %}{% endfor %}",
            "more than 20000 steps",
        );
        refused("{{ raw|replace('x', raw) ~ nothing }}", "nothing");
        assert_eq!(rendered("{{ raw|replace('x', raw)|replace('x', raw)|length }}", 0), "32766");
        assert!(rendered("{{ raw ~ raw ~ raw }}", 0).len() <= FIELD_MAX);
        assert!(rendered("{{ raw ~ raw ~ raw }}", 0).ends_with('…'));
        assert!(
            rendered("{{ raw|list_free }}".replace("list_free", "split('')|join(raw)").as_str(), 0).len()
                <= FIELD_MAX
        );
    }

    #[test]
    fn an_alerts_text_is_only_data() {
        let mut templates = Templates::new();
        let compiled = templates.compile("work_notes", "{{ title }} {{ message|upper }}").unwrap();
        let pairs = [("title", "{{ 7*7 }}"), ("message", "{% for %}\u{1b}[2J<b>")];
        let values = Value::from(BTreeMap::from(pairs));
        assert_eq!(templates.render(&compiled, &values).unwrap(), "{{ 7*7 }} {% FOR %}[2J<B>");
    }

    #[test]
    fn text_without_code_is_the_value() {
        assert_eq!(rendered("OT SOC {x} 100 %\n", 0), "OT SOC {x} 100 %");
        assert_eq!(rendered("a\u{7}b\tc", 0), "ab\tc");
    }

    #[test]
    fn filters_of_our_own() {
        assert_eq!(rendered("{{ 'abcdef'|truncate(4) }}", 0), "abc…");
        assert_eq!(rendered("{{ 'äöü'|truncate(3) }}", 0), "äöü");
        assert_eq!(rendered("{{ protocols|join(', ') }}", 0), "Modbus, TCP");
        assert_eq!(rendered("{{ ['', 'a']|join('-') }}", 0), "-a");
        assert_eq!(rendered("{{ time|replace(' ', 'T') }}Z", 0), "2026-11-21T08:15:00Z");
    }
}
