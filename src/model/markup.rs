//! XML that is written element by element: the names are this program's, every value is escaped, and there is no way to
//! write one that is not.

use super::text::push_xml;

/// An attribute: its name and its value.
pub type Attribute<'a> = (&'static str, &'a str);

/// A document as far as it is written.
#[derive(Debug, Default)]
pub struct Markup(String);

impl Markup {
    /// Goes on after what this program wrote itself: a declaration, a style sheet.
    pub fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// `<name …>`.
    pub fn open(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.begin(name, attributes);
        self.0.push('>');
    }

    /// `<name …/>`.
    pub fn empty(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.begin(name, attributes);
        self.0.push_str("/>");
    }

    /// `</name>`.
    pub fn close(&mut self, name: &'static str) {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    /// `<name …>text</name>`.
    pub fn with(&mut self, name: &'static str, attributes: &[Attribute<'_>], text: &str) {
        self.open(name, attributes);
        push_xml(&mut self.0, text);
        self.close(name);
    }

    /// The document.
    pub fn into_string(self) -> String {
        self.0
    }

    fn begin(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.0.push('<');
        self.0.push_str(name);
        for (attribute, value) in attributes {
            self.0.push(' ');
            self.0.push_str(attribute);
            self.0.push_str("=\"");
            push_xml(&mut self.0, value);
            self.0.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_value_says_it_stays_one() {
        let mut markup = Markup::default();
        markup.raw("<?xml version=\"1.0\"?>");
        markup.open("a", &[("b", "\"><x y=\"")]);
        markup.with("c", &[], "</c><script>&");
        markup.empty("d", &[]);
        markup.close("a");
        assert_eq!(
            markup.into_string(),
            "<?xml version=\"1.0\"?><a b=\"&quot;&gt;&lt;x y=&quot;\"><c>&lt;/c&gt;&lt;script&gt;&amp;</c><d/></a>"
        );
    }
}
