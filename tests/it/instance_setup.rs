//! `otrelay instance-setup`: what a ServiceNow administrator is given for a config. Whether others can read the file is asked
//! of another XML reader in `tests/readers.sh`.

use crate::support::agent::Agent;

const INSTANCE: &str = "https://acme.example";

const ROWS: &str = r#"
[[rule]]
name = "Tickets"
[[rule.action]]
[[rule.action]]
report_type = "application"
table = "u_ot_alert"
columns = { title = "u_title" }
fields = { u_plant = "<Nord> & {{ site }}" }
[[rule]]
name = "Off"
enabled = false
[[rule.action]]
table = "problem"
"#;

#[test]
fn the_config_decides_what_is_made() {
    let agent = Agent::at(INSTANCE).rules(ROWS);
    let said = agent.run(&["instance-setup"]).ends(0).says("otrelay instance-setup --steps");
    assert!(said.out.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<unload "), "{}", said.out);
    assert_eq!(said.out, agent.run(&["instance-setup", "prod"]).ends(0).out, "the same bytes each time");
    for words in ["sys_dictionary_u_ot_alert_u_title<", "sys_dictionary_u_ot_alert_u_plant<", "Unconfirmed"] {
        assert!(said.out.contains(words), "{words}");
    }
    assert!(!said.out.contains("problem"), "a rule that is off needs nothing");
    insta::assert_snapshot!("instance_steps", agent.run(&["instance-setup", "--steps"]).ends(0).out);
    agent.run(&["instance-setup", "--by-hand"]).ends(0).says("Extends table = Import Set Row");
}

#[test]
fn what_cannot_be_made_is_an_error_with_words() {
    let agent = Agent::at(INSTANCE).rules(ROWS);
    agent.run(&["instance-setup", "test"]).ends(1).says("there is no destination `test`; known: prod");
    agent.run(&["instance-setup", "--choice"]).ends(1).says("no choice is needed");
    agent.run(&["instance-setup", "--target", "In cident"]).ends(1).says("--target In cident: expected");
    agent.run(&["instance-setup", "--steps", "--choice"]).ends(2);
}
